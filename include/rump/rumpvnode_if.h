/*
 * Operations on vnodes. They return an errno. The thread's credentials count, whatever kauth_cred_t is given; vnodes have no lock that a
 * caller could take, and need none.
 */
#ifndef _RUMP_RUMPVNODE_IF_H_
#define _RUMP_RUMPVNODE_IF_H_

#include <rump/rumpkern_if_pub.h>
#include <rump/rumpvfs_if_pub.h>

#ifdef __cplusplus
extern "C" {
#endif

int RUMP_VOP_LOOKUP(struct vnode *, struct vnode **, struct componentname *);
int RUMP_VOP_CREATE(struct vnode *, struct vnode **, struct componentname *, struct vattr *);
int RUMP_VOP_MKNOD(struct vnode *, struct vnode **, struct componentname *, struct vattr *);
int RUMP_VOP_MKDIR(struct vnode *, struct vnode **, struct componentname *, struct vattr *);
int RUMP_VOP_SYMLINK(struct vnode *, struct vnode **, struct componentname *, struct vattr *, char *);
int RUMP_VOP_REMOVE(struct vnode *, struct vnode *, struct componentname *);
int RUMP_VOP_RMDIR(struct vnode *, struct vnode *, struct componentname *);
int RUMP_VOP_LINK(struct vnode *, struct vnode *, struct componentname *);
int RUMP_VOP_RENAME(struct vnode *, struct vnode *, struct componentname *,
    struct vnode *, struct vnode *, struct componentname *);
int RUMP_VOP_GETATTR(struct vnode *, struct vattr *, kauth_cred_t);
int RUMP_VOP_SETATTR(struct vnode *, struct vattr *, kauth_cred_t);
int RUMP_VOP_READ(struct vnode *, struct uio *, int, kauth_cred_t);
int RUMP_VOP_WRITE(struct vnode *, struct uio *, int, kauth_cred_t);
int RUMP_VOP_READDIR(struct vnode *, struct uio *, kauth_cred_t, int *, off_t **, int *);
int RUMP_VOP_READLINK(struct vnode *, struct uio *, kauth_cred_t);
int RUMP_VOP_FSYNC(struct vnode *, kauth_cred_t, int, off_t, off_t);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPVNODE_IF_H_ */

/*
 * Operations on vnodes. They return an errno. What NetBSD checks with the credentials that it is given is checked with them here: those
 * of the name, for operations on names. NULL, NOCRED and FSCRED mean the thread's own. No operation needs, takes or gives back the locks
 * of RUMP_VOP_LOCK(), which are for the program's own threads.
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

#ifndef NOCRED
#define NOCRED	((kauth_cred_t)-1)
#define FSCRED	((kauth_cred_t)-2)
#endif

/* Whether it may be opened so; closing does nothing. */
#define RUMP_FREAD	0x1
#define RUMP_FWRITE	0x2
int RUMP_VOP_OPEN(struct vnode *, int, kauth_cred_t);
int RUMP_VOP_CLOSE(struct vnode *, int, kauth_cred_t);

#define RUMP_VREAD	0400
#define RUMP_VWRITE	0200
#define RUMP_VEXEC	0100
int RUMP_VOP_ACCESS(struct vnode *, int, kauth_cred_t);

/* The host's operations, of a regular file. */
int RUMP_VOP_IOCTL(struct vnode *, unsigned long, void *, int, kauth_cred_t);
/* Answers the events. */
int RUMP_VOP_POLL(struct vnode *, int);
int RUMP_VOP_SEEK(struct vnode *, off_t, off_t, kauth_cred_t);
int RUMP_VOP_PATHCONF(struct vnode *, int, long *);
int RUMP_VOP_FALLOCATE(struct vnode *, off_t, off_t);
int RUMP_VOP_FDISCARD(struct vnode *, off_t, off_t);
int RUMP_VOP_ABORTOP(struct vnode *, struct componentname *);

#define RUMP_LK_SHARED		0x00000001
#define RUMP_LK_EXCLUSIVE	0x00000002
#define RUMP_LK_NOWAIT		0x00000010
#define RUMP_LK_EXCLOTHER	0x00000800
int RUMP_VOP_LOCK(struct vnode *, int);
int RUMP_VOP_UNLOCK(struct vnode *);
int RUMP_VOP_ISLOCKED(struct vnode *);

int RUMP_VOP_GETEXTATTR(struct vnode *, int, const char *, struct uio *, size_t *, kauth_cred_t);
int RUMP_VOP_SETEXTATTR(struct vnode *, int, const char *, struct uio *, kauth_cred_t);
int RUMP_VOP_DELETEEXTATTR(struct vnode *, int, const char *, kauth_cred_t);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPVNODE_IF_H_ */

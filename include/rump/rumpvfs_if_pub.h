/*
 * The vfs, from outside: vnodes and mounts. Included by <rump/rump.h>; the operations on vnodes are in <rump/rumpvnode_if.h>.
 *
 * A vnode that one is given is referenced: rump_pub_vp_rele() gives it back. It keeps its mount from being unmounted. Functions
 * return an errno, unless it says otherwise; what the thread's credentials forbid is forbidden here. docs/librump.md has what is left
 * out, and why.
 */
#ifndef _RUMP_RUMPVFS_IF_PUB_H_
#define _RUMP_RUMPVFS_IF_PUB_H_

#include <sys/types.h>

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <rump/rumpdefs.h>

#ifdef __cplusplus
extern "C" {
#endif

struct componentname;
struct kauth_cred;
struct lwp;
struct mount;
struct statvfs;
struct vnode;
#ifndef __KAUTH_CRED_T
#define __KAUTH_CRED_T
typedef struct kauth_cred *kauth_cred_t;
#endif

enum vtype { VNON, VREG, VDIR, VBLK, VCHR, VLNK, VSOCK, VFIFO, VBAD };

/* All bits set: not set. */
struct vattr {
	enum vtype va_type;
	mode_t va_mode;
	uint32_t va_nlink;
	uid_t va_uid;
	gid_t va_gid;
	uint64_t va_fsid;
	uint64_t va_fileid;
	uint64_t va_size;
	long va_blocksize;
	struct timespec va_atime;
	struct timespec va_mtime;
	struct timespec va_ctime;
	uint64_t va_rdev;
	uint64_t va_bytes;
};

struct vattr *rump_pub_vattr_init(void);
void rump_pub_vattr_settype(struct vattr *, enum vtype);
void rump_pub_vattr_setmode(struct vattr *, mode_t);
void rump_pub_vattr_setrdev(struct vattr *, dev_t);
void rump_pub_vattr_free(struct vattr *);

void rump_pub_getvninfo(struct vnode *, enum vtype *, off_t *, dev_t *);
void rump_pub_vp_incref(struct vnode *);
int rump_pub_vp_getref(struct vnode *);
void rump_pub_vp_rele(struct vnode *);

/*
 * A name, copied, with the credentials that operations on it have (NULL: the thread's own). Operation, flags and lwp mean nothing.
 * RUMPCN_FREECRED frees the credentials too.
 */
struct componentname *rump_pub_makecn(unsigned long, unsigned long, const char *, size_t, kauth_cred_t, struct lwp *);
#define RUMPCN_FREECRED 0x02
void rump_pub_freecn(struct componentname *, int);

/*
 * Operation, flags, path: the directory's vnode, the vnode, the name; NULL for what is not wanted. With RUMP_NAMEI_CREATE a vnode that is
 * missing is NULL.
 */
#define RUMP_NAMEI_LOOKUP	0
#define RUMP_NAMEI_CREATE	1
#define RUMP_NAMEI_DELETE	2
#define RUMP_NAMEI_RENAME	3
#define RUMP_NAMEI_LOCKLEAF	0x00000004
#define RUMP_NAMEI_LOCKPARENT	0x00000008
#define RUMP_NAMEI_FOLLOW	0x00000040
#define RUMP_NAMEI_NOFOLLOW	0x00000000
int rump_pub_namei(uint32_t, uint32_t, const char *, struct vnode **, struct vnode **, struct componentname **);

int rump_pub_vfs_getmp(const char *, struct mount **);
int rump_pub_vfs_root(struct mount *, struct vnode **, int);
int rump_pub_vfs_statvfs(struct mount *, struct statvfs *);
int rump_pub_vfs_sync(struct mount *, int, kauth_cred_t);
int rump_pub_vfs_unmount(struct mount *, int);
int rump_pub_vfs_syncwait(struct mount *);

/* Handles: E2BIG when *size is less than what is wanted, which is told; RUMP_FID_SIZE bytes. Good as long as the mount is. */
struct fid;
#define RUMP_FID_SIZE	32
int rump_pub_vfs_vptofh(struct vnode *, struct fid *, size_t *);
int rump_pub_vfs_fhtovp(struct mount *, struct fid *, struct vnode **);

/* The types of file systems that can be mounted. */
struct vfsops {
	const char *vfs_name;
};
struct vfsops *rump_pub_vfslist_iterate(struct vfsops *);
struct vfsops *rump_pub_vfs_getopsbyname(const char *);

/* EOPNOTSUPP: attributes need no start. */
int rump_pub_vfs_extattrctl(struct mount *, int, struct vnode *, int, const char *);
/* To the console. */
void rump_pub_vfs_mount_print(const char *, int);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPVFS_IF_PUB_H_ */

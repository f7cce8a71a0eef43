/*
 * Constants. Those that Linux has, have Linux's values, so that they may be mixed with the host's own.
 */
#ifndef _RUMP_RUMPDEFS_H_
#define _RUMP_RUMPDEFS_H_

#include <stdint.h>

#define RUMP_O_RDONLY	0x00000000
#define RUMP_O_WRONLY	0x00000001
#define RUMP_O_RDWR	0x00000002
#define RUMP_O_ACCMODE	0x00000003
#define RUMP_O_CREAT	0x00000040
#define RUMP_O_EXCL	0x00000080
#define RUMP_O_NOCTTY	0x00000100
#define RUMP_O_TRUNC	0x00000200
#define RUMP_O_APPEND	0x00000400
#define RUMP_O_NONBLOCK	0x00000800
#define RUMP_O_DSYNC	0x00001000
#define RUMP_O_SYNC	0x00101000
#define RUMP_O_DIRECT	0x00004000
#define RUMP_O_DIRECTORY	0x00010000
#define RUMP_O_NOFOLLOW	0x00020000
#define RUMP_O_CLOEXEC	0x00080000
#define RUMP_O_NOATIME	0x00040000
#define RUMP_O_PATH	0x00200000

#define RUMP_F_DUPFD	0
#define RUMP_F_GETFD	1
#define RUMP_F_SETFD	2
#define RUMP_F_GETFL	3
#define RUMP_F_SETFL	4
#define RUMP_F_GETLK	5
#define RUMP_F_SETLK	6
#define RUMP_F_SETLKW	7
#define RUMP_F_DUPFD_CLOEXEC	1030
#define RUMP_FD_CLOEXEC	1

#define RUMP_SEEK_SET	0
#define RUMP_SEEK_CUR	1
#define RUMP_SEEK_END	2

#define RUMP_LOCK_SH	1
#define RUMP_LOCK_EX	2
#define RUMP_LOCK_NB	4
#define RUMP_LOCK_UN	8

#define RUMP_AT_FDCWD	(-100)
#define RUMP_AT_SYMLINK_NOFOLLOW	0x100
#define RUMP_AT_REMOVEDIR	0x200
#define RUMP_AT_SYMLINK_FOLLOW	0x400
#define RUMP_AT_EACCESS	0x200

#define RUMP_PF_LOCAL	1
#define RUMP_PF_UNIX	1
#define RUMP_PF_INET	2
#define RUMP_PF_INET6	10
#define RUMP_PF_ROUTE	16
#define RUMP_AF_LOCAL	1
#define RUMP_AF_UNIX	1
#define RUMP_AF_INET	2
#define RUMP_AF_INET6	10
#define RUMP_AF_ROUTE	16

#define RUMP_SOCK_STREAM	1
#define RUMP_SOCK_DGRAM	2
#define RUMP_SOCK_RAW	3
#define RUMP_SOCK_SEQPACKET	5
#define RUMP_SOCK_NONBLOCK	0x800
#define RUMP_SOCK_CLOEXEC	0x80000

#define RUMP_MSG_OOB	0x1
#define RUMP_MSG_PEEK	0x2
#define RUMP_MSG_DONTROUTE	0x4
#define RUMP_MSG_WAITALL	0x100
#define RUMP_MSG_DONTWAIT	0x40
#define RUMP_MSG_NOSIGNAL	0x4000
#define RUMP_SOL_SOCKET	1
#define RUMP_SO_REUSEADDR	2
#define RUMP_SO_KEEPALIVE	9
#define RUMP_SO_BROADCAST	6
#define RUMP_SO_LINGER	13
#define RUMP_SO_SNDBUF	7
#define RUMP_SO_RCVBUF	8
#define RUMP_SO_ERROR	4
#define RUMP_SO_TYPE	3

/* rump_sys_mount(): Linux's MS_*. */
#define RUMP_MNT_RDONLY	0x00000001
#define RUMP_MNT_NOSUID	0x00000002
#define RUMP_MNT_NODEV	0x00000004
#define RUMP_MNT_NOEXEC	0x00000008
#define RUMP_MNT_SYNCHRONOUS	0x00000010
#define RUMP_MNT_UPDATE	0x00000020
#define RUMP_MNT_NOATIME	0x00000400
#define RUMP_MNT_ASYNC	0
#define RUMP_MNT_LOG	0
/* rump_sys_unmount(): Linux's. */
#define RUMP_MNT_FORCE	1
#define RUMP_MNT_DETACH	2

/* rump_sys_reboot() */
#define RUMP_RB_AUTOBOOT	0x000
#define RUMP_RB_NOSYNC	0x004
#define RUMP_RB_HALT	0x008
#define RUMP_RB_DUMP	0x100
#define RUMP_RB_POWERDOWN	0x800

/* rump_pub_lwproc_rfork() */
#define RUMP_RFFDG	0x01
#define RUMP_RFCFDG	0x02

/* Of a module: rump_getversion() when it was compiled. */
#define RUMP_MODULE_VERSION	1000000

/* Namespaces of rump_sys_extattr_*(). */
#define RUMP_EXTATTR_NAMESPACE_USER	1
#define RUMP_EXTATTR_NAMESPACE_SYSTEM	2

enum rump_etfs_type {
	RUMP_ETFS_REG,
	RUMP_ETFS_BLK,
	RUMP_ETFS_CHR,
	RUMP_ETFS_DIR,		/* the files of a directory */
	RUMP_ETFS_DIR_SUBDIRS	/* and everything below it */
};
/* The window goes to the end of the host's file. */
#define RUMP_ETFS_SIZE_ENDOFF	((uint64_t)-1)

enum rump_uiorw {
	RUMPUIO_READ,
	RUMPUIO_WRITE
};

/* What rump_sys_getvfsstat() tells of a mount. Sizes are in units of f_frsize bytes. */
struct rump_statvfs {
	unsigned long f_flag;
	unsigned long f_bsize;
	unsigned long f_frsize;
	unsigned long f_iosize;
	uint64_t f_blocks;
	uint64_t f_bfree;
	uint64_t f_bavail;
	uint64_t f_bresvd;
	uint64_t f_files;
	uint64_t f_ffree;
	uint64_t f_favail;
	uint64_t f_fresvd;
	unsigned long f_fsid;
	unsigned long f_namemax;
	char f_fstypename[32];
	char f_mntonname[1024];
	char f_mntfromname[1024];
};

#endif /* _RUMP_RUMPDEFS_H_ */

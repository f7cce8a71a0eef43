/*
 * What rump_sys_mount() takes as data: the structures of NetBSD's file systems, by the type's name. fspec is a path in the kernel, such
 * as the key of an image that was registered with rump_pub_etfs_register(key, image, RUMP_ETFS_BLK).
 */
#ifndef _RUMP_RUMPMOUNT_H_
#define _RUMP_RUMPMOUNT_H_

#include <sys/types.h>

#include <stdint.h>

#define MOUNT_TMPFS	"tmpfs"
#define MOUNT_EXT2FS	"ext2fs"	/* ext3 and ext4 too */
#define MOUNT_FFS	"ffs"
#define MOUNT_CD9660	"cd9660"
#define MOUNT_MSDOS	"msdos"

#define TMPFS_ARGS_VERSION 1
struct tmpfs_args {
	int ta_version;
	ino_t ta_nodes_max;	/* 0: no limit but memory */
	off_t ta_size_max;	/* bytes; 0: no limit but memory */
	uid_t ta_root_uid;
	gid_t ta_root_gid;
	mode_t ta_root_mode;
};

/* For ext2fs and ffs. */
struct ufs_args {
	char *fspec;
};

struct iso_args {
	const char *fspec;
	int flags;
};

struct msdosfs_args {
	char *fspec;
	uid_t uid;
	gid_t gid;
	mode_t mask;
	int flags;
	int version;
	mode_t dirmask;
	int gmtoff;
};

#endif /* _RUMP_RUMPMOUNT_H_ */

/* image FILE: an ext2, ext3 or ext4 image of the host, mounted, read and written. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>
#include <rump/rumpmount.h>

int
main(int argc, char *argv[])
{
	struct ufs_args args = { .fspec = "/dev/image" };
	char buf[64];
	ssize_t n;
	int fd, error;

	if (argc != 2)
		errx(1, "usage: image FILE");
	if (rump_init() != 0)
		errx(1, "rump_init");
	if ((error = rump_pub_etfs_register("/dev/image", argv[1], RUMP_ETFS_BLK)) != 0)
		errx(1, "etfs_register: %s", rump_strerror(error));
	if (rump_sys_mkdir("/mnt", 0777) == -1)
		err(1, "mkdir");
	if (rump_sys_mount(MOUNT_MSDOS, "/mnt", 0, &args, sizeof(args)) == -1)
		printf("msdos: %s\n", rump_strerror(errno));
	if (rump_sys_mount(MOUNT_EXT2FS, "/mnt", 0, &args, sizeof(args)) == -1)
		err(1, "mount");

	if ((fd = rump_sys_open("/mnt/greeting", RUMP_O_RDONLY)) == -1)
		err(1, "open");
	n = rump_sys_read(fd, buf, sizeof(buf));
	printf("in the image: %.*s", (int)n, buf);
	if (rump_sys_unmount("/mnt", 0) == -1)
		printf("unmount with an open file: %s\n", rump_strerror(errno));
	rump_sys_close(fd);

	if ((fd = rump_sys_open("/mnt/answer", RUMP_O_WRONLY | RUMP_O_CREAT, 0644)) == -1)
		err(1, "create");
	printf("written: %zd\n", rump_sys_write(fd, "from librump\n", 13));
	printf("on disk: %s\n", rump_sys_fsync_range(fd, 0, 0, 0) == 0 ? "yes" : rump_strerror(errno));
	rump_sys_close(fd);
	printf("remove while mounted: %s\n", rump_strerror(rump_pub_etfs_remove("/dev/image")));
	if (rump_sys_unmount("/mnt", 0) == -1)
		err(1, "unmount");
	printf("remove: %s\n", rump_strerror(rump_pub_etfs_remove("/dev/image")));

	/* Once more, read-only, and left mounted for reboot to see to. */
	rump_pub_etfs_register("/dev/image", argv[1], RUMP_ETFS_BLK);
	if (rump_sys_mount(MOUNT_EXT2FS, "/mnt", RUMP_MNT_RDONLY, &args, sizeof(args)) == -1)
		err(1, "mount read-only");
	if (rump_sys_unlink("/mnt/answer") == -1)
		printf("unlink: %s\n", rump_strerror(errno));
	if ((fd = rump_sys_open("/mnt/answer", RUMP_O_RDONLY)) == -1)
		err(1, "open");
	n = rump_sys_read(fd, buf, sizeof(buf));
	printf("written before: %.*s", (int)n, buf);
	fflush(stdout);
	rump_sys_reboot(0, NULL);
	return 1;
}

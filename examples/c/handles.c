/* File handles: a file is found again without its name, as an NFS server does. And bytes that move inside the kernel. */
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumpdefs.h>
#include <rump/rumperr.h>
#include <rump/rumpmount.h>

static const char *
result(int value)
{
	return value == -1 ? rump_strerror(errno) : "done";
}

int
main(void)
{
	struct tmpfs_args args = { .ta_version = TMPFS_ARGS_VERSION, .ta_root_mode = 0755 };
	char handle[64], small[8], buf[32] = "";
	struct statvfs vfs;
	struct stat st;
	size_t size;
	off_t at;
	int fd, dir, fds[2], more[2];

	rump_init();
	rump_sys_mkdir("/mnt", 0755);
	if (rump_sys_mount(MOUNT_TMPFS, "/mnt", 0, &args, sizeof(args)) == -1)
		err(1, "mount");
	fd = rump_sys_open("/mnt/file", RUMP_O_CREAT | RUMP_O_RDWR, 0644);
	rump_sys_write(fd, "hello world", 11);
	rump_sys_close(fd);

	size = sizeof(small);
	printf("too small: %s", result(rump_sys_getfh("/mnt/file", small, &size)));
	printf(", wants %zu\n", size);
	size = sizeof(handle);
	printf("getfh: %s\n", result(rump_sys_getfh("/mnt/file", handle, &size)));
	rump_sys_rename("/mnt/file", "/mnt/other");
	printf("fhstat: %s", result(rump_sys_fhstat(handle, size, &st)));
	printf(", %lld bytes\n", (long long)st.st_size);
	printf("fhstatvfs1: %s\n", result(rump_sys_fhstatvfs1(handle, size, &vfs, 0)));
	fd = rump_sys_fhopen(handle, size, RUMP_O_RDONLY);
	printf("read %zd: %s\n", rump_sys_read(fd, buf, sizeof(buf)), buf);

	/* From the file into a pipe, on into another, and a copy of it. */
	rump_sys_pipe(fds);
	rump_sys_pipe(more);
	at = 6;
	printf("splice: %zd", rump_sys_splice(fd, &at, fds[1], NULL, 100, 0));
	printf(", to %lld\n", (long long)at);
	printf("tee: %zd\n", rump_sys_tee(fds[0], more[1], 100, 0));
	printf("splice: %zd\n", rump_sys_splice(fds[0], NULL, more[1], NULL, 3, 0));
	memset(buf, 0, sizeof(buf));
	printf("read %zd: %s\n", rump_sys_read(more[0], buf, sizeof(buf)), buf);
	rump_sys_close(fd);

	rump_sys_unlink("/mnt/other");
	printf("gone: %s\n", result(rump_sys_fhopen(handle, size, RUMP_O_RDONLY)));
	printf("wrong size: %s\n", result(rump_sys_fhopen(handle, 7, RUMP_O_RDONLY)));
	size = sizeof(handle);
	rump_sys_getfh("/mnt", handle, &size);
	dir = rump_sys_fhopen(handle, size, RUMP_O_RDONLY | RUMP_O_DIRECTORY);

	/* The directory as the root of a process of its own. */
	rump_pub_lwproc_rfork(RUMP_RFFDG);
	printf("fchroot: %s\n", result(rump_sys_fchroot(dir)));
	printf("mnt is not in it: %s\n", result(rump_sys_stat("/mnt", &st)));
	rump_pub_lwproc_releaselwp();
	rump_sys_close(dir);
	printf("unmount: %s\n", result(rump_sys_unmount("/mnt", 0)));
	printf("unmounted: %s\n", result(rump_sys_fhstat(handle, size, &st)));
	rump_sys_reboot(0, NULL);
	return 1;
}

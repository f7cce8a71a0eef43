/* A kernel of one's own, and files in it. */
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>
#include <rump/rumpmount.h>

static void
list(const char *path)
{
	char buf[4096];
	int fd, len;

	if ((fd = rump_sys_open(path, RUMP_O_RDONLY | RUMP_O_DIRECTORY)) == -1)
		err(1, "open %s", path);
	while ((len = rump_sys_getdents(fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p < buf + len; p += ((struct dirent *)p)->d_reclen) {
			struct dirent *d = (struct dirent *)p;

			if (d->d_name[0] != '.')
				printf("%s/%s\n", path, d->d_name);
		}
	}
	rump_sys_close(fd);
}

int
main(void)
{
	struct tmpfs_args args = {
		.ta_version = TMPFS_ARGS_VERSION,
		.ta_size_max = 1 << 20,
		.ta_root_mode = 0755,
	};
	struct rump_statvfs mounts[8];
	struct statvfs vfs;
	struct iovec iov[2];
	struct stat sb;
	char buf[64];
	ssize_t n;
	int fd, error;

	/* The kernel is not there yet. */
	if (rump_sys_getpid() == -1)
		printf("before rump_init: %s\n", rump_strerror(errno));
	if ((error = rump_init()) != 0)
		errx(1, "rump_init: %s", rump_strerror(error));
	printf("rump_init again: %d\n", rump_init());

	if (rump_sys_mkdir("/mnt", 0777) == -1)
		err(1, "mkdir");
	if (rump_sys_mount(MOUNT_TMPFS, "/mnt", 0, &args, sizeof(args)) == -1)
		err(1, "mount");
	if (rump_sys_mount("nofs", "/mnt", 0, NULL, 0) == -1)
		printf("mount nofs: %s\n", rump_strerror(errno));
	if (rump_sys_mount(MOUNT_TMPFS, "/mnt", 0, &args, 3) == -1)
		printf("mount with half a structure: %s\n", rump_strerror(errno));
	n = rump_sys_getvfsstat(mounts, sizeof(mounts), 0);
	for (int i = 0; i < n; i++)
		printf("%s on %s\n", mounts[i].f_fstypename, mounts[i].f_mntonname);
	if (rump_sys_statvfs1("/mnt", &vfs, 0) == -1)
		err(1, "statvfs1");
	printf("%lu bytes\n", vfs.f_blocks * vfs.f_frsize);

	if ((fd = rump_sys_open("/mnt/hello", RUMP_O_RDWR | RUMP_O_CREAT, 0644)) == -1)
		err(1, "open");
	iov[0] = (struct iovec){ "from a kernel ", 14 };
	iov[1] = (struct iovec){ "of our own\n", 11 };
	printf("wrote %zd\n", rump_sys_writev(fd, iov, 2));
	printf("at %lld\n", (long long)rump_sys_lseek(fd, 5, RUMP_SEEK_SET));
	n = rump_sys_read(fd, buf, sizeof(buf));
	printf("read %zd: %.*s", n, (int)n, buf);
	n = rump_sys_pread(fd, buf, 4, 0);
	printf("pread %zd: %.*s\n", n, (int)n, buf);
	if (rump_sys_fstat(fd, &sb) == -1)
		err(1, "fstat");
	printf("mode %o, %lld bytes\n", sb.st_mode, (long long)sb.st_size);
	printf("fallocate: %s\n", rump_strerror(rump_sys_posix_fallocate(-1, 0, 1)));
	rump_sys_close(fd);
	if (rump_sys_read(fd, buf, 1) == -1)
		printf("read of a closed one: %s\n", rump_strerror(errno));

	rump_sys_symlink("hello", "/mnt/link");
	rump_sys_mkfifo("/mnt/fifo", 0600);
	rump_sys_lstat("/mnt/fifo", &sb);
	printf("fifo: %s\n", S_ISFIFO(sb.st_mode) ? "yes" : "no");
	rump_sys_rename("/mnt/hello", "/mnt/world");
	n = rump_sys_readlink("/mnt/link", buf, sizeof(buf));
	printf("link to %.*s\n", (int)n, buf);
	list("/mnt");
	if (rump_sys_open("/mnt/link", RUMP_O_RDONLY) == -1)
		printf("dangling: %s\n", rump_strerror(errno));
	printf("names of %ld bytes\n", rump_sys_pathconf("/mnt", 3));
	if (rump_sys_open(NULL, RUMP_O_RDONLY) == -1)
		printf("null: %s\n", rump_strerror(errno));
	if (rump_sys_chflags("/mnt/world", 1) == -1)
		printf("chflags: %s\n", rump_strerror(errno));
	if (rump_sys_revoke("/dev/null") == -1)
		printf("revoke: %s\n", rump_strerror(errno));

	if (rump_sys_unmount("/mnt", 0) == -1)
		err(1, "unmount");
	rump_sys_reboot(0, NULL);
	errx(1, "the process should be gone");
}

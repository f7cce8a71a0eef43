/*
 * reboot HOW IMAGE SOCKET: the ways in which a kernel goes down, with a file in an ext4 image that nobody has synced. HOW is plain, nosync,
 * dump or halt.
 */
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>
#include <rump/rumpmount.h>

static void *
halt(void *arg)
{
	(void)arg;
	rump_sys_reboot(RUMP_RB_HALT, NULL);
	/* It sleeps there for ever. */
	return NULL;
}

int
main(int argc, char *argv[])
{
	static const struct {
		const char *name;
		int howto;
	} ways[] = {
		{ "plain", RUMP_RB_AUTOBOOT },
		{ "nosync", RUMP_RB_NOSYNC },
		{ "dump", RUMP_RB_DUMP },
	};
	struct ufs_args args = { .fspec = "/dev/image" };
	char url[256];
	pthread_t thread;
	int fd;

	if (argc != 4)
		errx(1, "usage: reboot HOW IMAGE SOCKET");
	snprintf(url, sizeof(url), "unix://%s", argv[3]);
	if (rump_init() != 0 || rump_init_server(url) != 0)
		errx(1, "no kernel");
	if (rump_pub_etfs_register("/dev/image", argv[2], RUMP_ETFS_BLK) != 0 ||
	    rump_sys_mkdir("/mnt", 0755) == -1 ||
	    rump_sys_mount(MOUNT_EXT2FS, "/mnt", 0, &args, sizeof(args)) == -1)
		errx(1, "no image");
	if ((fd = rump_sys_open("/mnt/late", RUMP_O_WRONLY | RUMP_O_CREAT, 0644)) == -1 ||
	    rump_sys_write(fd, "just in time\n", 13) != 13)
		err(1, "write");
	printf("served: %s\n", access(argv[3], F_OK) == 0 ? "yes" : "no");
	fflush(stdout);

	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (strcmp(argv[1], ways[i].name) == 0)
			rump_sys_reboot(ways[i].howto, NULL);

	/* The process lives on without a kernel, and cannot have another one. */
	pthread_create(&thread, NULL, halt, NULL);
	while (access(argv[3], F_OK) == 0)
		usleep(1000);
	if (rump_sys_getpid() == -1)
		printf("a call: %s\n", rump_strerror(errno));
	printf("rump_init: %s\n", rump_strerror(rump_init()));
	return 0;
}

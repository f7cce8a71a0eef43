/* daemon FILE: RUMP_SERVER=URL; becomes a process of a kernel elsewhere, then a daemon of it, which says in FILE how it fares. */
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rump/rump_syscalls.h>
#include <rump/rumpclient.h>
#include <rump/rumpdefs.h>
#include <rump/rumperr.h>

int
main(int argc, char *argv[])
{
	char buf[16] = "";
	pid_t host, child;
	int fd, kernel, status;
	FILE *out;

	if (argc != 2)
		errx(1, "usage: daemon FILE");
	if ((out = fopen(argv[1], "w")) == NULL)
		err(1, "%s", argv[1]);
	if (rumpclient_init() == -1)
		err(1, "rumpclient_init");
	if ((fd = rump_sys_open("/tmp/daemon", RUMP_O_RDWR | RUMP_O_CREAT, 0644)) == -1)
		err(1, "open");
	rump_sys_write(fd, "descriptors", 11);
	host = getpid();
	kernel = rump_sys_getpid();

	/* The calling process ends in there, with status 0. */
	if (rumpclient_daemon(1, 1) == -1)
		err(1, "daemon");
	fprintf(out, "another process: %s\n", getpid() != host && rump_sys_getpid() != kernel ? "yes" : "no");
	fprintf(out, "in a session of its own: %s\n", getsid(0) != getsid(host) || getsid(host) == -1 ? "yes" : "no");
	rump_sys_pread(fd, buf, sizeof(buf) - 1, 0);
	fprintf(out, "with its %s\n", buf);

	/* vfork is fork: a child may come back from where it was made. */
	fflush(out);
	switch (child = rumpclient_vfork()) {
	case -1:
		err(1, "vfork");
	case 0:
		fprintf(out, "child of it: %s\n", rump_sys_getppid() > 1 ? "yes" : "no");
		fflush(out);
		_exit(7);
	}
	waitpid(child, &status, 0);
	fprintf(out, "its status: %d\n", WEXITSTATUS(status));
	fclose(out);
	fprintf(stderr, "done\n");
	return 0;
}

/* A process of a kernel elsewhere: RUMP_SERVER=URL client. Forks, execs itself, and halts the kernel. */
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

static void
after_exec(const char *fd, const char *pid)
{
	char buf[32];
	ssize_t n;

	n = rump_sys_pread(atoi(fd), buf, sizeof(buf), 0);
	printf("after exec: %.*s", (int)n, buf);
	printf("the same process: %s\n", rump_sys_getpid() == atoi(pid) ? "yes" : "no");
	fflush(stdout);

	rump_sys_reboot(0, NULL);
	/* The server goes; nobody is there to connect to. */
	while (rump_sys_getpid() != -1)
		usleep(1000);
	printf("the server is gone\n");
}

int
main(int argc, char *argv[])
{
	struct rumpclient_fork *forked;
	char buf[32], fdtext[16], pidtext[16];
	int fd, status;
	long pid;
	ssize_t n;

	if (rump_sys_getpid() == -1)
		printf("before rumpclient_init: %s\n", rump_strerror(errno));
	if (rumpclient_init() == -1)
		err(1, "rumpclient_init");
	if (argc == 3) {
		after_exec(argv[1], argv[2]);
		return 0;
	}

	if (rumpclient_syscall(39, NULL, 0, &pid) != 0)
		errx(1, "getpid");
	printf("a process: %s\n", pid > 1 && pid == rump_sys_getpid() ? "yes" : "no");
	printf("no such call: %s\n", rump_strerror(rumpclient_syscall(-1, NULL, 0, NULL)));

	if ((fd = rump_sys_open("/tmp/shared", RUMP_O_RDWR | RUMP_O_CREAT, 0644)) == -1)
		err(1, "open");
	if (rump_sys_write(fd, "from the parent\n", 16) != 16)
		err(1, "write");
	fflush(stdout);

	switch (rumpclient_fork()) {
	case -1:
		err(1, "fork");
	case 0:
		printf("child of it: %s\n", rump_sys_getppid() == pid ? "yes" : "no");
		n = rump_sys_pread(fd, buf, sizeof(buf), 0);
		printf("child reads: %.*s", (int)n, buf);
		rump_sys_ftruncate(fd, 0);
		rump_sys_pwrite(fd, "from the child\n", 15, 0);
		fflush(stdout);
		_exit(0);
	}
	wait(&status);
	n = rump_sys_pread(fd, buf, sizeof(buf), 0);
	printf("parent reads: %.*s", (int)n, buf);

	/* By hand, and what was prepared is used once. */
	if ((forked = rumpclient_prefork()) == NULL)
		err(1, "prefork");
	rumpclient_fork_cancel(forked);
	if ((forked = rumpclient_prefork()) == NULL)
		err(1, "prefork");
	fflush(stdout);
	if (fork() == 0) {
		if (rumpclient_fork_init(forked) == -1)
			err(1, "fork_init");
		printf("another process: %s\n", rump_sys_getpid() != pid ? "yes" : "no");
		fflush(stdout);
		_exit(0);
	}
	rumpclient_fork_vparent(forked);
	wait(&status);

	snprintf(fdtext, sizeof(fdtext), "%d", fd);
	snprintf(pidtext, sizeof(pidtext), "%ld", pid);
	fflush(stdout);
	if (rumpclient_exec("/not/there", argv, NULL) == -1)
		printf("exec: %s\n", rump_strerror(errno));
	fflush(stdout);
	rumpclient_exec(argv[0], (char *[]){ argv[0], fdtext, pidtext, NULL }, NULL);
	err(1, "exec");
}

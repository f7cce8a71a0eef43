/* What becomes of a signal that the kernel has for this process: SIGPIPE, for a write into a pipe that nobody reads. */
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

static void
write_to_nobody(int model)
{
	int fds[2];

	close(2);
	if (rump_init() != 0)
		_exit(1);
	if (model >= 0)
		rump_boot_setsigmodel(model);
	if (rump_sys_pipe(fds) == -1 || rump_sys_close(fds[0]) == -1)
		_exit(1);
	if (rump_sys_write(fds[1], "x", 1) == -1)
		printf("%s\n", rump_strerror(errno));
	fflush(stdout);
	_exit(0);
}

/* A call that asks for no signal gets none. */
static void
send_to_nobody(void)
{
	int fds[2];

	close(2);
	if (rump_init() != 0 || rump_sys_socketpair(RUMP_PF_LOCAL, RUMP_SOCK_STREAM, 0, fds) == -1)
		_exit(1);
	rump_sys_close(fds[0]);
	if (rump_sys_sendto(fds[1], "x", 1, RUMP_MSG_NOSIGNAL, NULL, 0) == -1)
		printf("%s\n", rump_strerror(errno));
	fflush(stdout);
	rump_sys_sendto(fds[1], "x", 1, 0, NULL, 0);
	_exit(0);
}

int
main(void)
{
	const struct {
		const char *name;
		int model;
	} cases[] = {
		{ "default", -1 },
		{ "panic", RUMP_SIGMODEL_PANIC },
		{ "ignore", RUMP_SIGMODEL_IGNORE },
		{ "raise", RUMP_SIGMODEL_RAISE },
		{ "record", RUMP_SIGMODEL_RECORD },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status;

		printf("%s: ", cases[i].name);
		fflush(stdout);
		if (fork() == 0)
			write_to_nobody(cases[i].model);
		wait(&status);
		if (WIFSIGNALED(status))
			printf("%s\n", WTERMSIG(status) == SIGPIPE ? "SIGPIPE" :
			    WTERMSIG(status) == SIGABRT ? "SIGABRT" : "another signal");
	}
	printf("send, told not to and not: ");
	fflush(stdout);
	if (fork() == 0)
		send_to_nobody();
	else {
		int status;

		wait(&status);
		printf("%s\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE ? "SIGPIPE" : "no signal");
	}
	return 0;
}

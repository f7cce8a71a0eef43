/* lost SERVER: what becomes of a client whose server goes. SERVER is the program of server.c. Ends with status 1. */
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <rump/rump_syscalls.h>
#include <rump/rumpclient.h>
#include <rump/rumpdefs.h>
#include <rump/rumperr.h>

static int fds[2];

static void *
wait_for_ever(void *arg)
{
	char c;

	(void)arg;
	/* Whether the call is under way or yet to come when the server goes, it comes back. */
	printf("a read that nothing ends: %zd\n", rump_sys_read(fds[0], &c, 1));
	return NULL;
}

static void
start(const char *server)
{
	if (fork() == 0) {
		execl(server, server, getenv("RUMP_SERVER"), NULL);
		_exit(1);
	}
}

int
main(int argc, char *argv[])
{
	pthread_t thread;
	int status;

	if (argc != 2)
		errx(1, "usage: lost SERVER");
	start(argv[1]);
	wait(&status);
	if (rumpclient_init() == -1)
		err(1, "rumpclient_init");

	/* Once is what it does when it is not told otherwise. */
	if (rump_sys_pipe(fds) == -1)
		err(1, "pipe");
	pthread_create(&thread, NULL, wait_for_ever, NULL);
	printf("halt: %d\n", rump_sys_reboot(0, NULL));
	pthread_join(thread, NULL);
	while (rump_sys_getpid() != -1 || errno == ESHUTDOWN)
		usleep(1000);
	rumpclient_setconnretry(1);
	printf("for a second: %d\n", rump_sys_getpid());

	/* A server comes while the client waits for one. */
	rumpclient_setconnretry(RUMPCLIENT_RETRYCONN_INFTIME);
	start(argv[1]);
	printf("until there is one: %s\n", rump_sys_getpid() > 1 ? "a new process" : rump_strerror(errno));
	if (rump_sys_fcntl(fds[0], RUMP_F_GETFD) == -1)
		printf("without the old one's descriptors: %s\n", rump_strerror(errno));
	wait(&status);

	rumpclient_setconnretry(RUMPCLIENT_RETRYCONN_DIE);
	printf("halt: %d\n", rump_sys_reboot(0, NULL));
	fflush(stdout);
	while (rump_sys_getpid() != 0)
		usleep(1000);
	printf("still here\n");
	return 0;
}

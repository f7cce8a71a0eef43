/* Processes and lwps, and threads that are them. */
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

static void *
other(void *arg)
{
	/* The lwp is free since main switched away from it. */
	rump_pub_lwproc_switch(arg);
	printf("thread as process %d\n", rump_sys_getpid());
	rump_pub_lwproc_releaselwp();
	printf("thread then as process %d, curlwp %s\n", rump_sys_getpid(),
	    rump_pub_lwproc_curlwp() == NULL ? "null" : "set");
	return NULL;
}

int
main(void)
{
	struct lwp *first, *second;
	pthread_t thread;
	pid_t pid;
	int fds[2];

	if (rump_init() != 0)
		errx(1, "rump_init");

	printf("implicit: process %d, curlwp %s\n", rump_sys_getpid(),
	    rump_pub_lwproc_curlwp() == NULL ? "null" : "set");
	printf("both flags: %s\n", rump_strerror(rump_pub_lwproc_rfork(RUMP_RFFDG | RUMP_RFCFDG)));
	printf("no such process: %s\n", rump_strerror(rump_pub_lwproc_newlwp(4711)));

	if (rump_pub_lwproc_rfork(RUMP_RFCFDG) != 0)
		errx(1, "rfork");
	first = rump_pub_lwproc_curlwp();
	rump_pub_lwproc_sysent_usenative();
	pid = rump_sys_getpid();
	printf("child of %d, other than 1: %s\n", rump_sys_getppid(), pid != 1 ? "yes" : "no");
	if (rump_sys_pipe(fds) == -1)
		err(1, "pipe");
	printf("pipe %d %d\n", fds[0], fds[1]);

	/* A copy of the descriptors is there, and is another table. */
	if (rump_pub_lwproc_rfork(RUMP_RFFDG) != 0)
		errx(1, "rfork");
	second = rump_pub_lwproc_curlwp();
	printf("another process: %s, child of the first: %s\n", rump_sys_getpid() != pid ? "yes" : "no",
	    rump_sys_getppid() == pid ? "yes" : "no");
	printf("close in the copy: %d\n", rump_sys_close(fds[0]));
	rump_pub_lwproc_switch(first);
	printf("open in the first still: %s\n", rump_sys_fcntl(fds[0], RUMP_F_GETFD) == 0 ? "yes" : "no");

	/* A second lwp of the same process has the same descriptors. */
	if (rump_pub_lwproc_newlwp(pid) != 0)
		errx(1, "newlwp");
	printf("same process: %s, another lwp: %s\n", rump_sys_getpid() == pid ? "yes" : "no",
	    rump_pub_lwproc_curlwp() != first ? "yes" : "no");
	printf("close: %d\n", rump_sys_close(fds[0]));
	rump_pub_lwproc_releaselwp();
	printf("released: curlwp %s, process %d\n", rump_pub_lwproc_curlwp() == NULL ? "null" : "set",
	    rump_sys_getpid());
	rump_pub_lwproc_switch(first);
	if (rump_sys_fcntl(fds[0], RUMP_F_GETFD) == -1)
		printf("closed for both: %s\n", rump_strerror(errno));

	/* A release under rump_schedule() takes effect at rump_unschedule(). */
	rump_schedule();
	rump_pub_lwproc_releaselwp();
	printf("released: curlwp %s, process still the first: %s\n",
	    rump_pub_lwproc_curlwp() == NULL ? "null" : "set", rump_sys_getpid() == pid ? "yes" : "no");
	rump_unschedule();
	printf("unscheduled: process %d\n", rump_sys_getpid());
	printf("the first is gone: %s\n", rump_strerror(rump_pub_lwproc_newlwp(pid)));

	pthread_create(&thread, NULL, other, second);
	pthread_join(thread, NULL);

	/* An implicit thread may hold a CPU too, and become an lwp while it does. */
	rump_schedule();
	printf("scheduled: process %d, curlwp %s\n", rump_sys_getpid(),
	    rump_pub_lwproc_curlwp() == NULL ? "null" : "set");
	rump_pub_lwproc_rfork(0);
	printf("rfork: another process: %s\n", rump_sys_getpid() > 1 ? "yes" : "no");
	rump_pub_lwproc_switch(NULL);
	printf("switched back: process %d\n", rump_sys_getpid());
	rump_unschedule();

	rump_pub_lwproc_rfork(0);
	rump_pub_allbetsareoff_setid(12345, 6);
	printf("all bets are off: process %d\n", rump_sys_getpid());
	rump_pub_lwproc_releaselwp();
	return 0;
}

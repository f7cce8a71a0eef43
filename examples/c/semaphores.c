/* POSIX semaphores of the kernel, between threads and by name; process groups and sessions. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumpdefs.h>
#include <rump/rumperr.h>

static intptr_t go, done;

static void *
worker(void *arg)
{
	(void)arg;
	rump_sys__ksem_wait(go);
	printf("worker: let go\n");
	rump_sys__ksem_post(done);
	return NULL;
}

static void
tell(const char *what, int result)
{
	printf("%s: %s\n", what, result == -1 ? rump_strerror(errno) : "done");
}

int
main(void)
{
	struct timespec past = { 1, 0 };
	unsigned int value;
	intptr_t mine, theirs;
	pthread_t thread;

	rump_init();
	if (rump_sys__ksem_init(0, &go) == -1 || rump_sys__ksem_init(0, &done) == -1)
		err(1, "_ksem_init");
	pthread_create(&thread, NULL, worker, NULL);
	printf("main: goes first\n");
	rump_sys__ksem_post(go);
	rump_sys__ksem_wait(done);
	printf("main: worker is done\n");
	pthread_join(thread, NULL);
	tell("trywait", rump_sys__ksem_trywait(done));
	tell("timedwait", rump_sys__ksem_timedwait(done, &past));
	tell("destroy", rump_sys__ksem_destroy(done));
	tell("post", rump_sys__ksem_post(done));

	tell("open", rump_sys__ksem_open("/sem", 0, 0, 0, &mine));
	tell("create", rump_sys__ksem_open("/sem", RUMP_O_CREAT, 0600, 3, &mine));
	tell("open", rump_sys__ksem_open("/sem", 0, 0, 0, &theirs));
	rump_sys__ksem_wait(mine);
	rump_sys__ksem_getvalue(theirs, &value);
	printf("value: %u\n", value);
	tell("unlink", rump_sys__ksem_unlink("/sem"));
	tell("post", rump_sys__ksem_post(theirs));
	tell("close", rump_sys__ksem_close(mine));
	tell("close", rump_sys__ksem_close(mine));

	/* A process of its own leads a session. */
	rump_pub_lwproc_rfork(RUMP_RFFDG);
	printf("group and session of the first process: %d %d\n", rump_sys_getpgrp(), rump_sys_getsid(0));
	if (rump_sys_setsid() != rump_sys_getpid())
		err(1, "setsid");
	printf("leads: %d %d\n", rump_sys_getpgid(0) == rump_sys_getpid(),
	    rump_sys_getsid(0) == rump_sys_getpid());
	tell("setsid", rump_sys_setsid());
	tell("setpgid", rump_sys_setpgid(0, 0));
	rump_sys_reboot(0, NULL);
	return 1;
}

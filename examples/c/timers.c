/* Timers of the kernel that send signals to this process: timer_create, setitimer. */
#include <sys/time.h>

#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

static const struct timespec zero;

/* Waits for a signal, which is blocked. */
static const char *
next(const sigset_t *set)
{
	int signo;

	if (sigwait(set, &signo) != 0)
		errx(1, "sigwait");
	return signo == SIGUSR1 ? "USR1" : signo == SIGALRM ? "ALRM" : "?";
}

int
main(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec often = { { 0, 1000000 }, { 0, 1000000 } }, spec;
	struct itimerval once = { { 0, 0 }, { 0, 2000 } }, left;
	timer_t timer, quiet;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGALRM);
	/* Before the kernel has threads, which inherit it. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	rump_init();

	if (rump_sys_timer_create(CLOCK_MONOTONIC, &ev, &timer) == -1)
		err(1, "timer_create");
	ev.sigev_notify = SIGEV_NONE;
	if (rump_sys_timer_create(CLOCK_MONOTONIC, &ev, &quiet) == -1)
		err(1, "timer_create");
	rump_sys_timer_settime(timer, 0, &often, NULL);
	for (int i = 0; i < 3; i++)
		printf("SIG%s\n", next(&set));
	printf("overrun at least 0: %d\n", rump_sys_timer_getoverrun(timer) >= 0);
	rump_sys_timer_gettime(timer, &spec);
	printf("every %ld ns\n", spec.it_interval.tv_nsec);
	rump_sys_timer_delete(timer);
	if (rump_sys_timer_gettime(timer, &spec) == -1)
		printf("deleted: %s\n", rump_strerror(errno));
	/* One may be left over. */
	struct timespec now = zero;
	while (sigtimedwait(&set, NULL, &now) > 0)
		continue;

	spec = (struct itimerspec){ { 0, 0 }, { 1000, 0 } };
	rump_sys_timer_settime(quiet, 0, &spec, NULL);
	rump_sys_timer_gettime(quiet, &spec);
	printf("quiet runs: %d\n", spec.it_value.tv_sec > 0);
	rump_sys_timer_delete(quiet);

	if (rump_sys_setitimer(ITIMER_REAL, &once, NULL) == -1)
		err(1, "setitimer");
	printf("SIG%s\n", next(&set));
	rump_sys_getitimer(ITIMER_REAL, &left);
	printf("left: %ld.%06ld\n", (long)left.it_value.tv_sec, (long)left.it_value.tv_usec);
	if (rump_sys_setitimer(ITIMER_PROF, &once, NULL) == -1)
		printf("profiling: %s\n", rump_strerror(errno));
	rump_sys_reboot(0, NULL);
	return 1;
}

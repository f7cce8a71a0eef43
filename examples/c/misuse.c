/* What is a panic: the process aborts, after a message that names the object and the caller. */
#include <sys/wait.h>

#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>

static void
switch_to_running(void)
{
	rump_pub_lwproc_rfork(0);
	rump_pub_lwproc_switch(rump_pub_lwproc_curlwp());
}

static void
release_without(void)
{
	rump_pub_lwproc_releaselwp();
}

static void
release_twice(void)
{
	rump_pub_lwproc_rfork(0);
	rump_schedule();
	rump_pub_lwproc_releaselwp();
	rump_pub_lwproc_releaselwp();
}

static void
schedule_twice(void)
{
	rump_schedule();
	rump_schedule();
}

static void
unschedule_without(void)
{
	rump_unschedule();
}

static void
no_direction(void)
{
	rump_pub_uio_setup(NULL, 0, 0, 7);
}

static void
setid_without(void)
{
	rump_pub_allbetsareoff_setid(1, 1);
}

static const struct {
	const char *name;
	void (*what)(void);
} cases[] = {
	{ "switch_to_running", switch_to_running },
	{ "release_without", release_without },
	{ "release_twice", release_twice },
	{ "schedule_twice", schedule_twice },
	{ "unschedule_without", unschedule_without },
	{ "no_direction", no_direction },
	{ "setid_without", setid_without },
};

int
main(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[512] = "";
		ssize_t n, len = 0;
		int status, fds[2];

		fflush(stdout);
		if (pipe(fds) == -1)
			err(1, "pipe");
		if (fork() == 0) {
			dup2(fds[1], 2);
			close(fds[0]);
			close(fds[1]);
			if (rump_init() == 0)
				cases[i].what();
			_exit(0);
		}
		close(fds[1]);
		while ((n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
			len += n;
		close(fds[0]);
		wait(&status);
		/* Addresses and offsets are not always the same. */
		printf("%s: %s", cases[i].name,
		    WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? "aborted" : "lives");
		printf(", %s", strncmp(text, "panic: rump_", 12) == 0 ? "names the call" : text);
		printf(", %s\n", strstr(text, "called from") != NULL && strstr(text, "misuse") != NULL ?
		    "names the caller" : text);
	}
	return 0;
}

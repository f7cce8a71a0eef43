/* kqueue: one queue for pipes, files, timers, signals, processes and events of the program's own; and inotify, Linux's way to watch files. */
#include <sys/inotify.h>
#include <sys/time.h>

#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumpdefs.h>
#include <rump/rumperr.h>
#include <rump/rumpevent.h>

static const char *const filters[] = {
	"read", "write", "aio", "vnode", "proc", "signal", "timer", "fs", "user"
};
static int kq;
static pid_t pid;

static void
add(uintptr_t ident, uint32_t filter, uint32_t flags, uint32_t fflags, int64_t data)
{
	struct kevent ev;

	EV_SET(&ev, ident, filter, EV_ADD | flags, fflags, data, filters[filter]);
	if (rump_sys_kevent(kq, &ev, 1, NULL, 0, NULL) == -1)
		printf("%s: %s\n", filters[filter], rump_strerror(errno));
}

/* Says what there is; when there is nothing, waits for it. */
static void
next(void)
{
	struct kevent ev;

	if (rump_sys_kevent(kq, NULL, 0, &ev, 1, NULL) != 1)
		err(1, "kevent");
	printf("%s: flags %#x fflags %#x data %lld\n", (const char *)ev.udata, ev.flags, ev.fflags,
	    (long long)ev.data);
}

static void
nothing(void)
{
	struct timespec now = { 0, 0 };
	struct kevent ev;

	printf("events: %d\n", rump_sys_kevent(kq, NULL, 0, &ev, 1, &now));
}

static void *
writer(void *arg)
{
	rump_pub_lwproc_newlwp(pid);
	rump_sys_write(*(int *)arg, "hello", 5);
	rump_pub_lwproc_releaselwp();
	return NULL;
}

static void
watch_with_inotify(void)
{
	union {
		struct inotify_event event;
		char bytes[4096];
	} buf;
	ssize_t n;
	int fd, in;

	in = rump_sys_inotify_init1(RUMP_O_NONBLOCK);
	rump_sys_mkdir("/dir", 0755);
	rump_sys_inotify_add_watch(in, "/dir", IN_CREATE | IN_CLOSE_WRITE | IN_MOVE | IN_DELETE);
	fd = rump_sys_open("/dir/a", RUMP_O_CREAT | RUMP_O_WRONLY, 0644);
	rump_sys_close(fd);
	rump_sys_rename("/dir/a", "/dir/b");
	rump_sys_unlink("/dir/b");
	n = rump_sys_read(in, &buf, sizeof(buf));
	for (char *p = buf.bytes; p < buf.bytes + n;) {
		struct inotify_event *event = (struct inotify_event *)p;

		printf("inotify: %#x %s\n", event->mask, event->len != 0 ? event->name : "");
		p += sizeof(*event) + event->len;
	}
}

int
main(void)
{
	struct itimerval alarm = { { 0, 0 }, { 0, 1000 } };
	struct kevent evs[2];
	struct lwp *parent;
	pthread_t thread;
	int fds[2], fd;

	signal(SIGALRM, SIG_IGN);
	rump_init();
	rump_pub_lwproc_rfork(RUMP_RFFDG);
	pid = rump_sys_getpid();
	if ((kq = rump_sys_kqueue()) == -1)
		err(1, "kqueue");

	rump_sys_pipe(fds);
	add(fds[0], EVFILT_READ, EV_CLEAR, 0, 0);
	nothing();
	rump_sys_write(fds[1], "hello", 5);
	next();
	nothing();
	add(fds[1], EVFILT_WRITE, EV_ONESHOT, 0, 0);
	next();
	rump_sys_close(fds[1]);
	next();

	fd = rump_sys_open("/file", RUMP_O_CREAT | RUMP_O_RDWR, 0644);
	add(fd, EVFILT_VNODE, EV_CLEAR, NOTE_WRITE | NOTE_EXTEND | NOTE_DELETE | NOTE_RENAME, 0);
	rump_sys_write(fd, "data", 4);
	next();
	rump_sys_rename("/file", "/other");
	next();
	rump_sys_unlink("/other");
	next();

	add(1, EVFILT_TIMER, EV_ONESHOT, 0, 1);
	next();
	add(SIGALRM, EVFILT_SIGNAL, EV_ONESHOT, 0, 0);
	rump_sys_setitimer(ITIMER_REAL, &alarm, NULL);
	next();

	add(7, EVFILT_USER, EV_CLEAR, NOTE_FFCOPY | 0x42, 0);
	EV_SET(&evs[0], 7, EVFILT_USER, 0, NOTE_TRIGGER, 5, 0);
	EV_SET(&evs[1], 99, EVFILT_READ, EV_ADD, 0, 0, 0);
	/* The second change is wrong, which is an event. */
	if (rump_sys_kevent(kq, evs, 2, &evs[1], 1, NULL) == 1 && evs[1].flags & EV_ERROR)
		printf("error: %s\n", rump_strerror(evs[1].data));
	next();

	parent = rump_pub_lwproc_curlwp();
	rump_pub_lwproc_rfork(RUMP_RFCFDG);
	pid_t child = rump_sys_getpid();
	struct lwp *childs = rump_pub_lwproc_curlwp();
	rump_pub_lwproc_switch(parent);
	add(child, EVFILT_PROC, 0, NOTE_EXIT, 0);
	rump_pub_lwproc_switch(childs);
	rump_pub_lwproc_releaselwp();
	rump_pub_lwproc_switch(parent);
	next();
	add(child, EVFILT_PROC, 0, NOTE_EXIT, 0);
	add(kq, EVFILT_READ, 0, 0, 0);
	nothing();

	/* A wait that another thread ends, which is an lwp of the same process. */
	rump_sys_pipe(fds);
	add(fds[0], EVFILT_READ, 0, 0, 0);
	pthread_create(&thread, NULL, writer, &fds[1]);
	next();
	pthread_join(thread, NULL);

	watch_with_inotify();
	rump_sys_reboot(0, NULL);
	return 1;
}

/* What is left: the kernel's variables, times, limits, attributes, and the small calls of rump.h. */
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <aio.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>
#include <rump/rumpsysctl.h>

static int cpuinits;
static volatile sig_atomic_t ends;

static void
ended(int signo)
{
	(void)signo;
	ends++;
}

static void
cpuinit(void)
{
	cpuinits++;
}

static void
sysctls(void)
{
	const int hostname[] = { CTL_KERN, KERN_HOSTNAME }, ncpu[] = { CTL_HW, HW_NCPU }, none[] = { 99 };
	char buf[64];
	size_t len = sizeof(buf);
	int n;

	if (rump_sys___sysctl(hostname, 2, buf, &len, "rumpel", 6) == -1)
		err(1, "sysctl");
	printf("hostname before: %s\n", len == strlen(buf) + 1 ? "a string" : "something");
	len = sizeof(buf);
	rump_sys___sysctl(hostname, 2, buf, &len, NULL, 0);
	printf("hostname after: %s, %zu bytes\n", buf, len);
	len = 3;
	if (rump_sys___sysctl(hostname, 2, buf, &len, NULL, 0) == -1)
		printf("no room: %s\n", rump_strerror(errno));
	len = sizeof(n);
	rump_sys___sysctl(ncpu, 2, &n, &len, NULL, 0);
	printf("ncpu: %d, %zu bytes\n", n, len);
	if (rump_sys___sysctl(ncpu, 2, NULL, NULL, &n, sizeof(n)) == -1)
		printf("set ncpu: %s\n", rump_strerror(errno));
	if (rump_sys___sysctl(none, 1, &n, &len, NULL, 0) == -1)
		printf("no such name: %s\n", rump_strerror(errno));
	if (rump_sys___sysctl(none, 99, &n, &len, NULL, 0) == -1)
		printf("too long a name: %s\n", rump_strerror(errno));
}

static void
attributes(void)
{
	struct timeval tv[2] = { { 1000, 5 }, { 2000, 6 } }, wrong[2] = { { 0, 1000000 }, { 0, 0 } };
	char buf[64];
	struct stat sb;
	ssize_t n;
	int fd;

	if ((fd = rump_sys_open("/tmp/file", RUMP_O_RDWR | RUMP_O_CREAT, 0600)) == -1)
		err(1, "open");
	printf("set: %zd\n", rump_sys_extattr_set_fd(fd, RUMP_EXTATTR_NAMESPACE_USER, "colour", "red", 3));
	n = rump_sys_extattr_get_file("/tmp/file", RUMP_EXTATTR_NAMESPACE_USER, "colour", buf, sizeof(buf));
	printf("get: %.*s\n", (int)n, buf);
	n = rump_sys_getxattr("/tmp/file", "user.colour", buf, sizeof(buf));
	printf("by Linux's name: %.*s\n", (int)n, buf);
	n = rump_sys_extattr_list_file("/tmp/file", RUMP_EXTATTR_NAMESPACE_USER, buf, sizeof(buf));
	printf("list: %zd, %d %.*s\n", n, buf[0], buf[0], buf + 1);
	printf("delete: %d\n", rump_sys_extattr_delete_file("/tmp/file", RUMP_EXTATTR_NAMESPACE_USER, "colour"));
	if (rump_sys_extattr_get_fd(fd, RUMP_EXTATTR_NAMESPACE_USER, "colour", buf, 1) == -1)
		printf("gone: %s\n", rump_strerror(errno));
	if (rump_sys_extattr_get_fd(fd, 7, "colour", buf, 1) == -1)
		printf("no namespace: %s\n", rump_strerror(errno));

	rump_sys_futimes(fd, tv);
	rump_sys_fstat(fd, &sb);
	printf("times: %ld.%09ld %ld.%09ld\n", (long)sb.st_atim.tv_sec, sb.st_atim.tv_nsec,
	    (long)sb.st_mtim.tv_sec, sb.st_mtim.tv_nsec);
	if (rump_sys_lutimes("/tmp/file", wrong) == -1)
		printf("no time: %s\n", rump_strerror(errno));
	rump_sys_lchown("/tmp/file", 7, 8);
	rump_sys_fchmodat(RUMP_AT_FDCWD, "/tmp/file", 0640, 0);
	rump_sys_fstatat(RUMP_AT_FDCWD, "/tmp/file", &sb, 0);
	printf("%o %d:%d\n", sb.st_mode & 0777, sb.st_uid, sb.st_gid);
	rump_sys_close(fd);
}

static void
waiting(void)
{
	struct timespec ts = { 0, 1000000 };
	struct pollfd pfd;
	int fds[2];
	char c;

	if (rump_sys_pipe2(fds, RUMP_O_NONBLOCK) == -1)
		err(1, "pipe2");
	pfd = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	printf("poll: %d, time left as it was: %s\n", rump_sys_pollts(&pfd, 1, &ts, NULL),
	    ts.tv_nsec == 1000000 ? "yes" : "no");
	if (rump_sys_read(fds[0], &c, 1) == -1)
		printf("empty: %s\n", rump_strerror(errno));
	rump_sys_write(fds[1], "x", 1);
	printf("poll: %d\n", rump_sys_poll(&pfd, 1, -1));
	printf("sleep: %d\n", rump_sys_clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL));
	printf("no clock: %s\n", rump_strerror(rump_sys_clock_nanosleep(99, 0, &ts, NULL)));
	rump_sys_close(fds[0]);
	rump_sys_close(fds[1]);
}

static void
transfers(void)
{
	char text[] = "transferred", buf[16] = "";
	struct aiocb out = { .aio_buf = text, .aio_nbytes = 11, .aio_lio_opcode = LIO_WRITE };
	struct aiocb in = { .aio_buf = buf, .aio_nbytes = 5, .aio_offset = 5, .aio_lio_opcode = LIO_READ };
	struct aiocb *list[] = { &out, NULL, &in };

	out.aio_fildes = in.aio_fildes = rump_sys_open("/tmp/aio", RUMP_O_RDWR | RUMP_O_CREAT, 0600);
	printf("aio: %d", rump_sys_aio_write(&out));
	printf(" %d", rump_sys_aio_suspend((const struct aiocb *const *)list, 1, NULL));
	printf(" %d", rump_sys_aio_error(&out));
	printf(" %zd", rump_sys_aio_return(&out));
	printf(", once: %zd\n", rump_sys_aio_return(&out));
	printf("list: %d", rump_sys_lio_listio(LIO_WAIT, list, 3, NULL));
	printf(" %zd", rump_sys_aio_return(&in));
	printf(" %s\n", buf);
	in.aio_fildes = -1;
	rump_sys_aio_read(&in);
	printf("fails: %s\n", rump_strerror(rump_sys_aio_error(&in)));
	in.aio_sigevent.sigev_notify = SIGEV_THREAD;
	if (rump_sys_aio_read(&in) == -1)
		printf("with a thread: %s\n", rump_strerror(errno));
	in.aio_sigevent.sigev_notify = SIGEV_SIGNAL;
	in.aio_sigevent.sigev_signo = SIGUSR1;
	signal(SIGUSR1, ended);
	rump_sys_aio_read(&in);
	printf("with a signal: %d\n", (int)ends);
}

static void
users(void)
{
	struct rlimit limit;
	char name[16];
	gid_t groups[4] = { 10, 20 };
	kauth_cred_t cred;

	rump_pub_lwproc_rfork(RUMP_RFCFDG);
	printf("set groups: %d\n", rump_sys_setgroups(2, groups));
	printf("groups: %d\n", rump_sys_getgroups(4, groups));
	rump_sys___setlogin("anna");
	rump_sys___getlogin(name, sizeof(name));
	printf("login: %s\n", name);
	rump_sys_setegid(50);
	rump_sys_seteuid(100);
	printf("ids: %d %d %d %d\n", rump_sys_getuid(), rump_sys_geteuid(), rump_sys_getgid(), rump_sys_getegid());
	if (rump_sys_mkdir("/forbidden", 0777) == -1)
		printf("mkdir: %s\n", rump_strerror(errno));
	if (rump_sys_reboot(0, NULL) == -1)
		printf("reboot: %s\n", rump_strerror(errno));
	printf("issetugid: %d\n", rump_sys_issetugid());
	rump_sys_getrlimit(RLIMIT_NOFILE, &limit);
	printf("files: %ld\n", (long)limit.rlim_cur);
	rump_pub_lwproc_releaselwp();

	cred = rump_pub_cred_create(1, 2, 2, groups);
	printf("cred: %s\n", cred != NULL ? "made" : "none");
	rump_pub_cred_put(cred);
}

int
main(void)
{
	char buf[8];
	struct uio *uio;
	int symbols[2];

	rump_boot_sethowto(0);
	printf("init: %d\n", rump_init_callback(cpuinit));
	printf("callbacks: %d\n", cpuinits);
	printf("another version: %s\n", rump_strerror(rump__init(RUMP_VERSION + 1)));
	printf("this version: %s\n", rump_strerror(rump__init(RUMP_VERSION)));
	printf("daemonize: %s\n", rump_strerror(rump_daemonize_begin()));
	printf("done without begin: %s\n", rump_strerror(rump_daemonize_done(0)));
	printf("verbose: %d\n", rump_boot_gethowto() & RUMP_AB_VERBOSE);
	printf("native modules: %d\n", rump_nativeabi_p());
	printf("one version: %s\n", rump_getversion() == rump_pub_getversion() ? "yes" : "no");
	printf("symbols: %s", rump_strerror(rump_pub_kernelfsym_load(symbols, sizeof(symbols), buf, sizeof(buf))));
	printf(", %s\n", rump_strerror(rump_pub_kernelfsym_load(symbols, sizeof(symbols), buf, sizeof(buf))));

	uio = rump_pub_uio_setup(buf, sizeof(buf), 100, RUMPUIO_READ);
	printf("uio: %zu left at %lld", rump_pub_uio_getresid(uio), (long long)rump_pub_uio_getoff(uio));
	printf(", %zu not moved\n", rump_pub_uio_free(uio));

	sysctls();
	attributes();
	waiting();
	transfers();
	users();

	rump_printevcnts();
	printf("no text: %s\n", rump_strerror(99999));
	return 0;
}

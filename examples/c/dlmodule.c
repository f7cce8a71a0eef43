/* dlmodule COUNTER.SO: loads a module into a kernel in this process, uses what it offers, and ends it. */
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

#define COUNTER_ADD 610

static void
sum(uint64_t more)
{
	long value;
	int error;

	if ((error = rump_syscall(COUNTER_ADD, &more, sizeof(more), &value)) != 0)
		printf("add: %s\n", rump_strerror(error));
	else
		printf("add: %ld\n", value);
}

int
main(int argc, char *argv[])
{
	const struct modinfo *const *info;
	int64_t number;
	char buf[32];
	void *object;
	int fd;

	if (argc != 2)
		errx(1, "usage: dlmodule COUNTER.SO");
	if ((object = dlopen(argv[1], RTLD_NOW)) == NULL)
		errx(1, "%s", dlerror());
	if ((info = dlsym(object, "rump_module_info")) == NULL)
		errx(1, "%s", dlerror());
	if (rump_init() != 0)
		errx(1, "rump_init");

	sum(1);
	printf("init: %s\n", rump_strerror(rump_pub_module_init(info, 1)));
	printf("init again: %s\n", rump_strerror(rump_pub_module_init(info, 1)));
	sum(41);
	sum(1);

	if ((fd = rump_sys_open("/dev/counter", RUMP_O_RDONLY)) == -1)
		err(1, "open");
	printf("device: %.*s", (int)rump_sys_read(fd, buf, sizeof(buf)), buf);
	printf("its end: %zd\n", rump_sys_read(fd, buf, sizeof(buf)));
	if (rump_sys_ioctl(fd, 0, &number) == -1)
		err(1, "ioctl");
	printf("ioctl: %lld\n", (long long)number);
	if (rump_sys_write(fd, "1", 1) == -1)
		printf("write: %s\n", rump_strerror(errno));

	/* It stays while somebody has it open, or is in it. */
	printf("fini while open: %s\n", rump_strerror(rump_pub_module_fini(*info)));
	rump_sys_close(fd);
	printf("fini: %s\n", rump_strerror(rump_pub_module_fini(*info)));
	printf("fini again: %s\n", rump_strerror(rump_pub_module_fini(*info)));
	sum(1);
	if (rump_sys_open("/dev/counter", RUMP_O_RDONLY) == -1)
		printf("open: %s\n", rump_strerror(errno));
	return 0;
}

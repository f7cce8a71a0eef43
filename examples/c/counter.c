/*
 * A module for any kernel to load: a sysctl node, a system call, and a character device, all on one number.
 *
 *	gcc -shared -fPIC -o counter.so counter.c $(pkg-config --cflags rump)
 *	rump server -m ./counter.so unix:///tmp/k
 *	rump sysctl -s unix:///tmp/k counter.value=41
 *	rump exec unix:///tmp/k -- cat /rump/dev/counter
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rump/rumpmodule.h>

/* System call: adds its argument; a negative one takes away. Answers the sum. */
#define COUNTER_ADD 610

RUMP_MODULE(MODULE_CLASS_DRIVER, counter, NULL);

static int64_t counter;

static int
get(struct rump_cx *cx, void *arg, int64_t *value)
{
	(void)cx;
	*value = __atomic_load_n((int64_t *)arg, __ATOMIC_RELAXED);
	return 0;
}

static int
set(struct rump_cx *cx, void *arg, int64_t value)
{
	(void)cx;
	if (value < 0)
		return EINVAL;
	__atomic_store_n((int64_t *)arg, value, __ATOMIC_RELAXED);
	return 0;
}

static int
add(struct rump_cx *cx, void *arg, const uint64_t *args, int64_t *sum)
{
	if (rumpm_geteuid(cx) != 0)
		return EPERM;
	*sum = __atomic_add_fetch((int64_t *)arg, (int64_t)args[0], __ATOMIC_RELAXED);
	return 0;
}

static int
readdev(struct rump_cx *cx, void *arg, void *buf, size_t len, uint64_t offset, int flags, size_t *done)
{
	char text[32];
	size_t n;

	(void)cx;
	(void)flags;
	n = (size_t)snprintf(text, sizeof(text), "%lld\n", (long long)__atomic_load_n((int64_t *)arg, __ATOMIC_RELAXED));
	if (offset >= n)
		return 0;
	n -= offset;
	*done = n < len ? n : len;
	memcpy(buf, text + offset, *done);
	return 0;
}

/* Each ioctl copies the number out. */
static int
ioctldev(struct rump_cx *cx, void *arg, uint32_t cmd, uint64_t addr, int64_t *retval)
{
	(void)cmd;
	(void)retval;
	return rumpm_copyout(cx, arg, addr, sizeof(int64_t));
}

static const struct rump_cdevsw cdevsw = {
	.read = readdev,
	.ioctl = ioctldev,
};

static int
counter_modcmd(modcmd_t cmd, void *arg)
{
	struct rump_cx *cx = arg;
	const struct rump_sysctl node = {
		.name = "counter.value",
		.get_int = get,
		.set_int = set,
		.arg = &counter,
	};
	int error;

	switch (cmd) {
	case MODULE_CMD_INIT:
		if ((error = rumpm_sysctl(cx, &node)) != 0 ||
		    (error = rumpm_syscall(cx, COUNTER_ADD, add, &counter, NULL)) != 0)
			return error;
		return rumpm_cdev(cx, "/dev/counter", 0444, &cdevsw, &counter, NULL);
	case MODULE_CMD_FINI:
		/* What was registered goes by itself. */
		return 0;
	default:
		return ENOTTY;
	}
}

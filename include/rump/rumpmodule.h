/*
 * Modules in C: shared objects that a kernel loads, and what the kernel does for them. Needs no library.
 *
 *	RUMP_MODULE(MODULE_CLASS_MISC, answer, NULL);
 *
 *	static int
 *	answer_modcmd(modcmd_t cmd, void *arg)
 *	{
 *		struct rump_cx *cx = arg;
 *		...
 *	}
 *
 * and gcc -shared -fPIC -o answer.so answer.c; then rump server -m ./answer.so, or rump_pub_module_init().
 *
 * Functions answer 0 or an errno. A struct rump_cx is the lwp that runs: it is good until the function that was given it comes back, in
 * its thread. A module's functions run in the kernel, with a virtual CPU held, several at once: what waits for something outside the
 * kernel goes into rumpm_unscheduled(), no lock is held over a call of these, and rump_sys_*() are rumpm_call(). In
 * MODULE_CMD_INIT the module registers what it offers; that goes when MODULE_CMD_FINI has answered 0, and when init has not. While
 * somebody is in one of its functions or has a device of it open, a module is not ended.
 */
#ifndef _RUMP_RUMPMODULE_H_
#define _RUMP_RUMPMODULE_H_

#include <rump/rumpkern_if_pub.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rump_cx;

/* A node of the sysctl tree: with the functions for a number or those for a text; without a set_ function it is only read. */
struct rump_sysctl {
	const char *name;
	int (*get_int)(struct rump_cx *, void *arg, int64_t *value);
	int (*set_int)(struct rump_cx *, void *arg, int64_t value);
	/* ERANGE when the buffer is too small; it is called again with a larger one. */
	int (*get_text)(struct rump_cx *, void *arg, char *buf, size_t size);
	int (*set_text)(struct rump_cx *, void *arg, const char *text);
	void *arg;
	/* Called once when the functions will not be called any more. */
	void (*free)(void *arg);
};

/* A driver of a character device; what is NULL is not there. *done is how much was moved; nothing read is the end of file. */
struct rump_cdevsw {
	int (*open)(struct rump_cx *, void *arg, int flags);
	void (*close)(struct rump_cx *, void *arg);
	int (*read)(struct rump_cx *, void *arg, void *buf, size_t len, uint64_t offset, int flags, size_t *done);
	int (*write)(struct rump_cx *, void *arg, const void *buf, size_t len, uint64_t offset, int flags, size_t *done);
	int (*ioctl)(struct rump_cx *, void *arg, uint32_t cmd, uint64_t addr, int64_t *retval);
};

/* A system call, with its six registers. */
typedef int (*rump_syscall_t)(struct rump_cx *, void *arg, const uint64_t *args, int64_t *retval);

struct rump_kernarg;

/* What the kernel does; by the functions below. */
struct rump_ops {
	int (*sysctl)(struct rump_cx *, const struct rump_sysctl *);
	int (*syscall)(struct rump_cx *, int, rump_syscall_t, void *, void (*)(void *));
	int (*cdev)(struct rump_cx *, const char *, uint32_t, const struct rump_cdevsw *, void *, void (*)(void *));
	int (*copyin)(struct rump_cx *, uint64_t, void *, size_t);
	int (*copyout)(struct rump_cx *, const void *, uint64_t, size_t);
	int (*copyinstr)(struct rump_cx *, uint64_t, char *, size_t, size_t *);
	int (*call)(struct rump_cx *, int, const uint64_t *, int64_t *);
	int (*invoke)(struct rump_cx *, uint32_t, struct rump_kernarg *, size_t, int64_t *);
	int32_t (*getpid)(struct rump_cx *);
	uint32_t (*geteuid)(struct rump_cx *);
	int (*kill)(struct rump_cx *, int32_t, int);
	void (*log)(struct rump_cx *, const char *);
	int (*tsleep)(struct rump_cx *, const void *, uint64_t);
	void (*wakeup)(struct rump_cx *, const void *);
	void (*unscheduled)(struct rump_cx *, void (*)(void *), void *);
};

struct rump_cx {
	const struct rump_ops *ops;
};

/*
 * Registering, in MODULE_CMD_INIT: a sysctl node (EEXIST), a system call by number (EBUSY when it is served), a character device with a
 * node at a path (EEXIST). `arg` is handed to the functions, `free` called with it at the end, also when registering fails.
 */
static inline int
rumpm_sysctl(struct rump_cx *cx, const struct rump_sysctl *node)
{
	return cx->ops->sysctl(cx, node);
}

static inline int
rumpm_syscall(struct rump_cx *cx, int nr, rump_syscall_t handler, void *arg, void (*free)(void *))
{
	return cx->ops->syscall(cx, nr, handler, arg, free);
}

static inline int
rumpm_cdev(struct rump_cx *cx, const char *path, uint32_t perm, const struct rump_cdevsw *driver, void *arg, void (*free)(void *))
{
	return cx->ops->cdev(cx, path, perm, driver, arg, free);
}

/* The memory of who makes the call: EFAULT, and ENAMETOOLONG for a string that the buffer does not fit with its NUL. */
static inline int
rumpm_copyin(struct rump_cx *cx, uint64_t from, void *to, size_t len)
{
	return cx->ops->copyin(cx, from, to, len);
}

static inline int
rumpm_copyout(struct rump_cx *cx, const void *from, uint64_t to, size_t len)
{
	return cx->ops->copyout(cx, from, to, len);
}

static inline int
rumpm_copyinstr(struct rump_cx *cx, uint64_t from, char *to, size_t size, size_t *len)
{
	return cx->ops->copyinstr(cx, from, to, size, len);
}

/* A system call of the lwp: a number and registers of docs/syscalls.md, with the module's own memory. */
static inline int
rumpm_call(struct rump_cx *cx, int nr, const uint64_t args[6], int64_t *retval)
{
	return cx->ops->call(cx, nr, args, retval);
}

/* The process, and its effective user. */
static inline int32_t
rumpm_getpid(struct rump_cx *cx)
{
	return cx->ops->getpid(cx);
}

static inline uint32_t
rumpm_geteuid(struct rump_cx *cx)
{
	return cx->ops->geteuid(cx);
}

/* Sends a process of the kernel a signal. */
static inline int
rumpm_kill(struct rump_cx *cx, int32_t pid, int signo)
{
	return cx->ops->kill(cx, pid, signo);
}

/* Writes a line to the kernel's message buffer. */
static inline void
rumpm_log(struct rump_cx *cx, const char *line)
{
	cx->ops->log(cx, line);
}

/* Sleeps until a wakeup of the identity, at most so many nanoseconds (0: without end): EWOULDBLOCK, EINTR. */
static inline int
rumpm_tsleep(struct rump_cx *cx, const void *ident, uint64_t nanoseconds)
{
	return cx->ops->tsleep(cx, ident, nanoseconds);
}

static inline void
rumpm_wakeup(struct rump_cx *cx, const void *ident)
{
	cx->ops->wakeup(cx, ident);
}

/* Calls a function without the virtual CPU. */
static inline void
rumpm_unscheduled(struct rump_cx *cx, void (*function)(void *), void *arg)
{
	cx->ops->unscheduled(cx, function, arg);
}

/* What the kernel looks at before anything else of a shared object: the version, and the form of this interface. */
#define RUMP_MODULE_ABI	((uint64_t)RUMP_MODULE_VERSION << 16 | 1)

/* The module of a shared object; a MODULE() that is exported. */
#define RUMP_MODULE(class, name, required)				\
MODULE(class, name, required);						\
__attribute__((visibility("default"))) extern const uint64_t rump_module_abi; \
const uint64_t rump_module_abi = RUMP_MODULE_ABI;			\
__attribute__((visibility("default"))) extern const struct modinfo *const rump_module_info; \
const struct modinfo *const rump_module_info = &name##_modinfo

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPMODULE_H_ */

/*
 * A process of a rump kernel that runs in another process, for programs that link librumpclient. With it come the rump_sys_* calls of
 * <rump/rump_syscalls.h>. Functions return -1 and set errno, unless it says otherwise.
 */
#ifndef _RUMP_RUMPCLIENT_H_
#define _RUMP_RUMPCLIENT_H_

#include <sys/types.h>

#include <stddef.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rumpclient_fork;

/* Becomes a process of the server that the environment variable RUMP_SERVER names. */
int rumpclient_init(void);

/*
 * A call by its number in docs/syscalls.md, with its registers as an array of 64-bit values. Returns 0, or the errno as its value.
 */
int rumpclient_syscall(int, const void *, size_t, long *);

/*
 * rumpclient_prefork() before fork(2) makes the child's process at the server; rumpclient_fork_init() in the child becomes it,
 * rumpclient_fork_vparent() in the parent frees the parent's copy, rumpclient_fork_cancel() lets it go when the fork failed.
 */
struct rumpclient_fork *rumpclient_prefork(void);
int rumpclient_fork_init(struct rumpclient_fork *);
void rumpclient_fork_vparent(struct rumpclient_fork *);
void rumpclient_fork_cancel(struct rumpclient_fork *);

/* The same in one; vfork is fork. */
pid_t rumpclient_fork(void);
pid_t rumpclient_vfork(void);
int rumpclient_daemon(int, int);

/* execve(2): the new program's rumpclient_init() goes on as this process. */
int rumpclient_exec(const char *, char *const [], char *const []);

/*
 * What a call does when the server is gone: connects anew, for so many seconds, or as the constants say; the default is once. A call
 * that was under way fails with ENOTCONN. The new connection is a new process: descriptors of the old one are gone.
 */
#define RUMPCLIENT_RETRYCONN_INFTIME	((time_t)-1)
#define RUMPCLIENT_RETRYCONN_ONCE	((time_t)-2)
#define RUMPCLIENT_RETRYCONN_DIE	((time_t)-3)
void rumpclient_setconnretry(time_t);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPCLIENT_H_ */

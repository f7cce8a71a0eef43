/*
 * A rump kernel in this process: booting it, running in it, what it is made of. Errors are returned as errno numbers of the host
 * unless it says otherwise. There is one kernel a process.
 */
#ifndef _RUMP_RUMP_H_
#define _RUMP_RUMP_H_

#include <sys/types.h>

#include <stddef.h>
#include <stdint.h>

#include <rump/rumpdefs.h>
#include <rump/rumpkern_if_pub.h>
#include <rump/rumpvfs_if_pub.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface, for rump__init(). */
#define RUMP_VERSION 1

/* Boots. 0 also when it is booted already; ESHUTDOWN when it was shut down (start the process anew). */
int rump_init(void);
int rump_init_callback(void (*)(void));
int rump__init(int);

/* Serves the booted kernel at unix://PATH, unix://@NAME or tcp://ADDRESS:PORT. */
int rump_init_server(const char *);

/*
 * Forks before the boot: rump_daemonize_begin() comes back in the child, the parent waits and exits with what the child gives to
 * rump_daemonize_done(). EALREADY after rump_init(), EINPROGRESS and ENOENT for a second begin and for a done without begin.
 */
int rump_daemonize_begin(void);
int rump_daemonize_done(int);
#define RUMP_DAEMONIZE_SUCCESS 0

/* Boot flags; of them RUMP_AB_VERBOSE means something. */
int rump_boot_gethowto(void);
void rump_boot_sethowto(int);
#define RUMP_AB_VERBOSE 0x00020000

/* What becomes of a signal for a process of this one. Values that are none of these mean RUMP_SIGMODEL_RAISE. */
enum rump_sigmodel {
	RUMP_SIGMODEL_PANIC,	/* abort(3) */
	RUMP_SIGMODEL_IGNORE,
	RUMP_SIGMODEL_RAISE,	/* raise(3), the default */
	RUMP_SIGMODEL_RECORD,	/* stays pending */
	RUMP_SIGMODEL__HOST_NOTANYMORE
};
void rump_boot_setsigmodel(enum rump_sigmodel);

/*
 * An etfs node that is made at boot, for files that components look for. The structure is the kernel's until rump_init() comes
 * back; eb_status is then 0 or the errno (-1 before). The caller serialises.
 */
struct rump_boot_etfs {
	const char *eb_key;
	const char *eb_hostpath;
	enum rump_etfs_type eb_type;
	uint64_t eb_begin;
	uint64_t eb_size;

	struct rump_boot_etfs *_eb_next;
	int eb_status;
};
void rump_boot_etfs_register(struct rump_boot_etfs *);

/* Takes a virtual CPU, and gives it back. Not needed around the calls of these headers. */
void rump_schedule(void);
void rump_unschedule(void);

/*
 * A system call by its number in docs/syscalls.md or by that of a module, with its registers as an array of so many bytes: 0 or the errno,
 * and the value goes to where the last argument points, if that is not NULL. rumpclient_syscall() of <rump/rumpclient.h> is the same.
 */
int rump_syscall(int, const void *, size_t, long *);

/* Writes the event counters to standard error. */
void rump_printevcnts(void);

/* In the form of __NetBSD_Version__: major * 100000000 + minor * 1000000 + patch * 100. */
int rump_getversion(void);
/* Whether the host kernel's modules could be loaded: no. */
int rump_nativeabi_p(void);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMP_H_ */

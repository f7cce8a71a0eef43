/*
 * The kernel proper, from outside: lwps and processes, etfs, modules. Included by <rump/rump.h>.
 */
#ifndef _RUMP_RUMPKERN_IF_PUB_H_
#define _RUMP_RUMPKERN_IF_PUB_H_

#include <sys/types.h>

#include <stddef.h>
#include <stdint.h>

#include <rump/rumpdefs.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lwp;
struct uio;
struct kauth_cred;
#ifndef __KAUTH_CRED_T
#define __KAUTH_CRED_T
typedef struct kauth_cred *kauth_cred_t;
#endif

/*
 * lwproc: a thread is bound to an lwp or is implicit, an lwp of process 1 for the time of each call.
 *
 * rfork makes a child of the thread's process and makes the thread its first lwp: descriptors are shared (0), copied (RUMP_RFFDG) or
 * cleared (RUMP_RFCFDG); both is EINVAL. newlwp makes another lwp of a process and makes the thread it: ESRCH, EBUSY when the process
 * is going away. switch makes the thread another lwp (NULL: implicit); the old one is free for other threads. To switch to an lwp
 * that is some thread's already is a panic. releaselwp ends the thread's lwp, the last one of a process takes it along; under
 * rump_schedule() it takes effect at rump_unschedule(). Without an lwp of the thread's own it is a panic. curlwp is NULL for an
 * implicit thread.
 */
int rump_pub_lwproc_rfork(int);
int rump_pub_lwproc_newlwp(pid_t);
void rump_pub_lwproc_switch(struct lwp *);
void rump_pub_lwproc_releaselwp(void);
struct lwp *rump_pub_lwproc_curlwp(void);
void rump_pub_lwproc_sysent_usenative(void);

/* Has getpid(2) of the thread's process answer another number. The number of the lwp stays. */
void rump_pub_allbetsareoff_setid(pid_t, int);

/*
 * etfs: a host file appears in the kernel under a key, an absolute path that is compared verbatim (leading slashes collapse) and that
 * no directory lists. remove is EBUSY while the file is in use.
 */
int rump_pub_etfs_register(const char *, const char *, enum rump_etfs_type);
int rump_pub_etfs_register_withsize(const char *, const char *, enum rump_etfs_type, uint64_t, uint64_t);
int rump_pub_etfs_remove(const char *);

/* One buffer for a transfer. free answers the bytes that were not moved. */
struct uio *rump_pub_uio_setup(void *, size_t, off_t, enum rump_uiorw);
size_t rump_pub_uio_getresid(struct uio *);
off_t rump_pub_uio_getoff(struct uio *);
size_t rump_pub_uio_free(struct uio *);

/* Credentials: uid, gid, and supplementary groups. */
kauth_cred_t rump_pub_cred_create(uid_t, gid_t, size_t, gid_t *);
void rump_pub_cred_put(kauth_cred_t);

/*
 * Modules that are linked into the program. init: EPROTONOSUPPORT for another version than rump_getversion(), EEXIST when it is started
 * already, ENOENT when what it requires is not. fini: ENOENT when it is not started, EBUSY while another requires it.
 */
#ifndef MODULE
typedef enum modcmd {
	MODULE_CMD_INIT = 0,
	MODULE_CMD_FINI = 1,
	MODULE_CMD_STAT = 2,
	MODULE_CMD_AUTOUNLOAD = 3
} modcmd_t;

typedef enum modclass {
	MODULE_CLASS_ANY,
	MODULE_CLASS_MISC,
	MODULE_CLASS_VFS,
	MODULE_CLASS_DRIVER,
	MODULE_CLASS_EXEC,
	MODULE_CLASS_SECMODEL
} modclass_t;

typedef struct modinfo {
	unsigned int mi_version;
	modclass_t mi_class;
	int (*mi_modcmd)(modcmd_t, void *);
	const char *mi_name;
	const char *mi_required;
} modinfo_t;

/* A module of the program: MODULE(MODULE_CLASS_MISC, name, "other,modules" or NULL) and a function name_modcmd. */
#define MODULE(class, name, required)					\
static int name##_modcmd(modcmd_t, void *);				\
static const struct modinfo name##_modinfo = {				\
	.mi_version = RUMP_MODULE_VERSION,				\
	.mi_class = (class),						\
	.mi_modcmd = name##_modcmd,					\
	.mi_name = #name,						\
	.mi_required = (required)					\
}
#endif
int rump_pub_module_init(const struct modinfo *const *, size_t);
int rump_pub_module_fini(const struct modinfo *);

/* The host's symbol table, once; EBUSY afterwards. */
int rump_pub_kernelfsym_load(void *, uint64_t, char *, uint64_t);

int rump_pub_getversion(void);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPKERN_IF_PUB_H_ */

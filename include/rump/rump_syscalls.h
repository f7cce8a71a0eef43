/*
 * The system calls of a rump kernel, with NetBSD's names and argument order, the host's types, and the host's way to tell an
 * error: -1 and errno (posix_fadvise, posix_fallocate and clock_nanosleep answer the error itself).
 * Made from frontends/librump/syscalls.master; do not edit.
 */
#ifndef _RUMP_RUMP_SYSCALLS_H_
#define _RUMP_RUMP_SYSCALLS_H_

#include <sys/select.h>
#include <sys/types.h>
#include <sys/socket.h>

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct aiocb;
struct epoll_event;
struct iovec;
struct itimerval;
struct kevent;
struct mmsghdr;
struct pollfd;
struct rlimit;
struct rump_statvfs;
struct stat;
struct statvfs;
struct timeval;

/* Files */
ssize_t rump_sys_read(int fd, void *buf, size_t nbytes);
ssize_t rump_sys_readv(int fd, const struct iovec *iov, int iovcnt);
ssize_t rump_sys_pread(int fd, void *buf, size_t nbytes, off_t offset);
ssize_t rump_sys_preadv(int fd, const struct iovec *iov, int iovcnt, off_t offset);
ssize_t rump_sys_write(int fd, const void *buf, size_t nbytes);
ssize_t rump_sys_writev(int fd, const struct iovec *iov, int iovcnt);
ssize_t rump_sys_pwrite(int fd, const void *buf, size_t nbytes, off_t offset);
ssize_t rump_sys_pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset);
int rump_sys_open(const char *path, int flags, ...);
int rump_sys_openat(int fd, const char *path, int flags, ...);
int rump_sys_close(int fd);
int rump_sys_dup(int fd);
int rump_sys_dup2(int from, int to);
int rump_sys_dup3(int from, int to, int flags);
off_t rump_sys_lseek(int fd, off_t offset, int whence);
int rump_sys_fcntl(int fd, int cmd, ...);
int rump_sys_ioctl(int fd, unsigned long com, ...);
int rump_sys_flock(int fd, int how);
int rump_sys_fsync(int fd);
int rump_sys_fsync_range(int fd, int how, off_t start, off_t length);
int rump_sys_fdatasync(int fd);
int rump_sys_fdiscard(int fd, off_t pos, off_t len);
int rump_sys_posix_fadvise(int fd, off_t offset, off_t len, int advice);
int rump_sys_posix_fallocate(int fd, off_t pos, off_t len);
int rump_sys_truncate(const char *path, off_t length);
int rump_sys_ftruncate(int fd, off_t length);
int rump_sys_pipe(int *fildes);
int rump_sys_pipe2(int *fildes, int flags);

/* Names */
int rump_sys_link(const char *path, const char *link);
int rump_sys_linkat(int fd1, const char *name1, int fd2, const char *name2, int flags);
int rump_sys_unlink(const char *path);
int rump_sys_unlinkat(int fd, const char *path, int flag);
int rump_sys_rename(const char *from, const char *to);
int rump_sys___posix_rename(const char *from, const char *to);
int rump_sys_renameat(int fromfd, const char *from, int tofd, const char *to);
int rump_sys_symlink(const char *path, const char *link);
int rump_sys_symlinkat(const char *path1, int fd, const char *path2);
ssize_t rump_sys_readlink(const char *path, char *buf, size_t count);
ssize_t rump_sys_readlinkat(int fd, const char *path, char *buf, size_t bufsize);
int rump_sys_mkdir(const char *path, mode_t mode);
int rump_sys_mkdirat(int fd, const char *path, mode_t mode);
int rump_sys_rmdir(const char *path);
int rump_sys_mknod(const char *path, mode_t mode, dev_t dev);
int rump_sys_mknodat(int fd, const char *path, mode_t mode, dev_t dev);
int rump_sys_mkfifo(const char *path, mode_t mode);
int rump_sys_mkfifoat(int fd, const char *path, mode_t mode);
int rump_sys_chdir(const char *path);
int rump_sys_fchdir(int fd);
int rump_sys_chroot(const char *path);
int rump_sys_fchroot(int fd);
int rump_sys___getcwd(char *bufp, size_t length);
int rump_sys_getdents(int fd, char *buf, size_t count);
mode_t rump_sys_umask(mode_t newmask);

/* Attributes */
int rump_sys_access(const char *path, int flags);
int rump_sys_faccessat(int fd, const char *path, int amode, int flag);
int rump_sys_stat(const char *path, struct stat *ub);
int rump_sys_lstat(const char *path, struct stat *ub);
int rump_sys_fstat(int fd, struct stat *sb);
int rump_sys_fstatat(int fd, const char *path, struct stat *buf, int flag);
int rump_sys_chmod(const char *path, mode_t mode);
int rump_sys_lchmod(const char *path, mode_t mode);
int rump_sys_fchmod(int fd, mode_t mode);
int rump_sys_fchmodat(int fd, const char *path, mode_t mode, int flag);
int rump_sys_chown(const char *path, uid_t uid, gid_t gid);
int rump_sys_lchown(const char *path, uid_t uid, gid_t gid);
int rump_sys_fchown(int fd, uid_t uid, gid_t gid);
int rump_sys_fchownat(int fd, const char *path, uid_t owner, gid_t group, int flag);
int rump_sys___posix_chown(const char *path, uid_t uid, gid_t gid);
int rump_sys___posix_lchown(const char *path, uid_t uid, gid_t gid);
int rump_sys___posix_fchown(int fd, uid_t uid, gid_t gid);
int rump_sys_chflags(const char *path, unsigned long flags);
int rump_sys_lchflags(const char *path, unsigned long flags);
int rump_sys_fchflags(int fd, unsigned long flags);
int rump_sys_utimes(const char *path, const struct timeval *tptr);
int rump_sys_lutimes(const char *path, const struct timeval *tptr);
int rump_sys_futimes(int fd, const struct timeval *tptr);
int rump_sys_futimens(int fd, const struct timespec *tptr);
int rump_sys_utimensat(int fd, const char *path, const struct timespec *tptr, int flag);
long rump_sys_pathconf(const char *path, int name);
long rump_sys_fpathconf(int fd, int name);
int rump_sys_revoke(const char *path);

/* Extended attributes */
int rump_sys_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int rump_sys_lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int rump_sys_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
ssize_t rump_sys_getxattr(const char *path, const char *name, void *value, size_t size);
ssize_t rump_sys_lgetxattr(const char *path, const char *name, void *value, size_t size);
ssize_t rump_sys_fgetxattr(int fd, const char *name, void *value, size_t size);
ssize_t rump_sys_listxattr(const char *path, char *list, size_t size);
ssize_t rump_sys_llistxattr(const char *path, char *list, size_t size);
ssize_t rump_sys_flistxattr(int fd, char *list, size_t size);
int rump_sys_removexattr(const char *path, const char *name);
int rump_sys_lremovexattr(const char *path, const char *name);
int rump_sys_fremovexattr(int fd, const char *name);
int rump_sys_extattrctl(const char *path, int cmd, const char *filename, int attrnamespace, const char *attrname);
ssize_t rump_sys_extattr_set_file(const char *path, int attrnamespace, const char *attrname, const void *data, size_t nbytes);
ssize_t rump_sys_extattr_set_link(const char *path, int attrnamespace, const char *attrname, const void *data, size_t nbytes);
ssize_t rump_sys_extattr_set_fd(int fd, int attrnamespace, const char *attrname, const void *data, size_t nbytes);
ssize_t rump_sys_extattr_get_file(const char *path, int attrnamespace, const char *attrname, void *data, size_t nbytes);
ssize_t rump_sys_extattr_get_link(const char *path, int attrnamespace, const char *attrname, void *data, size_t nbytes);
ssize_t rump_sys_extattr_get_fd(int fd, int attrnamespace, const char *attrname, void *data, size_t nbytes);
int rump_sys_extattr_delete_file(const char *path, int attrnamespace, const char *attrname);
int rump_sys_extattr_delete_link(const char *path, int attrnamespace, const char *attrname);
int rump_sys_extattr_delete_fd(int fd, int attrnamespace, const char *attrname);
ssize_t rump_sys_extattr_list_file(const char *path, int attrnamespace, void *data, size_t nbytes);
ssize_t rump_sys_extattr_list_link(const char *path, int attrnamespace, void *data, size_t nbytes);
ssize_t rump_sys_extattr_list_fd(int fd, int attrnamespace, void *data, size_t nbytes);

/* File systems */
int rump_sys_mount(const char *type, const char *path, int flags, void *data, size_t data_len);
int rump_sys_unmount(const char *path, int flags);
int rump_sys_statvfs1(const char *path, struct statvfs *buf, int flags);
int rump_sys_fstatvfs1(int fd, struct statvfs *buf, int flags);
int rump_sys_getvfsstat(struct rump_statvfs *buf, size_t bufsize, int flags);
void rump_sys_sync(void);
int rump_sys_getfh(const char *fname, void *fhp, size_t *fh_size);
int rump_sys_fhopen(const void *fhp, size_t fh_size, int flags);
int rump_sys_fhstat(const void *fhp, size_t fh_size, struct stat *sb);
int rump_sys_fhstatvfs1(const void *fhp, size_t fh_size, struct statvfs *buf, int flags);
int rump_sys_nfssvc(int flag, void *argp);
int rump_sys___quotactl(const char *path, void *args);

/* Sockets */
int rump_sys_socket(int domain, int type_, int protocol);
int rump_sys_socketpair(int domain, int type_, int protocol, int *rsv);
int rump_sys_bind(int s, const struct sockaddr *name, socklen_t namelen);
int rump_sys_connect(int s, const struct sockaddr *name, socklen_t namelen);
int rump_sys_accept(int s, struct sockaddr *name, socklen_t *anamelen);
int rump_sys_paccept(int s, struct sockaddr *name, socklen_t *anamelen, const sigset_t *mask, int flags);
int rump_sys_listen(int s, int backlog);
int rump_sys_shutdown(int s, int how);
ssize_t rump_sys_sendto(int s, const void *buf, size_t len, int flags, const struct sockaddr *to, socklen_t tolen);
ssize_t rump_sys_sendmsg(int s, const struct msghdr *msg, int flags);
int rump_sys_sendmmsg(int s, struct mmsghdr *mmsg, unsigned int vlen, unsigned int flags);
ssize_t rump_sys_recvfrom(int s, void *buf, size_t len, int flags, struct sockaddr *from, socklen_t *fromlenaddr);
ssize_t rump_sys_recvmsg(int s, struct msghdr *msg, int flags);
int rump_sys_recvmmsg(int s, struct mmsghdr *mmsg, unsigned int vlen, unsigned int flags, struct timespec *timeout);
int rump_sys_getsockopt(int s, int level, int name, void *val, socklen_t *avalsize);
int rump_sys_setsockopt(int s, int level, int name, const void *val, socklen_t valsize);
int rump_sys_getpeername(int fdes, struct sockaddr *asa, socklen_t *alen);
int rump_sys_getsockname(int fdes, struct sockaddr *asa, socklen_t *alen);

/* Waiting */
int rump_sys_poll(struct pollfd *fds, unsigned int nfds, int timeout);
int rump_sys_pollts(struct pollfd *fds, unsigned int nfds, const struct timespec *ts, const sigset_t *mask);
int rump_sys_select(int nd, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval *tv);
int rump_sys_pselect(int nd, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, const struct timespec *ts, const sigset_t *mask);
int rump_sys_kqueue(void);
int rump_sys_kqueue1(int flags);
int rump_sys_kevent(int fd, const struct kevent *changelist, size_t nchanges, struct kevent *eventlist, size_t nevents, const struct timespec *timeout);
int rump_sys_epoll_create1(int flags);
int rump_sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
int rump_sys_epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);
int rump_sys_eventfd(unsigned int initval, int flags);
int rump_sys_timerfd_create(int clockid, int flags);
int rump_sys_timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *ovalue);
int rump_sys_timerfd_gettime(int fd, struct itimerspec *value);
int rump_sys_inotify_init1(int flags);
int rump_sys_inotify_add_watch(int fd, const char *path, uint32_t mask);
int rump_sys_inotify_rm_watch(int fd, int wd);
ssize_t rump_sys_splice(int fd_in, off_t *off_in, int fd_out, off_t *off_out, size_t len, unsigned int flags);
ssize_t rump_sys_tee(int fd_in, int fd_out, size_t len, unsigned int flags);
ssize_t rump_sys_copy_file_range(int fd_in, off_t *off_in, int fd_out, off_t *off_out, size_t len, unsigned int flags);

/* Asynchronous I/O and semaphores */
int rump_sys_aio_cancel(int fildes, struct aiocb *aiocbp);
int rump_sys_aio_error(const struct aiocb *aiocbp);
int rump_sys_aio_fsync(int op, struct aiocb *aiocbp);
int rump_sys_aio_read(struct aiocb *aiocbp);
ssize_t rump_sys_aio_return(struct aiocb *aiocbp);
int rump_sys_aio_suspend(const struct aiocb *const *list, int nent, const struct timespec *timeout);
int rump_sys_aio_write(struct aiocb *aiocbp);
int rump_sys_lio_listio(int mode, struct aiocb *const *list, int nent, struct sigevent *sig);
int rump_sys__ksem_init(unsigned int value, intptr_t *idp);
int rump_sys__ksem_open(const char *name, int oflag, mode_t mode, unsigned int value, intptr_t *idp);
int rump_sys__ksem_unlink(const char *name);
int rump_sys__ksem_close(intptr_t id);
int rump_sys__ksem_post(intptr_t id);
int rump_sys__ksem_wait(intptr_t id);
int rump_sys__ksem_trywait(intptr_t id);
int rump_sys__ksem_timedwait(intptr_t id, const struct timespec *abstime);
int rump_sys__ksem_getvalue(intptr_t id, unsigned int *value);
int rump_sys__ksem_destroy(intptr_t id);

/* Processes */
pid_t rump_sys_getpid(void);
pid_t rump_sys_getppid(void);
uid_t rump_sys_getuid(void);
uid_t rump_sys_geteuid(void);
gid_t rump_sys_getgid(void);
gid_t rump_sys_getegid(void);
int rump_sys_setuid(uid_t uid);
int rump_sys_seteuid(uid_t euid);
int rump_sys_setreuid(uid_t ruid, uid_t euid);
int rump_sys_setgid(gid_t gid);
int rump_sys_setegid(gid_t egid);
int rump_sys_setregid(gid_t rgid, gid_t egid);
int rump_sys_getgroups(int gidsetsize, gid_t *gidset);
int rump_sys_setgroups(int gidsetsize, const gid_t *gidset);
pid_t rump_sys_getpgrp(void);
pid_t rump_sys_getpgid(pid_t pid);
pid_t rump_sys_getsid(pid_t pid);
int rump_sys_setpgid(pid_t pid, pid_t pgid);
pid_t rump_sys_setsid(void);
int rump_sys_issetugid(void);
int rump_sys_getrlimit(int which, struct rlimit *rlp);
int rump_sys_setrlimit(int which, const struct rlimit *rlp);
int rump_sys___getlogin(char *namebuf, size_t namelen);
int rump_sys___setlogin(const char *namebuf);

/* Time */
int rump_sys_clock_gettime(clockid_t clock_id, struct timespec *tp);
int rump_sys_clock_settime(clockid_t clock_id, const struct timespec *tp);
int rump_sys_clock_getres(clockid_t clock_id, struct timespec *tp);
int rump_sys_clock_nanosleep(clockid_t clock_id, int flags, const struct timespec *rqtp, struct timespec *rmtp);
int rump_sys_nanosleep(const struct timespec *rqtp, struct timespec *rmtp);
int rump_sys_gettimeofday(struct timeval *tp, void *tzp);
int rump_sys_settimeofday(const struct timeval *tv, const void *tzp);
int rump_sys_adjtime(const struct timeval *delta, struct timeval *olddelta);
int rump_sys_timer_create(clockid_t clock_id, struct sigevent *evp, timer_t *timerid);
int rump_sys_timer_delete(timer_t timerid);
int rump_sys_timer_settime(timer_t timerid, int flags, const struct itimerspec *value, struct itimerspec *ovalue);
int rump_sys_timer_gettime(timer_t timerid, struct itimerspec *value);
int rump_sys_timer_getoverrun(timer_t timerid);
int rump_sys_getitimer(int which, struct itimerval *itv);
int rump_sys_setitimer(int which, const struct itimerval *itv, struct itimerval *oitv);

/* The kernel */
int rump_sys___sysctl(const int *name, unsigned int namelen, void *oldv, size_t *oldlenp, const void *newv, size_t newlen);
int rump_sys_reboot(int opt, char *bootstr);
int rump_sys_modctl(int cmd, void *arg);
int rump_sys_ktrace(const char *fname, int ops, int facs, pid_t pid);
int rump_sys_fktrace(int fd, int ops, int facs, pid_t pid);
int rump_sys_utrace(const char *label, void *addr, size_t len);

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMP_SYSCALLS_H_ */

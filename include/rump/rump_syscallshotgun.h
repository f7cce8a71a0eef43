/*
 * Gives system calls of the host's names to the rump kernel, in the file that includes this after every other header. Which, is said
 * by defining these before: RUMP_SYS_NETWORKING, RUMP_SYS_IOCTL, RUMP_SYS_CLOSE, RUMP_SYS_OPEN, RUMP_SYS_READWRITE, RUMP_SYS_FILEOPS,
 * RUMP_SYS_STAT, RUMP_SYS_PROCOPS.
 */
#ifndef _RUMP_RUMP_SYSCALLSHOTGUN_H_
#define _RUMP_RUMP_SYSCALLSHOTGUN_H_

#include <rump/rump_syscalls.h>

#ifdef RUMP_SYS_NETWORKING
#define socket(a, b, c) rump_sys_socket(a, b, c)
#define socketpair(a, b, c, d) rump_sys_socketpair(a, b, c, d)
#define accept(a, b, c) rump_sys_accept(a, b, c)
#define bind(a, b, c) rump_sys_bind(a, b, c)
#define connect(a, b, c) rump_sys_connect(a, b, c)
#define getpeername(a, b, c) rump_sys_getpeername(a, b, c)
#define getsockname(a, b, c) rump_sys_getsockname(a, b, c)
#define listen(a, b) rump_sys_listen(a, b)
#define recv(a, b, c, d) rump_sys_recvfrom(a, b, c, d, NULL, NULL)
#define recvfrom(a, b, c, d, e, f) rump_sys_recvfrom(a, b, c, d, e, f)
#define recvmsg(a, b, c) rump_sys_recvmsg(a, b, c)
#define send(a, b, c, d) rump_sys_sendto(a, b, c, d, NULL, 0)
#define sendto(a, b, c, d, e, f) rump_sys_sendto(a, b, c, d, e, f)
#define sendmsg(a, b, c) rump_sys_sendmsg(a, b, c)
#define getsockopt(a, b, c, d, e) rump_sys_getsockopt(a, b, c, d, e)
#define setsockopt(a, b, c, d, e) rump_sys_setsockopt(a, b, c, d, e)
#define shutdown(a, b) rump_sys_shutdown(a, b)
#define select(a, b, c, d, e) rump_sys_select(a, b, c, d, e)
#define poll(a, b, c) rump_sys_poll(a, b, c)
#endif /* RUMP_SYS_NETWORKING */

#ifdef RUMP_SYS_IOCTL
#define ioctl(...) rump_sys_ioctl(__VA_ARGS__)
#define fcntl(...) rump_sys_fcntl(__VA_ARGS__)
#endif /* RUMP_SYS_IOCTL */

#ifdef RUMP_SYS_CLOSE
#define close(a) rump_sys_close(a)
#endif /* RUMP_SYS_CLOSE */

#ifdef RUMP_SYS_OPEN
#define open(...) rump_sys_open(__VA_ARGS__)
#endif /* RUMP_SYS_OPEN */

#ifdef RUMP_SYS_READWRITE
#define read(a, b, c) rump_sys_read(a, b, c)
#define readv(a, b, c) rump_sys_readv(a, b, c)
#define pread(a, b, c, d) rump_sys_pread(a, b, c, d)
#define preadv(a, b, c, d) rump_sys_preadv(a, b, c, d)
#define write(a, b, c) rump_sys_write(a, b, c)
#define writev(a, b, c) rump_sys_writev(a, b, c)
#define pwrite(a, b, c, d) rump_sys_pwrite(a, b, c, d)
#define pwritev(a, b, c, d) rump_sys_pwritev(a, b, c, d)
#define lseek(a, b, c) rump_sys_lseek(a, b, c)
#endif /* RUMP_SYS_READWRITE */

#ifdef RUMP_SYS_FILEOPS
#define access(a, b) rump_sys_access(a, b)
#define chdir(a) rump_sys_chdir(a)
#define fchdir(a) rump_sys_fchdir(a)
#define chmod(a, b) rump_sys_chmod(a, b)
#define fchmod(a, b) rump_sys_fchmod(a, b)
#define chown(a, b, c) rump_sys_chown(a, b, c)
#define fchown(a, b, c) rump_sys_fchown(a, b, c)
#define lchown(a, b, c) rump_sys_lchown(a, b, c)
#define fsync(a) rump_sys_fsync(a)
#define ftruncate(a, b) rump_sys_ftruncate(a, b)
#define truncate(a, b) rump_sys_truncate(a, b)
#define getdents(a, b, c) rump_sys_getdents(a, b, c)
#define link(a, b) rump_sys_link(a, b)
#define mkdir(a, b) rump_sys_mkdir(a, b)
#define mkfifo(a, b) rump_sys_mkfifo(a, b)
#define mknod(a, b, c) rump_sys_mknod(a, b, c)
#define readlink(a, b, c) rump_sys_readlink(a, b, c)
#define rename(a, b) rump_sys_rename(a, b)
#define rmdir(a) rump_sys_rmdir(a)
#define symlink(a, b) rump_sys_symlink(a, b)
#define umask(a) rump_sys_umask(a)
#define unlink(a) rump_sys_unlink(a)
#define utimes(a, b) rump_sys_utimes(a, b)
#define sync() rump_sys_sync()
#endif /* RUMP_SYS_FILEOPS */

/* With arguments, so that "struct stat" stays what it is. */
#ifdef RUMP_SYS_STAT
#define stat(a, b) rump_sys_stat(a, b)
#define fstat(a, b) rump_sys_fstat(a, b)
#define lstat(a, b) rump_sys_lstat(a, b)
#endif /* RUMP_SYS_STAT */

#ifdef RUMP_SYS_PROCOPS
#define getpid() rump_sys_getpid()
#define getppid() rump_sys_getppid()
#define getuid() rump_sys_getuid()
#define geteuid() rump_sys_geteuid()
#define getgid() rump_sys_getgid()
#define getegid() rump_sys_getegid()
#define setuid(a) rump_sys_setuid(a)
#define setgid(a) rump_sys_setgid(a)
#define setsid() rump_sys_setsid()
#endif /* RUMP_SYS_PROCOPS */

#endif /* _RUMP_RUMP_SYSCALLSHOTGUN_H_ */

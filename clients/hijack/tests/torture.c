/* What a program may do that a shim must bear. Prints one line a part; argv[1] is a directory of the kernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static char file[256], fifo[256];
static volatile sig_atomic_t handled;

static void check(int good, const char *what) {
    if (!good) {
        printf("FAILED: %s (errno %d)\n", what, errno);
        exit(1);
    }
}

static void read_file(void) {
    char buf[16];
    int fd = open(file, O_RDONLY);
    check(fd >= 0 && read(fd, buf, sizeof buf) == 7 && !memcmp(buf, "content", 7), "reading the file");
    close(fd);
}

static void handler(int sig) {
    (void)sig;
    int saved = errno;
    read_file();
    handled++;
    errno = saved;
}

/* A leaf with locals in the red zone and its own syscall instruction. */
static __attribute__((noinline)) long own_syscall(const char *path) {
    volatile long red[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    long ret, rbx_after;
    register long r10 __asm__("r10") = 0;
    __asm__ volatile("mov $0x1234, %%ebx\n\tmov $2, %%eax\n\tsyscall\n\tmov %%rbx, %1"
                     : "=&a"(ret), "=&r"(rbx_after)
                     : "D"(path), "S"((long)O_RDONLY), "d"(0L), "r"(r10)
                     : "rbx", "rcx", "r11", "memory");
    long sum = 0;
    for (int i = 0; i < 8; i++) sum += red[i];
    check(sum == 36, "the red zone");
    check(rbx_after == 0x1234, "rbx");
    return ret;
}

static void registers(void) {
    if (!__builtin_cpu_supports("avx")) return;
    float in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8];
    struct stat st;
    long ret;
    __asm__ volatile("vmovups %2, %%ymm9\n\tmov $4, %%eax\n\tsyscall\n\tvmovups %%ymm9, %1"
                     : "=&a"(ret), "=m"(out)
                     : "m"(in), "D"(file), "S"(&st)
                     : "rcx", "r11", "memory", "xmm9");
    check(ret == 0 && st.st_size == 7 && !memcmp(in, out, sizeof in), "vector registers");
}

static long resident(void) {
    long size, rss;
    FILE *f = fopen("/proc/self/statm", "r");
    check(f && fscanf(f, "%ld %ld", &size, &rss) == 2, "statm");
    fclose(f);
    return size;
}

static void vforks(int rounds) {
    for (int i = 0; i < rounds; i++) {
        int fd = open(file, O_RDONLY);
        pid_t pid = vfork();
        if (pid == 0) {
            if (dup2(fd, 0) != 0) _exit(3);
            close(fd);
            char *argv[] = {"head", "-c", "0", 0};
            execve("/usr/bin/head", argv, 0);
            _exit(4);
        }
        int status;
        check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "vfork and exec");
        check(read(fd, &status, 1) == 1, "the parent's descriptor after vfork");
        close(fd);
    }
}

static void *reader(void *arg) {
    for (int i = 0; i < 20; i++) read_file();
    return arg;
}

static void *blocked(void *arg) {
    char c;
    int fd = *(int *)arg;
    while (read(fd, &c, 1) == 1) {}
    return 0;
}

static void threads(void) {
    for (int round = 0; round < 30; round++) {
        pthread_t t[8];
        for (int i = 0; i < 8; i++) check(!pthread_create(&t[i], 0, reader, 0), "pthread_create");
        if (round % 10 == 0) {
            pid_t pid = fork();
            if (pid == 0) {
                read_file();
                _exit(0);
            }
            int status;
            check(waitpid(pid, &status, 0) == pid && status == 0, "fork beside threads");
        }
        for (int i = 0; i < 8; i++) pthread_join(t[i], 0);
    }
    int fd = open(fifo, O_RDWR);
    for (int i = 0; i < 5; i++) {
        pthread_t t;
        void *result;
        check(!pthread_create(&t, 0, blocked, &fd), "pthread_create");
        pthread_cancel(t);
        pthread_join(t, &result);
        check(result == PTHREAD_CANCELED, "cancellation");
        read_file();
    }
    close(fd);
}

static void signals(void) {
    static char small[8192];
    stack_t alt = {.ss_sp = small, .ss_size = sizeof small};
    check(!sigaltstack(&alt, 0), "sigaltstack");
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGALRM, &sa, 0);
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, 0);
    while (handled < 100) read_file();
    setitimer(ITIMER_REAL, &never, 0);
    sa.sa_flags = SA_ONSTACK;
    sigaction(SIGALRM, &sa, 0);
    int fd = open(fifo, O_RDWR);
    char c;
    /* Again and again, for one alarm may come before the read has begun. */
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 20000}, {0, 20000}}, 0);
    check(read(fd, &c, 1) == -1 && errno == EINTR, "EINTR from a read that waits");
    setitimer(ITIMER_REAL, &never, 0);
    close(fd);
}

static void passing(void) {
    int pair[2], fd = open(file, O_RDONLY), host = open("/dev/null", O_WRONLY);
    check(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    char space[CMSG_SPACE(sizeof fd)] = {0}, c = 'x';
    struct iovec iov = {&c, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET, cmsg->cmsg_type = SCM_RIGHTS, cmsg->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    check(sendmsg(pair[0], &msg, 0) == -1 && errno == EOPNOTSUPP, "a kernel descriptor is not passed");
    memcpy(CMSG_DATA(cmsg), &host, sizeof host);
    check(sendmsg(pair[0], &msg, 0) == 1, "a host descriptor is");
    check(lseek(fd, 0, SEEK_SET) == 0, "lseek");
    check(sendfile(pair[0], fd, 0, 100) == 7, "sendfile from the kernel");
    char buf[8];
    check(read(pair[1], buf, 1) == 1 && read(pair[1], buf, 7) == 7 && !memcmp(buf, "content", 7), "what it sent");
    check(splice(fd, 0, pair[0], 0, 10, 0) == -1 && errno == EINVAL, "splice");
    check(copy_file_range(fd, 0, host, 0, 10, 0) == -1 && errno == EXDEV, "copy_file_range");
    check(lseek(fd, 0, SEEK_SET) == 0, "lseek");
    check(syscall(SYS_io_uring_setup, 1, 0) == -1 && errno == ENOSYS, "io_uring_setup");
    check(open((char *)1, O_RDONLY) == -1 && errno == EFAULT, "a bad address");
    void *volatile bad = (void *)8;
    check(read(fd, bad, 1) == -1 && errno == EFAULT, "a bad buffer");
    check(syscall(SYS_close_range, 3, ~0u, 2) == 0, "close_range with a table of its own");
    read_file();
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    setvbuf(stdout, 0, _IONBF, 0);
    snprintf(file, sizeof file, "%s/file", argv[1]);
    snprintf(fifo, sizeof fifo, "%s/fifo", argv[1]);
    int fd = open(file, O_CREAT | O_WRONLY, 0644);
    check(fd >= 0 && write(fd, "content", 7) == 7 && !close(fd), "making the file");
    check(!mkfifo(fifo, 0600), "mkfifo");
    check(own_syscall(file) >= 0 && own_syscall("/nosuch") == -ENOENT, "a syscall of the program");
    puts("own system calls");
    registers();
    puts("registers");
    vforks(20);
    long before = resident();
    vforks(100);
    check(resident() - before < 64, "vfork leaves no memory behind");
    puts("vfork");
    threads();
    puts("threads");
    signals();
    puts("signals");
    passing();
    puts("passing");
    return 0;
}

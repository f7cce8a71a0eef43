/* A program written for its host, whose calls go to a rump kernel because of one header. */
#include <sys/socket.h>
#include <sys/stat.h>

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rump/rump.h>
#define RUMP_SYS_NETWORKING
#define RUMP_SYS_IOCTL
#define RUMP_SYS_CLOSE
#define RUMP_SYS_OPEN
#define RUMP_SYS_READWRITE
#define RUMP_SYS_FILEOPS
#define RUMP_SYS_STAT
#define RUMP_SYS_PROCOPS
#include <rump/rump_syscallshotgun.h>

int
main(void)
{
	struct stat sb;
	char buf[32];
	int fd, pair[2];

	rump_init();
	if (mkdir("/desk", 0755) == -1 || chdir("/desk") == -1)
		err(1, "/desk");
	if ((fd = open("note", O_RDWR | O_CREAT | O_EXCL, 0640)) == -1)
		err(1, "note");
	if (write(fd, "not on the host", 15) != 15)
		err(1, "write");
	if (lseek(fd, 4, SEEK_SET) == -1 || read(fd, buf, 2) != 2)
		err(1, "read");
	printf("%.2s\n", buf);
	if (fcntl(fd, F_GETFL) == -1 || close(fd) == -1)
		err(1, "close");
	if (stat("/desk/note", &sb) == -1)
		err(1, "stat");
	printf("%lld bytes, owner %d, process %d\n", (long long)sb.st_size, sb.st_uid, getpid());

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == -1)
		err(1, "socketpair");
	if (send(pair[0], "hello", 5, 0) != 5 || recv(pair[1], buf, sizeof(buf), 0) != 5)
		err(1, "send");
	printf("%.5s\n", buf);
	if (unlink("note") == -1)
		err(1, "unlink");
	if (stat("note", &sb) == -1)
		printf("%s\n", strerror(errno));
	return 0;
}

/* A kernel whose network is its host's, by RUMP_NET=sockin: what comes from a socket goes into a file, both the kernel's. */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>

int
main(int argc, char **argv)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
	};
	char buf[64];
	ssize_t n;
	int sock, file;

	if (argc != 2)
		errx(1, "usage: sockin PORT");
	to.sin_port = htons(atoi(argv[1]));
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (rump_init() != 0)
		errx(1, "rump_init");
	if ((sock = rump_sys_socket(AF_INET, SOCK_STREAM, 0)) == -1)
		err(1, "socket");
	if (rump_sys_connect(sock, (struct sockaddr *)&to, sizeof(to)) == -1)
		err(1, "connect");
	if (rump_sys_write(sock, "a kernel\n", 9) != 9)
		err(1, "write");
	if ((file = rump_sys_open("/greeting", RUMP_O_RDWR | RUMP_O_CREAT, 0644)) == -1)
		err(1, "open");
	while ((n = rump_sys_read(sock, buf, sizeof(buf))) > 0)
		if (rump_sys_write(file, buf, n) != n)
			err(1, "write");
	if ((n = rump_sys_pread(file, buf, sizeof(buf), 0)) == -1)
		err(1, "pread");
	printf("in the file: %.*s", (int)n, buf);
	rump_sys_reboot(0, NULL);
	return 0;
}

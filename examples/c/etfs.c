/* Files of the host that appear in the kernel: whole, as a window, from the boot on. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

static void
show(const char *path)
{
	char buf[64];
	ssize_t n;
	int fd;

	if ((fd = rump_sys_open(path, RUMP_O_RDONLY)) == -1) {
		printf("%s: %s\n", path, rump_strerror(errno));
		return;
	}
	n = rump_sys_read(fd, buf, sizeof(buf));
	printf("%s: %.*s\n", path, (int)n, buf);
	rump_sys_close(fd);
}

int
main(void)
{
	struct rump_boot_etfs boot = {
		.eb_key = "/firmware",
		.eb_hostpath = "host.txt",
		.eb_type = RUMP_ETFS_REG,
		.eb_size = RUMP_ETFS_SIZE_ENDOFF,
	}, missing = {
		.eb_key = "/missing",
		.eb_hostpath = "not-there.txt",
		.eb_type = RUMP_ETFS_REG,
		.eb_size = RUMP_ETFS_SIZE_ENDOFF,
	};
	int fd;

	if ((fd = open("host.txt", O_WRONLY | O_CREAT | O_TRUNC, 0644)) == -1 ||
	    write(fd, "0123456789", 10) != 10)
		err(1, "host.txt");
	close(fd);

	rump_boot_etfs_register(&boot);
	rump_boot_etfs_register(&missing);
	if (rump_init() != 0)
		errx(1, "rump_init");
	printf("at boot: %s, %s\n", rump_strerror(boot.eb_status), rump_strerror(missing.eb_status));
	show("/firmware");

	printf("register: %s\n", rump_strerror(rump_pub_etfs_register("/key", "host.txt", RUMP_ETFS_REG)));
	printf("again: %s\n", rump_strerror(rump_pub_etfs_register("/key", "host.txt", RUMP_ETFS_REG)));
	printf("no path: %s\n", rump_strerror(rump_pub_etfs_register("key", "host.txt", RUMP_ETFS_REG)));
	printf("no type: %s\n", rump_strerror(rump_pub_etfs_register("/k", "host.txt", 9)));
	printf("no key: %s\n", rump_strerror(rump_pub_etfs_register(NULL, "host.txt", RUMP_ETFS_REG)));
	show("/key");
	show("///key");
	printf("window: %s\n", rump_strerror(rump_pub_etfs_register_withsize("/window", "host.txt",
	    RUMP_ETFS_REG, 3, 4)));
	show("/window");
	printf("to the end: %s\n", rump_strerror(rump_pub_etfs_register_withsize("/tail", "host.txt",
	    RUMP_ETFS_REG, 7, RUMP_ETFS_SIZE_ENDOFF)));
	show("/tail");

	if ((fd = rump_sys_open("/key", RUMP_O_RDONLY)) == -1)
		err(1, "open");
	printf("remove while open: %s\n", rump_strerror(rump_pub_etfs_remove("/key")));
	rump_sys_close(fd);
	printf("remove: %s\n", rump_strerror(rump_pub_etfs_remove("/key")));
	printf("again: %s\n", rump_strerror(rump_pub_etfs_remove("/key")));
	show("/key");
	return 0;
}

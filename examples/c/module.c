/* Modules that are linked into the program. */
#include <err.h>
#include <errno.h>
#include <stdio.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

MODULE(MODULE_CLASS_MISC, motd, NULL);
MODULE(MODULE_CLASS_MISC, reader, "motd");

static int
motd_modcmd(modcmd_t cmd, void *arg)
{
	int fd;

	(void)arg;
	switch (cmd) {
	case MODULE_CMD_INIT:
		if ((fd = rump_sys_open("/motd", RUMP_O_WRONLY | RUMP_O_CREAT, 0644)) == -1)
			return errno;
		rump_sys_write(fd, "welcome\n", 8);
		return rump_sys_close(fd) == -1 ? errno : 0;
	case MODULE_CMD_FINI:
		return rump_sys_unlink("/motd") == -1 ? errno : 0;
	default:
		return ENOTTY;
	}
}

static int
reader_modcmd(modcmd_t cmd, void *arg)
{
	(void)arg;
	printf("reader: %s\n", cmd == MODULE_CMD_INIT ? "init" : "fini");
	return 0;
}

int
main(void)
{
	const struct modinfo *both[] = { &motd_modinfo, &reader_modinfo };
	const struct modinfo *reader = &reader_modinfo;
	const struct modinfo old = {
		.mi_version = RUMP_MODULE_VERSION - 1,
		.mi_name = "old",
		.mi_modcmd = reader_modcmd,
	};
	const struct modinfo *oldp = &old;

	printf("before rump_init: %s\n", rump_strerror(rump_pub_module_init(both, 1)));
	if (rump_init() != 0)
		errx(1, "rump_init");
	printf("version of the headers: %s\n", rump_getversion() == RUMP_MODULE_VERSION ? "yes" : "no");
	printf("without what it requires: %s\n", rump_strerror(rump_pub_module_init(&reader, 1)));
	printf("old: %s\n", rump_strerror(rump_pub_module_init(&oldp, 1)));
	printf("both: %s\n", rump_strerror(rump_pub_module_init(both, 2)));
	printf("motd is there: %s\n", rump_sys_access("/motd", 0) == 0 ? "yes" : "no");
	printf("init again: %s\n", rump_strerror(rump_pub_module_init(both, 1)));
	printf("fini while required: %s\n", rump_strerror(rump_pub_module_fini(&motd_modinfo)));
	printf("fini of the reader: %s\n", rump_strerror(rump_pub_module_fini(&reader_modinfo)));
	printf("fini: %s\n", rump_strerror(rump_pub_module_fini(&motd_modinfo)));
	printf("motd is gone: %s\n", rump_sys_access("/motd", 0) == -1 ? "yes" : "no");
	printf("fini again: %s\n", rump_strerror(rump_pub_module_fini(&motd_modinfo)));
	return 0;
}

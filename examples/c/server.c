/* server URL: a kernel that other processes use. Comes back when it serves; ends when a client halts it. */
#include <err.h>
#include <unistd.h>

#include <rump/rump.h>
#include <rump/rumperr.h>

int
main(int argc, char *argv[])
{
	int error;

	if (argc != 2)
		errx(1, "usage: server URL");
	if ((error = rump_daemonize_begin()) != 0)
		errx(1, "daemonize: %s", rump_strerror(error));
	if ((error = rump_init()) == 0)
		error = rump_init_server(argv[1]);
	if (rump_daemonize_begin() == 0)
		errx(1, "begin twice");
	rump_daemonize_done(error);
	if (error != 0)
		return 1;
	for (;;)
		pause();
}

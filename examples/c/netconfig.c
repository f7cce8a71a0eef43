/* A network of one kernel: a pair of interfaces, addresses, a datagram to oneself. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <rump/netconfig.h>
#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>

static void
say(const char *what, int error)
{
	printf("%s: %s\n", what, error == 0 ? "ok" : rump_strerror(error));
}

int
main(void)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(7777),
	};
	char buf[16];
	ssize_t n;
	int in, out;

	if (rump_init() != 0)
		errx(1, "rump_init");
	say("ifcreate veth0", rump_pub_netconfig_ifcreate("veth0,peer=veth1"));
	say("ifcreate again", rump_pub_netconfig_ifcreate("veth0"));
	say("address", rump_pub_netconfig_ipv4_ifaddr("veth0", "10.9.8.7", "255.255.255.0"));
	say("no mask", rump_pub_netconfig_ipv4_ifaddr("veth0", "10.9.8.7", "255.0.255.0"));
	say("ipv6", rump_pub_netconfig_ipv6_ifaddr("veth0", "fd00::7", 64));
	say("ifup lo", rump_pub_netconfig_ifup("lo"));
	say("ifup veth0", rump_pub_netconfig_ifup("veth0"));
	say("router", rump_pub_netconfig_ipv4_gw("10.9.8.1"));
	say("router on no link", rump_pub_netconfig_ipv4_gw("172.16.0.1"));
	say("ifup wifi0", rump_pub_netconfig_ifup("wifi0"));

	say("ifcreate bridge0", rump_pub_netconfig_ifcreate("bridge0"));
	say("bradd", rump_pub_netconfig_bradd("bridge0", "veth1"));
	say("bradd again", rump_pub_netconfig_bradd("bridge0", "veth1"));
	say("bradd to no bridge", rump_pub_netconfig_bradd("veth0", "veth1"));
	say("brdel", rump_pub_netconfig_brdel("bridge0", "veth1"));
	say("brdel again", rump_pub_netconfig_brdel("bridge0", "veth1"));

	say("ifcreate shmif0", rump_pub_netconfig_ifcreate("shmif0"));
	say("ifcreate again", rump_pub_netconfig_ifcreate("shmif0"));
	say("ifup before it is on a bus", rump_pub_netconfig_ifup("shmif0"));
	say("on no bus", rump_pub_netconfig_ifsetlinkstr("shmif0", "nowhere/bus"));
	say("on a bus", rump_pub_netconfig_ifsetlinkstr("shmif0", "bus"));
	say("on another", rump_pub_netconfig_ifsetlinkstr("shmif0", "bus2"));
	say("ifup shmif0", rump_pub_netconfig_ifup("shmif0"));
	say("ifdestroy shmif0", rump_pub_netconfig_ifdestroy("shmif0"));
	say("linkstr of none", rump_pub_netconfig_ifsetlinkstr("shmif7", "bus"));
	say("linkstr of lo", rump_pub_netconfig_ifsetlinkstr("lo", "bus"));

	inet_pton(AF_INET, "10.9.8.7", &to.sin_addr);
	in = rump_sys_socket(AF_INET, SOCK_DGRAM, 0);
	out = rump_sys_socket(AF_INET, SOCK_DGRAM, 0);
	if (rump_sys_bind(in, (struct sockaddr *)&to, sizeof(to)) == -1)
		err(1, "bind");
	if (rump_sys_sendto(out, "hello", 5, 0, (struct sockaddr *)&to, sizeof(to)) != 5)
		err(1, "sendto");
	if ((n = rump_sys_recvfrom(in, buf, sizeof(buf), 0, NULL, NULL)) == -1)
		err(1, "recvfrom");
	printf("received: %.*s\n", (int)n, buf);
	say("ifdown veth0", rump_pub_netconfig_ifdown("veth0"));
	say("ifdestroy veth0", rump_pub_netconfig_ifdestroy("veth0"));
	rump_sys_reboot(0, NULL);
	return 0;
}

/* Interfaces, addresses and routes of a rump kernel. Every function returns 0 or an error number. */
#ifndef RUMP_NETCONFIG_H
#define RUMP_NETCONFIG_H

#ifdef __cplusplus
extern "C" {
#endif

/* The kind is what stands before the number; parameters follow a comma: "virt0,tap=tap7". */
int rump_pub_netconfig_ifcreate(const char *);
int rump_pub_netconfig_ifup(const char *);
int rump_pub_netconfig_ifdown(const char *);
int rump_pub_netconfig_ifdestroy(const char *);

/* What an interface is on that was made by its name alone: a bus's file for "shmif0", a tap device for "virt0". */
int rump_pub_netconfig_ifsetlinkstr(const char *, const char *);

/* Bridge, and the interface that is to be its port. */
int rump_pub_netconfig_bradd(const char *, const char *);
int rump_pub_netconfig_brdel(const char *, const char *);

/* Interface, address, and mask or length of the prefix. */
int rump_pub_netconfig_ipv4_ifaddr(const char *, const char *, const char *);
int rump_pub_netconfig_ipv4_ifaddr_cidr(const char *, const char *, int);
int rump_pub_netconfig_ipv6_ifaddr(const char *, const char *, int);

/* The router by which everything else goes. */
int rump_pub_netconfig_ipv4_gw(const char *);
int rump_pub_netconfig_ipv6_gw(const char *);

int rump_pub_netconfig_dhcp_ipv4_oneshot(const char *);
int rump_pub_netconfig_auto_ipv6(const char *);

#ifdef __cplusplus
}
#endif

#endif

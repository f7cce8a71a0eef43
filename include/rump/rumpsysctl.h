/*
 * Numbers for rump_sys___sysctl(), those that the kernel has, as NetBSD has them.
 */
#ifndef _RUMP_RUMPSYSCTL_H_
#define _RUMP_RUMPSYSCTL_H_

#define CTL_KERN	1
#define CTL_HW		6

#define KERN_OSTYPE	1	/* string */
#define KERN_OSRELEASE	2	/* string */
#define KERN_VERSION	4	/* string */
#define KERN_MAXFILES	7	/* int */
#define KERN_HOSTNAME	10	/* string, may be written */

#define HW_MACHINE	1	/* string */
#define HW_NCPU		3	/* int */

#endif /* _RUMP_RUMPSYSCTL_H_ */

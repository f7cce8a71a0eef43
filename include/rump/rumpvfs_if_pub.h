/*
 * The vfs, from outside. Included by <rump/rump.h>. docs/librump.md has what is left out, and why.
 */
#ifndef _RUMP_RUMPVFS_IF_PUB_H_
#define _RUMP_RUMPVFS_IF_PUB_H_

#include <rump/rumpdefs.h>

#endif /* _RUMP_RUMPVFS_IF_PUB_H_ */

/*
 * Errors. The numbers are the host's.
 */
#ifndef _RUMP_RUMPERR_H_
#define _RUMP_RUMPERR_H_

#ifdef __cplusplus
extern "C" {
#endif

/* The text of an error number. */
const char *rump_strerror(int);

/* A number of the kernel as one of the host: the same. */
#define rump_errno2host(e) (e)

#ifdef __cplusplus
}
#endif

#endif /* _RUMP_RUMPERR_H_ */

/*
 * What rump_sys_kevent() takes and gives: NetBSD's <sys/event.h>.
 */
#ifndef _RUMP_RUMPEVENT_H_
#define _RUMP_RUMPEVENT_H_

#include <stddef.h>
#include <stdint.h>

#define EVFILT_READ	0U
#define EVFILT_WRITE	1U
#define EVFILT_AIO	2U	/* refused */
#define EVFILT_VNODE	3U
#define EVFILT_PROC	4U
#define EVFILT_SIGNAL	5U
#define EVFILT_TIMER	6U
#define EVFILT_FS	7U	/* refused */
#define EVFILT_USER	8U
#define EVFILT_SYSCOUNT	9U

struct kevent {
	uintptr_t ident;
	uint32_t filter;
	uint32_t flags;
	uint32_t fflags;
	int64_t data;
	void *udata;
};

#ifdef __cplusplus
#define _RUMP_UDATA(x)	((void *)(x))
#else
#define _RUMP_UDATA(x)	((void *)(intptr_t)(x))
#endif

#define EV_SET(kevp, a, b, c, d, e, f)					\
do {									\
	struct kevent *_kevp = (kevp);					\
	_kevp->ident = (uintptr_t)(a);					\
	_kevp->filter = (b);						\
	_kevp->flags = (c);						\
	_kevp->fflags = (d);						\
	_kevp->data = (e);						\
	_kevp->udata = _RUMP_UDATA(f);					\
} while (0)

/* What to do. */
#define EV_ADD		0x0001U
#define EV_DELETE	0x0002U
#define EV_ENABLE	0x0004U
#define EV_DISABLE	0x0008U
/* How. */
#define EV_ONESHOT	0x0010U
#define EV_CLEAR	0x0020U
#define EV_RECEIPT	0x0040U
#define EV_DISPATCH	0x0080U
/* What came back. */
#define EV_SYSFLAGS	0xf000U
#define EV_EOF		0x8000U
#define EV_ERROR	0x4000U

/* EVFILT_READ, EVFILT_WRITE */
#define NOTE_LOWAT	0x0001U

/* EVFILT_VNODE */
#define NOTE_DELETE	0x0001U
#define NOTE_WRITE	0x0002U
#define NOTE_EXTEND	0x0004U
#define NOTE_ATTRIB	0x0008U
#define NOTE_LINK	0x0010U
#define NOTE_RENAME	0x0020U
#define NOTE_REVOKE	0x0040U	/* never comes */
#define NOTE_OPEN	0x0080U
#define NOTE_CLOSE	0x0100U
#define NOTE_CLOSE_WRITE 0x0200U
#define NOTE_READ	0x0400U

/* EVFILT_PROC */
#define NOTE_EXIT	0x80000000U
#define NOTE_FORK	0x40000000U
#define NOTE_EXEC	0x20000000U
#define NOTE_TRACK	0x00000001U	/* refused */

/* EVFILT_TIMER: the unit of data, milliseconds unless told otherwise. */
#define NOTE_MSECONDS	0x00000000U
#define NOTE_SECONDS	0x00000001U
#define NOTE_USECONDS	0x00000002U
#define NOTE_NSECONDS	0x00000003U
#define NOTE_ABSTIME	0x00000010U

/* EVFILT_USER */
#define NOTE_FFNOP	0x00000000U
#define NOTE_FFAND	0x40000000U
#define NOTE_FFOR	0x80000000U
#define NOTE_FFCOPY	0xc0000000U
#define NOTE_FFCTRLMASK	0xc0000000U
#define NOTE_FFLAGSMASK	0x00ffffffU
#define NOTE_TRIGGER	0x01000000U

#endif /* _RUMP_RUMPEVENT_H_ */

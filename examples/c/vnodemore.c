/* More of vnodes: credentials, locks, extended attributes, handles; and the types of file systems. */
#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>
#include <rump/rumpmount.h>
#include <rump/rumpvnode_if.h>

static struct vnode *file;
static pthread_mutex_t looked = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int has_looked;

static const char *
text(int error)
{
	return rump_strerror(error);
}

static void *
other_thread(void *arg)
{
	(void)arg;
	printf("other: locked %#x", RUMP_VOP_ISLOCKED(file));
	printf(", now: %s\n", text(RUMP_VOP_LOCK(file, RUMP_LK_SHARED | RUMP_LK_NOWAIT)));
	pthread_mutex_lock(&looked);
	has_looked = 1;
	pthread_cond_signal(&change);
	pthread_mutex_unlock(&looked);
	/* Waits until the first thread gives it back. */
	printf("other: %s\n", text(RUMP_VOP_LOCK(file, RUMP_LK_EXCLUSIVE)));
	RUMP_VOP_UNLOCK(file);
	return NULL;
}

int
main(void)
{
	struct tmpfs_args args = { .ta_version = TMPFS_ARGS_VERSION, .ta_root_mode = 0755 };
	struct vnode *root, *vp, *again;
	struct componentname *cn;
	struct vattr *va, got;
	struct mount *mp, *top;
	kauth_cred_t cred;
	pthread_t thread;
	struct uio *uio;
	char buf[32] = "";
	size_t size;
	long limit;

	if (rump_init() != 0)
		errx(1, "rump_init");
	rump_sys_mkdir("/mnt", 0755);
	if (rump_sys_mount(MOUNT_TMPFS, "/mnt", 0, &args, sizeof(args)) == -1)
		err(1, "mount");
	rump_pub_vfs_getmp("/mnt", &mp);
	rump_pub_vfs_root(mp, &root, 1);
	printf("root comes locked: %s\n", RUMP_VOP_ISLOCKED(root) == RUMP_LK_EXCLUSIVE ? "yes" : "no");
	RUMP_VOP_UNLOCK(root);

	/* Somebody who is not the superuser. */
	cred = rump_pub_cred_create(10, 20, 0, NULL);
	va = rump_pub_vattr_init();
	rump_pub_vattr_settype(va, VREG);
	rump_pub_vattr_setmode(va, 0640);
	cn = rump_pub_makecn(RUMP_NAMEI_CREATE, 0, "file", 4, cred, NULL);
	printf("create as 10: %s\n", text(RUMP_VOP_CREATE(root, &vp, cn, va)));
	rump_sys_chmod("/mnt", 0777);
	printf("create as 10: %s\n", text(RUMP_VOP_CREATE(root, &vp, cn, va)));
	rump_pub_freecn(cn, RUMPCN_FREECRED);
	rump_pub_vattr_free(va);
	RUMP_VOP_GETATTR(vp, &got, NULL);
	printf("owner %d:%d\n", got.va_uid, got.va_gid);
	printf("the thread is still %d\n", rump_sys_geteuid());

	cred = rump_pub_cred_create(11, 21, 0, NULL);
	printf("access as 11: %s", text(RUMP_VOP_ACCESS(vp, RUMP_VREAD, cred)));
	printf(", as the thread: %s\n", text(RUMP_VOP_ACCESS(vp, RUMP_VREAD | RUMP_VWRITE, NULL)));
	printf("open as 11: %s\n", text(RUMP_VOP_OPEN(vp, RUMP_FREAD, cred)));
	va = rump_pub_vattr_init();
	va->va_mode = 0644;
	printf("chmod as 11: %s", text(RUMP_VOP_SETATTR(vp, va, cred)));
	printf(", as the thread: %s\n", text(RUMP_VOP_SETATTR(vp, va, NOCRED)));
	printf("open as 11: %s", text(RUMP_VOP_OPEN(vp, RUMP_FREAD, cred)));
	printf(", to write: %s\n", text(RUMP_VOP_OPEN(vp, RUMP_FWRITE, cred)));
	rump_pub_vattr_free(va);

	uio = rump_pub_uio_setup((char[]){ "blue" }, 4, 0, RUMPUIO_WRITE);
	printf("setextattr as 11: %s", text(RUMP_VOP_SETEXTATTR(vp, RUMP_EXTATTR_NAMESPACE_USER, "colour", uio, cred)));
	printf(", as the thread: %s\n", text(RUMP_VOP_SETEXTATTR(vp, RUMP_EXTATTR_NAMESPACE_USER, "colour", uio, NULL)));
	rump_pub_uio_free(uio);
	uio = rump_pub_uio_setup(buf, sizeof(buf), 0, RUMPUIO_READ);
	printf("getextattr as 11: %s", text(RUMP_VOP_GETEXTATTR(vp, RUMP_EXTATTR_NAMESPACE_USER, "colour", uio, &size, cred)));
	printf(", %zu bytes: %s\n", size, buf);
	rump_pub_uio_free(uio);
	printf("deleteextattr: %s\n", text(RUMP_VOP_DELETEEXTATTR(vp, RUMP_EXTATTR_NAMESPACE_USER, "colour", NULL)));
	printf("deleteextattr: %s\n", text(RUMP_VOP_DELETEEXTATTR(vp, RUMP_EXTATTR_NAMESPACE_USER, "colour", NULL)));
	rump_pub_cred_put(cred);

	printf("fallocate: %s", text(RUMP_VOP_FALLOCATE(vp, 0, 10000)));
	printf(", fdiscard: %s\n", text(RUMP_VOP_FDISCARD(vp, 0, 4096)));
	printf("seek: %s", text(RUMP_VOP_SEEK(vp, 0, 5, NULL)));
	printf(", before the start: %s\n", text(RUMP_VOP_SEEK(vp, 0, -5, NULL)));
	printf("pathconf: %s", text(RUMP_VOP_PATHCONF(vp, _PC_NAME_MAX, &limit)));
	printf(", %ld\n", limit);
	printf("close: %s\n", text(RUMP_VOP_CLOSE(vp, 0, NULL)));

	/* Two vnodes of one file have one lock. */
	rump_pub_namei(RUMP_NAMEI_LOOKUP, RUMP_NAMEI_LOCKLEAF, "/mnt/file", NULL, &again, NULL);
	printf("locked: %#x\n", RUMP_VOP_ISLOCKED(vp));
	printf("again: %s\n", text(RUMP_VOP_LOCK(vp, RUMP_LK_EXCLUSIVE)));
	file = vp;
	pthread_create(&thread, NULL, other_thread, NULL);
	/* It has looked, and is about to wait. */
	pthread_mutex_lock(&looked);
	while (!has_looked)
		pthread_cond_wait(&change, &looked);
	pthread_mutex_unlock(&looked);
	RUMP_VOP_UNLOCK(again);
	pthread_join(thread, NULL);
	printf("locked: %#x\n", RUMP_VOP_ISLOCKED(vp));
	rump_pub_vp_rele(again);

	/* A handle. */
	union {
		char bytes[RUMP_FID_SIZE];
		long aligned;
	} fid;
	size = 4;
	printf("vptofh: %s", text(rump_pub_vfs_vptofh(vp, (struct fid *)&fid, &size)));
	printf(", wants %zu\n", size);
	printf("vptofh: %s\n", text(rump_pub_vfs_vptofh(vp, (struct fid *)&fid, &size)));
	rump_pub_vp_rele(vp);
	printf("fhtovp: %s", text(rump_pub_vfs_fhtovp(mp, (struct fid *)&fid, &vp)));
	RUMP_VOP_GETATTR(vp, &got, NULL);
	printf(", %lld bytes\n", (long long)got.va_size);
	rump_pub_vp_rele(vp);
	rump_pub_vfs_getmp("/", &top);
	printf("of another mount: %s\n", text(rump_pub_vfs_fhtovp(top, (struct fid *)&fid, &vp)));
	rump_sys_unlink("/mnt/file");
	printf("gone: %s\n", text(rump_pub_vfs_fhtovp(mp, (struct fid *)&fid, &vp)));

	int tmpfs = 0;
	for (struct vfsops *ops = rump_pub_vfslist_iterate(NULL); ops != NULL; ops = rump_pub_vfslist_iterate(ops))
		tmpfs += strcmp(ops->vfs_name, MOUNT_TMPFS) == 0;
	printf("tmpfs in the list: %d, by name: %s\n", tmpfs, rump_pub_vfs_getopsbyname(MOUNT_TMPFS)->vfs_name);
	printf("nofs: %s\n", rump_pub_vfs_getopsbyname("nofs") == NULL ? "none" : "?");
	printf("extattrctl: %s\n", text(rump_pub_vfs_extattrctl(mp, 0, NULL, 0, NULL)));
	rump_pub_vfs_mount_print("/mnt", 1);
	rump_pub_vp_rele(root);
	printf("unmount: %s\n", text(rump_pub_vfs_unmount(mp, 0)));
	return 0;
}

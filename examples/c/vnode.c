/* Files as vnodes. */
#include <sys/statvfs.h>

#include <dirent.h>
#include <err.h>
#include <stdio.h>
#include <string.h>

#include <rump/rump.h>
#include <rump/rump_syscalls.h>
#include <rump/rumperr.h>
#include <rump/rumpmount.h>
#include <rump/rumpvnode_if.h>

static const char *
text(int error)
{
	return rump_strerror(error);
}

int
main(void)
{
	struct tmpfs_args args = { .ta_version = TMPFS_ARGS_VERSION, .ta_root_mode = 0755 };
	struct vnode *root, *dvp, *vp, *dir, *other;
	struct componentname *cn, *to;
	struct vattr *va, got;
	struct statvfs vfs;
	struct mount *mp, *again;
	struct uio *uio;
	enum vtype type;
	char buf[1024];
	off_t size;
	dev_t dev;
	int eof;

	if (rump_init() != 0)
		errx(1, "rump_init");
	rump_sys_mkdir("/mnt", 0755);
	if (rump_sys_mount(MOUNT_TMPFS, "/mnt", 0, &args, sizeof(args)) == -1)
		err(1, "mount");

	printf("getmp: %s\n", text(rump_pub_vfs_getmp("/mnt", &mp)));
	rump_pub_vfs_getmp("/mnt/.", &again);
	printf("the same: %s\n", mp == again ? "yes" : "no");
	printf("statvfs: %s\n", text(rump_pub_vfs_statvfs(mp, &vfs)));
	printf("root: %s\n", text(rump_pub_vfs_root(mp, &root, 0)));

	/* A name that is to be made. */
	printf("missing: %s\n", text(rump_pub_namei(RUMP_NAMEI_LOOKUP, 0, "/mnt/file", NULL, &vp, NULL)));
	printf("to create: %s\n", text(rump_pub_namei(RUMP_NAMEI_CREATE, 0, "/mnt/file", &dvp, &vp, &cn)));
	printf("no vnode yet: %s\n", vp == NULL ? "yes" : "no");
	va = rump_pub_vattr_init();
	rump_pub_vattr_settype(va, VREG);
	rump_pub_vattr_setmode(va, 0640);
	printf("create: %s\n", text(RUMP_VOP_CREATE(dvp, &vp, cn, va)));
	printf("again: %s\n", text(RUMP_VOP_CREATE(dvp, &other, cn, va)));
	rump_pub_vattr_free(va);

	memcpy(buf, "by vnode", 8);
	uio = rump_pub_uio_setup(buf, 8, 2, RUMPUIO_WRITE);
	printf("write: %s", text(RUMP_VOP_WRITE(vp, uio, 0, NULL)));
	printf(", at %lld", (long long)rump_pub_uio_getoff(uio));
	printf(", wrong way: %s\n", text(RUMP_VOP_READ(vp, uio, 0, NULL)));
	rump_pub_uio_free(uio);
	uio = rump_pub_uio_setup(buf, sizeof(buf), 5, RUMPUIO_READ);
	printf("read: %s", text(RUMP_VOP_READ(vp, uio, 0, NULL)));
	size = sizeof(buf) - rump_pub_uio_free(uio);
	printf(", %.*s\n", (int)size, buf);
	printf("fsync: %s\n", text(RUMP_VOP_FSYNC(vp, NULL, 0, 0, 0)));

	rump_pub_getvninfo(vp, &type, &size, &dev);
	printf("info: regular %s, %lld bytes\n", type == VREG ? "yes" : "no", (long long)size);
	va = rump_pub_vattr_init();
	va->va_size = 4;
	va->va_uid = 17;
	va->va_mtime = (struct timespec){ 99, 98 };
	printf("setattr: %s\n", text(RUMP_VOP_SETATTR(vp, va, NULL)));
	rump_pub_vattr_free(va);
	printf("getattr: %s", text(RUMP_VOP_GETATTR(vp, &got, NULL)));
	printf(", mode %o, owner %d:%d, %d bytes, changed %ld.%09ld\n", got.va_mode, got.va_uid, got.va_gid,
	    (int)got.va_size, (long)got.va_mtime.tv_sec, got.va_mtime.tv_nsec);

	to = rump_pub_makecn(RUMP_NAMEI_CREATE, 0, "directory!", 9, NULL, NULL);
	va = rump_pub_vattr_init();
	rump_pub_vattr_setmode(va, 0700);
	printf("mkdir: %s\n", text(RUMP_VOP_MKDIR(root, &dir, to, va)));
	rump_pub_freecn(to, 0);
	to = rump_pub_makecn(RUMP_NAMEI_CREATE, 0, "link", 4, NULL, NULL);
	printf("symlink: %s\n", text(RUMP_VOP_SYMLINK(root, &other, to, va, "file")));
	uio = rump_pub_uio_setup(buf, sizeof(buf), 0, RUMPUIO_READ);
	printf("readlink: %s", text(RUMP_VOP_READLINK(other, uio, NULL)));
	size = sizeof(buf) - rump_pub_uio_free(uio);
	printf(", %.*s\n", (int)size, buf);
	rump_pub_vp_rele(other);
	printf("rename: %s\n", text(RUMP_VOP_RENAME(root, NULL, to, dir, NULL, to)));
	printf("link: %s\n", text(RUMP_VOP_LINK(dir, vp, cn)));
	printf("mkfifo without a type: %s\n", text(RUMP_VOP_MKNOD(dir, &other, cn, va)));
	rump_pub_vattr_settype(va, VFIFO);
	rump_pub_freecn(to, 0);
	to = rump_pub_makecn(RUMP_NAMEI_CREATE, 0, "fifo", 4, NULL, NULL);
	printf("mkfifo: %s\n", text(RUMP_VOP_MKNOD(dir, &other, to, va)));
	printf("read of a fifo: %s\n", text(RUMP_VOP_FSYNC(other, NULL, 0, 0, 0)));
	rump_pub_vp_rele(other);
	rump_pub_vattr_free(va);

	uio = rump_pub_uio_setup(buf, sizeof(buf), 0, RUMPUIO_READ);
	printf("readdir: %s\n", text(RUMP_VOP_READDIR(dir, uio, NULL, &eof, NULL, NULL)));
	size = sizeof(buf) - rump_pub_uio_getresid(uio);
	for (char *p = buf; p < buf + size; p += ((struct dirent *)p)->d_reclen)
		if (((struct dirent *)p)->d_name[0] != '.')
			printf("  %s\n", ((struct dirent *)p)->d_name);
	RUMP_VOP_READDIR(dir, uio, NULL, &eof, NULL, NULL);
	printf("at the end: %s\n", eof ? "yes" : "no");
	rump_pub_uio_free(uio);

	printf("lookup: %s\n", text(RUMP_VOP_LOOKUP(dir, &other, cn)));
	rump_pub_vp_incref(other);
	printf("references: %d\n", rump_pub_vp_getref(other));
	rump_pub_vp_rele(other);
	printf("rmdir of a file: %s\n", text(RUMP_VOP_RMDIR(dir, other, cn)));
	printf("remove: %s\n", text(RUMP_VOP_REMOVE(dir, other, cn)));
	printf("remove: %s\n", text(RUMP_VOP_REMOVE(dir, other, cn)));
	rump_pub_vp_rele(other);

	printf("sync: %s\n", text(rump_pub_vfs_sync(mp, 1, NULL)));
	printf("unmount with vnodes: %s\n", text(rump_pub_vfs_unmount(mp, 0)));
	rump_pub_freecn(to, 0);
	rump_pub_freecn(cn, 0);
	rump_pub_vp_rele(dir);
	rump_pub_vp_rele(vp);
	rump_pub_vp_rele(dvp);
	rump_pub_vp_rele(root);
	printf("unmount: %s\n", text(rump_pub_vfs_unmount(mp, 0)));
	printf("after it: %s\n", text(rump_pub_vfs_root(mp, &root, 0)));
	return 0;
}

//! The body of the fuzz target `ext4_mount_walk`.

use std::sync::Arc;

use abi::{Errno, MS_RDONLY};
use hypercall::{Host, PosixHost};
use kern::{Curlwp, Kernel, KernelMemory};
use vfs::{BlockDev, MountArgs, NewNode, Vnode, VnodeKind};

use crate::mount::mount_device;

/// The most names that are looked at.
const MOST: usize = 500;

/// Mounts an image, whatever it is, read-only and then to be written, walks over it, reads files and links, and makes
/// and removes a file. Nothing of that may panic or go on for ever.
pub fn fuzz_mount_and_walk(image: &[u8]) {
    let host: Arc<dyn Host> = PosixHost::new();
    let kernel = Kernel::builder(host.clone())
        .component(&vfs::VFS)
        .config(|config| {
            config.threads = false;
            config.verbose = false;
        })
        .boot();
    let Ok(kernel) = kernel else {
        return;
    };
    for flags in [MS_RDONLY, 0] {
        // The second time with what the first has left, which should be the same.
        let _ = kernel.implicit(&KernelMemory, |cx| mount_and_walk(cx, &*host, image, flags));
    }
    let log = String::from_utf8_lossy(&kernel.messages()).into_owned();
    assert!(!log.contains("broke down"), "{log}");
}

fn mount_and_walk(cx: &Curlwp<'_>, host: &dyn Host, image: &[u8], flags: u64) -> Result<(), Errno> {
    let file = host.shared_memory("image", image.len() as u64)?;
    file.write_at(image, 0)?;
    let dev = Arc::new(BlockDev::new(file, 0, image.len() as u64, flags == 0));
    let args = MountArgs {
        source: b"image",
        device: None,
        flags,
        data: b"",
        dev: 1,
    };
    let mount = mount_device(cx, &args, dev)?;
    let root = mount.root()?.clone();
    walk(cx, &root);
    if flags == 0 {
        let _ = change(cx, &root);
    }
    let _ = mount.ops().sync(cx, &mount);
    let _ = mount.ops().unmount(cx, &mount);
    Ok(())
}

fn walk(cx: &Curlwp<'_>, root: &Arc<Vnode>) {
    let mut dirs = vec![root.clone()];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        let mut names = Vec::new();
        let _ = dir.ops().readdir(cx, &dir, 0, &mut |entry| {
            names.push(entry.name.to_vec());
            names.len() < MOST
        });
        for name in names {
            seen += 1;
            if seen > MOST {
                return;
            }
            let Ok(Some(vp)) = dir.ops().lookup(cx, &dir, &name) else {
                continue;
            };
            match vp.kind {
                VnodeKind::Directory if name != b"." && name != b".." => dirs.push(vp),
                VnodeKind::Symlink => drop(vp.ops().readlink(cx, &vp)),
                VnodeKind::Regular => read(cx, &vp),
                _ => {}
            }
            let _ = dir.ops().listxattr(cx, &dir);
        }
    }
}

fn read(cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
    let mut page = [0; vfs::pages::PAGE_SIZE];
    let size = vp.attr(cx).size;
    for offset in [0, size / 2, size] {
        let offset = offset / page.len() as u64 * page.len() as u64;
        let _ = vp.ops().read_pages(cx, vp, offset, &mut [&mut page]);
    }
}

fn change(cx: &Curlwp<'_>, root: &Arc<Vnode>) -> Result<(), Errno> {
    let new = |kind| NewNode {
        kind,
        perm: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: b"somewhere",
    };
    root.ops()
        .create(cx, root, b"fuzz-dir", &new(VnodeKind::Directory))?;
    root.ops()
        .create(cx, root, b"fuzz-link", &new(VnodeKind::Symlink))?;
    let page = [7; vfs::pages::PAGE_SIZE];
    // So many that the last ones are made without rsext4.
    for i in 0..20 {
        let name = format!("fuzz-file{i}");
        let vp = root
            .ops()
            .create(cx, root, name.as_bytes(), &new(VnodeKind::Regular))?;
        vp.update(cx, |attr| attr.size = 5000);
        vp.ops().write_pages(cx, &vp, 0, &[&page, &page], 5000)?;
        vp.ops().write_attr(cx, &vp)?;
        let _ = root.ops().lookup(cx, root, b"fuzz-absent");
    }
    let vp = root
        .ops()
        .create(cx, root, b"fuzz-file", &new(VnodeKind::Regular))?;
    vp.ops().fsync(cx, &vp, false)?;
    root.ops().remove(cx, root, b"fuzz-file", &vp)?;
    vp.ops().inactive(cx, &vp)
}

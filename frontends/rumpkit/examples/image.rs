//! Lists a directory of an ext2, ext3 or ext4 image, without root and without the host mounting anything.
//!
//! `cargo run -p rumpkit --example image -- disk.img [DIR]`

use std::path::Path;

use rumpkit::{MountSpec, Process};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let image = args.next().ok_or("usage: image IMAGE [DIR]")?;
    let dir = args.next().unwrap_or_default();

    let kernel = rumpkit::builder().boot()?;
    let process = Process::new(&kernel)?;
    process.mount(&format!("ext4:{image}:/image:ro").parse::<MountSpec>()?)?;

    let dir = Path::new("/image").join(dir.trim_start_matches('/'));
    for name in process.read_dir(&dir)? {
        let name = String::from_utf8_lossy(&name).into_owned();
        let stat = process.metadata(dir.join(&name))?;
        println!("{:>12} {:06o} {name}", stat.st_size, stat.st_mode);
    }

    drop(process);
    kernel.shutdown(true)?;
    Ok(())
}

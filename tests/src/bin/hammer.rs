//! A program for the tests: threads that make, write, read back and remove files in a directory of their own, for ever or so many
//! times, and print a line every few rounds. Ends with status 1 when a file is not what it was written to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, name, threads, rounds] = &args[..] else {
        eprintln!("usage: hammer DIR NAME THREADS ROUNDS");
        return ExitCode::from(2);
    };
    let threads: usize = threads.parse().unwrap_or(1);
    let rounds: u64 = rounds.parse().unwrap_or(u64::MAX);
    let workers: Vec<_> = (0..threads)
        .map(|i| {
            let dir = Path::new(dir).join(format!("{name}.{i}"));
            thread::spawn(move || hammer(dir, rounds))
        })
        .collect();
    let mut status = ExitCode::SUCCESS;
    for worker in workers {
        if let Err(error) = worker.join().unwrap_or_else(|_| Err("panic".into())) {
            eprintln!("hammer {name}: {error}");
            status = ExitCode::FAILURE;
        }
    }
    status
}

fn hammer(dir: PathBuf, rounds: u64) -> Result<(), String> {
    let told = |what: &str, path: &Path| {
        let name = path.display().to_string();
        let what = what.to_owned();
        move |e: std::io::Error| format!("{what} {name}: {e}")
    };
    fs::create_dir(&dir).map_err(told("mkdir", &dir))?;
    for round in 0..rounds {
        let file = dir.join(format!("f{}", round % 8));
        let data = vec![round as u8; 100 + (round as usize * 977) % 9000];
        fs::write(&file, &data).map_err(told("write", &file))?;
        let back = fs::read(&file).map_err(told("read", &file))?;
        if back != data {
            return Err(format!(
                "{}: {} bytes are not those that were written",
                file.display(),
                back.len()
            ));
        }
        if round % 3 == 0 {
            fs::remove_file(&file).map_err(told("unlink", &file))?;
        }
        if round % 16 == 0 {
            println!("{round}");
        }
    }
    fs::remove_dir_all(&dir).map_err(told("remove", &dir))
}

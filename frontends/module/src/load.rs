//! Bringing a shared object into the process: finding it, and looking at its word before anything else.

use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use abi::Errno;
use kern::module::ModuleInfo;
use kern::{Kernel, KernelMemory};

use crate::Error;
use crate::raw::{ABI, ABI_SYMBOL, INFO_SYMBOL, RawInfo};
use crate::serve::{info_of, start};

/// The variable that names the directory in which modules are looked for; empty or `0` for none.
pub const MODULEBASE: &str = "RUMP_MODULEBASE";

/// A module that has been loaded. It stays in the process: nobody can say that nothing in it is used any more.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    said: ModuleInfo,
    info: &'static RawInfo,
}

impl Library {
    /// Loads a module by its path, or by a name that is looked for in `base`: `NAME`, `NAME.so`, `libNAME.so`. `ENOENT` when there is none,
    /// `ENOEXEC` for what is no module, `EPROTONOSUPPORT` for one that was built for another interface.
    pub fn open(name: &OsStr, base: Option<&Path>) -> Result<Library, Error> {
        let path = find(name, base)?;
        let wrong = |errno, why: String| Error::new(errno, format!("{}: {why}", path.display()));
        let file = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| wrong(Errno::EINVAL, "no path has a NUL".into()))?;
        // A symbol that is missing says less than the word, so that is looked at all the same.
        let missing = dlopen(&file, libc::RTLD_NOW).err();
        let cannot = |why| wrong(Errno::ENOEXEC, format!("cannot be loaded: {why}"));
        let handle = dlopen(&file, libc::RTLD_LAZY).map_err(cannot)?;
        let Some(abi) = symbol::<u64>(handle, ABI_SYMBOL) else {
            let why = "is no module of a rump kernel: it has no rump_module_abi; see module! and RUMP_MODULE";
            return Err(wrong(Errno::ENOEXEC, why.into()));
        };
        // SAFETY: a module's word is eight bytes, whatever else it is.
        let abi = unsafe { abi.read_unaligned() };
        if abi != ABI {
            let why = format!(
                "was built for {}, this is {}; build it again with this one's headers or crate",
                Interface(abi),
                Interface(ABI)
            );
            return Err(wrong(Errno::EPROTONOSUPPORT, why));
        }
        if let Some(why) = missing {
            return Err(cannot(why));
        }
        let info = symbol::<*const RawInfo>(handle, INFO_SYMBOL)
            // SAFETY: with the right word, this is a pointer to the module's information, which stays with the module.
            .and_then(|at| unsafe { (*at).as_ref::<'static>() })
            .ok_or_else(|| wrong(Errno::ENOEXEC, "has no rump_module_info".into()))?;
        // SAFETY: as above.
        let said = unsafe { info_of(info) }?;
        Ok(Library { path, said, info })
    }

    /// What it says of itself.
    pub fn info(&self) -> &ModuleInfo {
        &self.said
    }

    /// Starts it in a kernel; see [`start`].
    pub fn start(&self, cx: &kern::Curlwp<'_>) -> Result<(), Error> {
        // SAFETY: a loaded module stays, and with the right word it is of this interface; that it keeps to it is what whoever has it
        // loaded vouches for.
        let started = unsafe { start(cx, self.info) };
        started.map(drop).map_err(|error| Error {
            text: format!("{}: {error}", self.path.display()),
            ..error
        })
    }
}

/// The form of an interface, for a person.
struct Interface(u64);

impl std::fmt::Display for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (version, revision) = (self.0 >> 16, self.0 & 0xffff);
        let (major, minor, patch) = (
            version / 100_000_000,
            version / 1_000_000 % 100,
            version / 100 % 10_000,
        );
        write!(
            f,
            "rumpkit {major}.{minor}.{patch} (module interface {revision})"
        )
    }
}

/// Loads and starts a module, and before it those that it requires and that are found in `RUMP_MODULEBASE`.
pub fn load(kernel: &Arc<Kernel>, name: &OsStr) -> Result<(), Error> {
    let base = base(kernel);
    let library = Library::open(name, base.as_deref())?;
    with_required(kernel, &library, base.as_deref(), &mut Vec::new())
}

fn with_required(
    kernel: &Arc<Kernel>,
    library: &Library,
    base: Option<&Path>,
    wanted_by: &mut Vec<String>,
) -> Result<(), Error> {
    wanted_by.push(library.said.name.clone());
    for required in &library.said.requires {
        let started = kernel.implicit(&KernelMemory, |cx| kernel.module_list(cx));
        // What is not found, or comes back to itself, is told by the start below.
        if started.iter().all(|m| m.name != *required)
            && !wanted_by.contains(required)
            && base.is_some()
            && let Ok(library) = Library::open(OsStr::new(required), base)
        {
            with_required(kernel, &library, base, wanted_by)?;
        }
    }
    wanted_by.pop();
    kernel.implicit(&KernelMemory, |cx| library.start(cx))
}

/// The directory in which a kernel's modules are looked for.
fn base(kernel: &Kernel) -> Option<PathBuf> {
    let base = kernel.host().param(MODULEBASE)?;
    (!base.is_empty() && base != "0").then(|| base.into())
}

/// Puts modules into an order in which each comes after those that it requires. What requires something that is not among them stays
/// where it is; its start tells.
pub fn in_order(mut libraries: Vec<Library>) -> Vec<Library> {
    let mut sorted: Vec<Library> = Vec::with_capacity(libraries.len());
    while !libraries.is_empty() {
        let is_free = |library: &Library| {
            let waits = |name: &String| libraries.iter().any(|l| l.said.name == *name);
            !library.said.requires.iter().any(waits)
        };
        let at = libraries.iter().position(is_free).unwrap_or(0);
        sorted.push(libraries.remove(at));
    }
    sorted
}

fn find(name: &OsStr, base: Option<&Path>) -> Result<PathBuf, Error> {
    let own = Path::new(name);
    // The loader takes a name without a slash for one of its own libraries.
    let here = Path::new(".").join(own);
    let with = |dir: &Path, head: &str, tail: &str| {
        let mut file = std::ffi::OsString::from(head);
        file.push(name);
        file.push(tail);
        dir.join(file)
    };
    let mut places = vec![if own.is_absolute() {
        own.to_owned()
    } else {
        here
    }];
    if let Some(dir) = base.filter(|_| !name.as_bytes().contains(&b'/')) {
        // What the user has named as the place comes first.
        let found = [
            with(dir, "", ""),
            with(dir, "", ".so"),
            with(dir, "lib", ".so"),
        ];
        places.splice(0..0, found);
    }
    let found = places.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        let text = match base {
            Some(dir) => format!("{}: no such module, nor in {}", own.display(), dir.display()),
            None => format!(
                "{}: no such module; give its path, or set {MODULEBASE} to the directory that has it",
                own.display()
            ),
        };
        Error::new(Errno::ENOENT, text)
    })
}

fn dlopen(file: &CStr, binding: c_int) -> Result<*mut c_void, String> {
    // SAFETY: a string; the object's constructors run, as whoever names it wants. The message is the thread's own.
    unsafe {
        let handle = libc::dlopen(
            file.as_ptr(),
            binding | libc::RTLD_LOCAL | libc::RTLD_NODELETE,
        );
        if handle.is_null() {
            let why = libc::dlerror();
            return Err(if why.is_null() {
                "the loader does not say why".to_owned()
            } else {
                CStr::from_ptr(why).to_string_lossy().into_owned()
            });
        }
        Ok(handle)
    }
}

fn symbol<T>(handle: *mut c_void, name: &CStr) -> Option<*const T> {
    // SAFETY: a handle of `dlopen`, which is never closed, and a string.
    let at = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!at.is_null()).then(|| at.cast_const().cast())
}

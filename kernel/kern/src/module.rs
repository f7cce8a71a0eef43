//! Modules, module(9): parts of a kernel that come after its boot and may go again.
//!
//! Boot's list of components is closed when the kernel runs. A module comes later and by its own path: [`Kernel::module_init`] runs its
//! code with a [`Module`] in hand, through which it registers what it offers. All of that is taken back when the module ends, and when
//! it does not start. Factions offer more things to register in the same way, by [`Module::gate`] and [`Module::at_fini`].
//!
//! How the code came into the process is not the kernel's affair; a frontend loads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, SysResult};
use sync::{Mutex, RwLock};

use crate::boot::Phase;
use crate::sysctl::{Kind, Node, SetNode, Value};
use crate::{Curlwp, Kernel};

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Its name, unique among the modules that have started.
    pub name: String,
    /// Names of modules that must have started before, and stay as long as it does.
    pub requires: Vec<String>,
}

/// The code of a module.
pub trait ModuleCode: Send + Sync {
    /// Starts it: registers what it offers.
    fn init(&self, cx: &Curlwp<'_>, module: &Arc<Module>) -> Result<(), Errno>;

    /// Ends it. What it has registered is out of reach already; an error lets it go on as if nothing had happened.
    fn fini(&self, cx: &Curlwp<'_>, module: &Arc<Module>) -> Result<(), Errno>;
}

/// Takes something back that a module has registered.
type Undo = Box<dyn FnOnce(&Curlwp<'_>) + Send>;

/// A module of a kernel. `undo` is a leaf.
pub struct Module {
    info: ModuleInfo,
    code: Box<dyn ModuleCode>,
    gate: Arc<Gate>,
    undo: Mutex<Vec<Undo>>,
}

/// The way into a module's code: open while the module may be used, and it can be closed only while nobody is inside.
#[derive(Debug, Default)]
pub struct Gate {
    /// How many are inside, or [`CLOSED`].
    inside: AtomicU32,
}

const CLOSED: u32 = 1 << 31;

/// Somebody is inside.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// Enters. `ENXIO` when the module is going or gone.
    pub fn enter(self: &Arc<Self>) -> Result<Pass, Errno> {
        let more = |n: u32| (n < CLOSED - 1).then_some(n + 1);
        self.inside
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .map_err(|_| Errno::ENXIO)?;
        Ok(Pass(self.clone()))
    }

    fn try_close(&self) -> bool {
        let alone = self
            .inside
            .compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed);
        alone.is_ok()
    }

    fn open(&self) {
        self.inside.store(0, Ordering::Release);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Release);
    }
}

impl Module {
    /// What it says of itself.
    pub fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// To be entered by whatever calls the module's code, and stayed in as long as the code may run. A module that somebody is in does
    /// not end.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Has `undo` called when the module has ended or has not started, the last one first.
    pub fn at_fini(&self, cx: &Curlwp<'_>, undo: impl FnOnce(&Curlwp<'_>) + Send + 'static) {
        self.undo.lock(cx.cpu()).push(Box::new(undo));
    }

    /// Adds a node to the sysctl tree, one that can be set if there is a `write`. `EEXIST`.
    pub fn sysctl(
        &self,
        cx: &Curlwp<'_>,
        name: &str,
        kind: Kind,
        read: impl Fn(&Curlwp<'_>) -> Result<Value, Errno> + Send + Sync + 'static,
        write: Option<SetNode>,
    ) -> Result<(), Errno> {
        let gate = self.gate.clone();
        let mut node = Node::new(kind, move |cx| {
            let _pass = gate.enter()?;
            read(cx)
        });
        if let Some(write) = write {
            let gate = self.gate.clone();
            node = node.writable(move |cx, value| {
                let _pass = gate.enter()?;
                write(cx, value)
            });
        }
        cx.kernel().sysctl().add(cx, name, node)?;
        let name = name.to_owned();
        self.at_fini(cx, move |cx| cx.kernel().sysctl().remove(cx, &name));
        Ok(())
    }

    /// Adds a system call. `EBUSY` for a number that is served already.
    pub fn syscall(
        &self,
        cx: &Curlwp<'_>,
        nr: u32,
        handler: impl Fn(&Curlwp<'_>, &[u64; 6]) -> SysResult + Send + Sync + 'static,
    ) -> Result<(), Errno> {
        if cx.kernel().sysent().get(nr).is_some() {
            return Err(Errno::EBUSY);
        }
        let gate = self.gate.clone();
        let call: LateCall = Arc::new(move |cx, args| {
            let _pass = gate.enter().map_err(|_| Errno::ENOSYS)?;
            handler(cx, args)
        });
        let calls = &cx.kernel().modules().calls;
        match calls.write(cx.cpu()).entry(nr) {
            std::collections::btree_map::Entry::Vacant(slot) => slot.insert(call),
            std::collections::btree_map::Entry::Occupied(_) => return Err(Errno::EBUSY),
        };
        self.at_fini(cx, move |cx| {
            let call = cx.kernel().modules().calls.write(cx.cpu()).remove(&nr);
            drop(call);
        });
        Ok(())
    }

    /// Takes everything back.
    fn clear(&self, cx: &Curlwp<'_>) {
        let undo = std::mem::take(&mut *self.undo.lock(cx.cpu()));
        undo.into_iter().rev().for_each(|undo| undo(cx));
    }
}

/// A system call of a module.
type LateCall = Arc<dyn Fn(&Curlwp<'_>, &[u64; 6]) -> SysResult + Send + Sync>;

/// The modules of a kernel. Both locks are leaves; no module's code runs under them.
#[derive(Default)]
pub(crate) struct Modules {
    list: Mutex<Vec<Entry>>,
    /// System calls by number, beside the vector that is filled at boot.
    calls: RwLock<BTreeMap<u32, LateCall>>,
}

struct Entry {
    module: Arc<Module>,
    /// It has started and is not on its way out.
    runs: bool,
}

impl Modules {
    /// Carries out a call that the vector does not have.
    pub(crate) fn syscall(&self, cx: &Curlwp<'_>, nr: u32, args: &[u64; 6]) -> SysResult {
        let call = self.calls.read(cx.cpu()).get(&nr).cloned();
        call.ok_or(Errno::ENOSYS)?(cx, args)
    }
}

impl Kernel {
    /// Starts a module. `EEXIST` when there is one of this name, `ENOENT` when one that it requires has not started, `ESHUTDOWN` when
    /// the kernel goes down, and what its code says; then nothing of it stays.
    pub fn module_init(
        &self,
        cx: &Curlwp<'_>,
        info: ModuleInfo,
        code: Box<dyn ModuleCode>,
    ) -> Result<(), Errno> {
        if self.phase() > Phase::Running {
            return Err(Errno::ESHUTDOWN);
        }
        let module = Arc::new(Module {
            info,
            code,
            gate: Arc::default(),
            undo: Mutex::default(),
        });
        {
            let mut list = self.modules().list.lock(cx.cpu());
            if list.iter().any(|e| e.module.info.name == module.info.name) {
                return Err(Errno::EEXIST);
            }
            let has_started =
                |name: &String| list.iter().any(|e| e.runs && e.module.info.name == *name);
            if !module.info.requires.iter().all(has_started) {
                return Err(Errno::ENOENT);
            }
            list.push(Entry {
                module: module.clone(),
                runs: false,
            });
        }
        let result = module.code.init(cx, &module);
        if result.is_err() {
            module.clear(cx);
        }
        let mut list = self.modules().list.lock(cx.cpu());
        if let Some(at) = list.iter().position(|e| Arc::ptr_eq(&e.module, &module)) {
            match result {
                Ok(()) => list[at].runs = true,
                Err(_) => drop(list.remove(at)),
            }
        }
        result
    }

    /// Ends a module. `ENOENT` when none of this name has started, `EBUSY` while another requires it or somebody uses it, and what its
    /// code says; then it goes on.
    pub fn module_fini(&self, cx: &Curlwp<'_>, name: &str) -> Result<(), Errno> {
        let module = {
            let mut list = self.modules().list.lock(cx.cpu());
            let at = list
                .iter()
                .position(|e| e.runs && e.module.info.name == name)
                .ok_or(Errno::ENOENT)?;
            let requires = |e: &Entry| e.module.info.requires.iter().any(|r| r == name);
            if list.iter().any(requires) || !list[at].module.gate.try_close() {
                return Err(Errno::EBUSY);
            }
            list[at].runs = false;
            list[at].module.clone()
        };
        let result = module.code.fini(cx, &module);
        match result {
            Ok(()) => module.clear(cx),
            Err(_) => module.gate.open(),
        }
        let mut list = self.modules().list.lock(cx.cpu());
        if let Some(at) = list.iter().position(|e| Arc::ptr_eq(&e.module, &module)) {
            match result {
                Ok(()) => drop(list.remove(at)),
                Err(_) => list[at].runs = true,
            }
        }
        result
    }

    /// The modules that have started, in order.
    pub fn module_list(&self, cx: &Curlwp<'_>) -> Vec<ModuleInfo> {
        let list = self.modules().list.lock(cx.cpu());
        list.iter()
            .filter(|e| e.runs)
            .map(|e| e.module.info.clone())
            .collect()
    }
}

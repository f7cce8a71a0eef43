//! Boot, one line a step, in the order of the reference; and the way down.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use hypercall::Host;

use crate::component::{self, Component, Stage};
use crate::sysent::HALTED;
use crate::{Config, Curlwp, Kernel, KernelMemory, syscalls, sysctl};

/// Where a kernel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Phase {
    /// Booting: factions and components are starting.
    Cold = 0,
    /// Serving.
    Running = 1,
    /// On its way down: files are being synced.
    Halting = 2,
    /// Down. Calls answer `ESHUTDOWN`.
    Halted = 3,
}

/// A change of settings.
type Adjust = Box<dyn FnOnce(&mut Config)>;

/// Work to do while booting, after the components of a stage.
type Step = (Stage, Box<dyn FnOnce(&Curlwp<'_>) -> Result<(), Errno>>);

/// What a kernel is made of; `boot` makes it.
pub struct Builder {
    host: Arc<dyn Host>,
    components: Vec<&'static Component>,
    adjust: Vec<Adjust>,
    steps: Vec<Step>,
}

impl Kernel {
    /// Starts to describe a kernel on a host.
    pub fn builder(host: Arc<dyn Host>) -> Builder {
        Builder {
            host,
            components: Vec::new(),
            adjust: Vec::new(),
            steps: Vec::new(),
        }
    }
}

impl Builder {
    /// Adds a component.
    #[must_use]
    pub fn component(mut self, component: &'static Component) -> Builder {
        self.components.push(component);
        self
    }

    /// Changes settings that the host's parameters have made.
    #[must_use]
    pub fn config(mut self, adjust: impl FnOnce(&mut Config) + 'static) -> Builder {
        self.adjust.push(Box::new(adjust));
        self
    }

    /// Has `step` done while booting, after the components of a stage have started. Its error makes boot fail.
    #[must_use]
    pub fn step(
        mut self,
        stage: Stage,
        step: impl FnOnce(&Curlwp<'_>) -> Result<(), Errno> + 'static,
    ) -> Builder {
        self.steps.push((stage, Box::new(step)));
        self
    }

    /// Boots. Every error is on the console with its reason; a kernel that fails to boot leaves nothing behind.
    pub fn boot(self) -> Result<Arc<Kernel>, Errno> {
        let components = component::sort(&self.components).map_err(|why| {
            self.host.console_write(format!("rump: {why}\n").as_bytes());
            Errno::EINVAL
        })?;
        let mut config = Config::from_host(&*self.host)?;
        for adjust in self.adjust {
            adjust(&mut config);
        }
        let kernel = Arc::new_cyclic(|me| Kernel::bare(self.host, config, me.clone()));
        let mut plan = Plan {
            components,
            steps: self.steps,
        };
        kernel.implicit(&KernelMemory, |cx| boot(cx, &mut plan))?;
        Ok(kernel)
    }
}

/// The table of contents.
fn boot(cx: &Curlwp<'_>, plan: &mut Plan) -> Result<(), Errno> {
    banner(cx);
    attach_cpus(cx);
    attach_softints(cx);
    cx.kernel().xcalls().attach(cx)?;
    sysctl::attach(cx)?;
    first_process(cx);
    syscalls::establish(cx)?;
    plan.start(cx, Stage::Kern)?;
    plan.start(cx, Stage::FactionVfs)?;
    plan.start(cx, Stage::Vfs)?;
    plan.start(cx, Stage::FactionNet)?;
    plan.start(cx, Stage::Net)?;
    plan.start(cx, Stage::NetIf)?;
    plan.start(cx, Stage::FactionDev)?;
    plan.start(cx, Stage::Dev)?;
    plan.start(cx, Stage::KernVfs)?;
    plan.start(cx, Stage::PostInit)?;
    warm(cx, std::mem::take(&mut plan.components));
    Ok(())
}

fn banner(cx: &Curlwp<'_>) {
    cx.log(format_args!(
        "rumpkit {}: a rump kernel",
        env!("CARGO_PKG_VERSION")
    ));
}

fn attach_cpus(cx: &Curlwp<'_>) {
    for i in 0..cx.kernel().cpus().count() {
        cx.log(format_args!("cpu{i} at thinair0: rump virtual cpu"));
    }
}

fn attach_softints(cx: &Curlwp<'_>) {
    let softints = cx.kernel().softints().clone();
    let run = move |cpu: &sync::Cpu<'_>, bits| softints.run(cpu, bits);
    cx.kernel().cpus().set_pending_hook(Box::new(run));
}

fn first_process(cx: &Curlwp<'_>) {
    cx.kernel().register_init(cx);
}

/// What is to be started.
struct Plan {
    components: Vec<&'static Component>,
    steps: Vec<Step>,
}

impl Plan {
    /// Starts the components of a stage, then does what is to be done after it.
    fn start(&mut self, cx: &Curlwp<'_>, stage: Stage) -> Result<(), Errno> {
        for component in self.components.iter().filter(|c| c.stage == stage) {
            (component.init)(cx).inspect_err(|error| {
                let line = format!(
                    "rump: component {} does not start: {error}\n",
                    component.name
                );
                cx.kernel().host().console_write(line.as_bytes());
            })?;
        }
        for (_, step) in self.steps.extract_if(.., |(at, _)| *at == stage) {
            step(cx)?;
        }
        Ok(())
    }
}

fn warm(cx: &Curlwp<'_>, components: Vec<&'static Component>) {
    cx.kernel().set_components(components);
    cx.kernel().set_phase(Phase::Running);
}

impl Kernel {
    /// Where the kernel is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Cold,
            1 => Phase::Running,
            2 => Phase::Halting,
            _ => Phase::Halted,
        }
    }

    /// Halts: syncs and unmounts unless told not to, stops the kernel's own threads, and refuses later calls. The
    /// first error of a shutdown step is answered after all have run; a second halt does nothing.
    pub fn shutdown(self: &Arc<Self>, sync: bool) -> Result<(), Errno> {
        self.implicit(&KernelMemory, |cx| cx.reboot(Howto::Halt, sync))
    }

    /// Sleeps, for a host thread outside the kernel, until the kernel is down; answers how it was asked to go.
    pub fn wait_halted(&self) -> Howto {
        loop {
            if let Some(howto) = self.halted() {
                return howto;
            }
            let phase = self.phase.load(Ordering::SeqCst);
            if phase != Phase::Halted as u32 {
                self.host().park(&self.phase, phase, None);
            }
        }
    }

    /// How the kernel was asked to go, once it is down.
    pub fn halted(&self) -> Option<Howto> {
        (self.phase() == Phase::Halted).then(|| match self.howto.load(Ordering::SeqCst) {
            0 => Howto::Halt,
            1 => Howto::PowerOff,
            _ => Howto::Restart,
        })
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::SeqCst);
        self.host().unpark(&self.phase, u32::MAX);
    }
}

/// What is to become of a kernel that goes down; the frontend that runs it decides what that means for the host
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Howto {
    /// It stays down.
    Halt = 0,
    /// It stays down, and its host process ends.
    PowerOff = 1,
    /// It is to be booted again.
    Restart = 2,
}

impl Curlwp<'_> {
    /// Takes the kernel down; see [`Kernel::shutdown`].
    pub fn reboot(&self, howto: Howto, sync: bool) -> Result<(), Errno> {
        let kernel = self.kernel();
        let first = kernel
            .phase
            .compare_exchange(
                Phase::Running as u32,
                Phase::Halting as u32,
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .is_ok();
        if !first {
            return Ok(());
        }
        self.log(format_args!("rump kernel halting..."));
        let result = run_shutdown_hooks(self, sync);
        stop_threads(self);
        kernel.attention.fetch_or(HALTED, Ordering::SeqCst);
        self.log(format_args!("rump kernel halted"));
        kernel.howto.store(howto as u32, Ordering::SeqCst);
        kernel.set_phase(Phase::Halted);
        result
    }
}

/// Has the kernel's own threads finish what they have to do, and waits for them.
fn stop_threads(cx: &Curlwp<'_>) {
    let kernel = cx.kernel();
    kernel.join_threads(cx);
    let services = kernel.services(cx);
    cx.unscheduled(|| {
        for service in services.iter().chain([kernel.timers().service()]) {
            service.stop();
        }
    });
    for service in services {
        service.serve(cx);
    }
}

fn run_shutdown_hooks(cx: &Curlwp<'_>, sync: bool) -> Result<(), Errno> {
    let mut result = Ok(());
    if !sync {
        return result;
    }
    for (what, hook) in cx.kernel().take_shutdown_hooks(cx).into_iter().rev() {
        if let Err(error) = hook(cx) {
            cx.log(format_args!("halt: {what}: {error}"));
            result = result.and(Err(error));
        }
    }
    result
}

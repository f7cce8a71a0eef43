//! Modules of the kernel: what they register is there while they are, and they do not go under anybody's feet.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::{Errno, SysResult};
use common::{boot, call, process};
use kern::module::{Module, ModuleCode, ModuleInfo};
use kern::sysctl::{Kind, Value};
use kern::{Curlwp, Kernel, KernelMemory};

const ANSWER: u32 = 600;

/// A module with a node and a call, which refuses what it is told to.
#[derive(Clone, Default)]
struct Code(Arc<State>);

#[derive(Default)]
struct State {
    refuses_init: AtomicBool,
    refuses_fini: AtomicBool,
    undone: AtomicU32,
}

fn answer(_: &Curlwp<'_>, args: &[u64; 6]) -> SysResult {
    Ok(args[0] as i64 + 42)
}

impl ModuleCode for Code {
    fn init(&self, cx: &Curlwp<'_>, module: &Arc<Module>) -> Result<(), Errno> {
        let name = format!("test.{}", module.info().name);
        module.sysctl(cx, &name, Kind::Int, |_| Ok(Value::Int(42)), None)?;
        if module.info().requires.is_empty() {
            module.syscall(cx, ANSWER, answer)?;
        }
        let state = self.0.clone();
        module.at_fini(cx, move |_| {
            state.undone.fetch_add(1, Ordering::SeqCst);
        });
        match self.0.refuses_init.load(Ordering::SeqCst) {
            true => Err(Errno::ENODEV),
            false => Ok(()),
        }
    }

    fn fini(&self, _: &Curlwp<'_>, _: &Arc<Module>) -> Result<(), Errno> {
        match self.0.refuses_fini.load(Ordering::SeqCst) {
            true => Err(Errno::EPERM),
            false => Ok(()),
        }
    }
}

fn init(kernel: &Arc<Kernel>, name: &str, requires: &[&str], code: &Code) -> Result<(), Errno> {
    let info = ModuleInfo {
        name: name.to_owned(),
        requires: requires.iter().map(|&r| r.to_owned()).collect(),
    };
    let code = Box::new(code.clone());
    kernel.implicit(&KernelMemory, |cx| kernel.module_init(cx, info, code))
}

fn fini(kernel: &Arc<Kernel>, name: &str) -> Result<(), Errno> {
    kernel.implicit(&KernelMemory, |cx| kernel.module_fini(cx, name))
}

fn node(kernel: &Arc<Kernel>, name: &str) -> Result<Value, Errno> {
    kernel.implicit(&KernelMemory, |cx| kernel.sysctl().read(cx, name))
}

#[test]
fn what_a_module_registers_comes_and_goes_with_it() {
    let kernel = boot();
    let (lwp, code) = (process(&kernel), Code::default());
    for round in 1..=2 {
        assert_eq!(call(&lwp, ANSWER, &[1]), Err(Errno::ENOSYS));
        init(&kernel, "a", &[], &code).unwrap();
        assert_eq!(call(&lwp, ANSWER, &[1]), Ok(43));
        assert_eq!(node(&kernel, "test.a"), Ok(Value::Int(42)));
        assert_eq!(node(&kernel, "kern.modules"), Ok(Value::Text("a".into())));
        fini(&kernel, "a").unwrap();
        assert_eq!(node(&kernel, "test.a"), Err(Errno::ENOENT));
        assert_eq!(code.0.undone.load(Ordering::SeqCst), round);
    }
    assert_eq!(fini(&kernel, "a"), Err(Errno::ENOENT));
}

#[test]
fn a_module_that_does_not_start_leaves_nothing() {
    let kernel = boot();
    let code = Code::default();
    code.0.refuses_init.store(true, Ordering::SeqCst);
    assert_eq!(init(&kernel, "a", &[], &code), Err(Errno::ENODEV));
    assert_eq!(node(&kernel, "test.a"), Err(Errno::ENOENT));
    assert_eq!(code.0.undone.load(Ordering::SeqCst), 1);
    code.0.refuses_init.store(false, Ordering::SeqCst);
    init(&kernel, "a", &[], &code).unwrap();
    // Its number is taken.
    assert_eq!(init(&kernel, "b", &[], &code), Err(Errno::EBUSY));
    assert_eq!(node(&kernel, "test.b"), Err(Errno::ENOENT));
}

#[test]
fn names_are_unique_and_requirements_stay() {
    let kernel = boot();
    let code = Code::default();
    assert_eq!(init(&kernel, "b", &["a"], &code), Err(Errno::ENOENT));
    init(&kernel, "a", &[], &code).unwrap();
    assert_eq!(init(&kernel, "a", &[], &code), Err(Errno::EEXIST));
    init(&kernel, "b", &["a"], &code).unwrap();
    assert_eq!(fini(&kernel, "a"), Err(Errno::EBUSY));
    fini(&kernel, "b").unwrap();
    fini(&kernel, "a").unwrap();
}

#[test]
fn a_module_that_refuses_to_end_goes_on() {
    let kernel = boot();
    let (lwp, code) = (process(&kernel), Code::default());
    init(&kernel, "a", &[], &code).unwrap();
    code.0.refuses_fini.store(true, Ordering::SeqCst);
    assert_eq!(fini(&kernel, "a"), Err(Errno::EPERM));
    assert_eq!(call(&lwp, ANSWER, &[1]), Ok(43));
    assert_eq!(node(&kernel, "test.a"), Ok(Value::Int(42)));
}

/// Ends the module that it belongs to from inside one of its calls.
struct Suicide;

impl ModuleCode for Suicide {
    fn init(&self, cx: &Curlwp<'_>, module: &Arc<Module>) -> Result<(), Errno> {
        module.syscall(cx, ANSWER, |cx, _| {
            cx.kernel().module_fini(cx, "suicide")?;
            Ok(0)
        })
    }

    fn fini(&self, _: &Curlwp<'_>, _: &Arc<Module>) -> Result<(), Errno> {
        Ok(())
    }
}

#[test]
fn a_module_that_somebody_is_in_does_not_end() {
    let kernel = boot();
    let lwp = process(&kernel);
    let info = ModuleInfo {
        name: "suicide".into(),
        requires: vec![],
    };
    kernel
        .implicit(&KernelMemory, |cx| {
            kernel.module_init(cx, info, Box::new(Suicide))
        })
        .unwrap();
    assert_eq!(call(&lwp, ANSWER, &[]), Err(Errno::EBUSY));
    fini(&kernel, "suicide").unwrap();
    assert_eq!(call(&lwp, ANSWER, &[]), Err(Errno::ENOSYS));
}

#[test]
fn a_halted_kernel_takes_no_module() {
    let kernel = boot();
    kernel.shutdown(true).unwrap();
    let code = Code::default();
    assert_eq!(init(&kernel, "a", &[], &code), Err(Errno::ESHUTDOWN));
}

#[test]
fn a_call_of_the_table_that_nobody_serves_may_be_a_modules() {
    let kernel = boot();
    kernel
        .implicit(&KernelMemory, |cx| {
            struct Two;
            impl ModuleCode for Two {
                fn init(&self, cx: &Curlwp<'_>, m: &Arc<Module>) -> Result<(), Errno> {
                    assert_eq!(m.syscall(cx, abi::nr::getpid, answer), Err(Errno::EBUSY));
                    m.syscall(cx, abi::nr::brk, answer)
                }
                fn fini(&self, _: &Curlwp<'_>, _: &Arc<Module>) -> Result<(), Errno> {
                    Ok(())
                }
            }
            let info = ModuleInfo {
                name: "two".into(),
                requires: vec![],
            };
            kernel.module_init(cx, info, Box::new(Two))
        })
        .unwrap();
    assert_eq!(call(&process(&kernel), abi::nr::brk, &[1]), Ok(43));
}

//! Modules that come and go under calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::Errno;
use kern::module::{Module, ModuleCode, ModuleInfo};
use kern::{Curlwp, KernelMemory};
use testing::on_both_hosts;

const NUMBER: u32 = 600;

/// Whether the module is there, as its own code sees it.
struct Code(Arc<AtomicBool>);

impl ModuleCode for Code {
    fn init(&self, cx: &Curlwp<'_>, module: &Arc<Module>) -> Result<(), Errno> {
        self.0.store(true, Ordering::SeqCst);
        let there = self.0.clone();
        module.syscall(cx, NUMBER, move |cx, _| {
            assert!(
                there.load(Ordering::SeqCst),
                "called before init or after fini"
            );
            cx.unscheduled(|| cx.kernel().host().relax());
            assert!(there.load(Ordering::SeqCst), "gone under a call");
            Ok(0)
        })
    }

    fn fini(&self, _: &Curlwp<'_>, _: &Arc<Module>) -> Result<(), Errno> {
        self.0.store(false, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_module_does_not_end_under_its_callers_and_is_not_called_after_its_end() {
    on_both_hosts(|bed| {
        let there = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicU32::new(0));
        let (kernel, code, count) = (bed.kernel().clone(), there.clone(), ended.clone());
        bed.users(3, move |i, lwp| {
            for _ in 0..6 {
                if i != 0 {
                    let answer = lwp.syscall(&KernelMemory, NUMBER, &[0; 6]);
                    assert!(matches!(answer, Ok(0) | Err(Errno::ENOSYS)), "{answer:?}");
                    continue;
                }
                let info = ModuleInfo {
                    name: "short".into(),
                    requires: vec![],
                };
                lwp.enter(&KernelMemory, |cx| {
                    let code = Box::new(Code(code.clone()));
                    match kernel.module_init(cx, info, code) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(other) => panic!("init: {other}"),
                    }
                    match kernel.module_fini(cx, "short") {
                        Ok(()) => count.fetch_add(1, Ordering::SeqCst),
                        Err(Errno::EBUSY) => 0,
                        Err(other) => panic!("fini: {other}"),
                    };
                });
            }
        });
        // Whoever was in it is out.
        bed.process().enter(&KernelMemory, |cx| {
            match cx.kernel().module_fini(cx, "short") {
                Ok(()) => ended.fetch_add(1, Ordering::SeqCst),
                Err(Errno::ENOENT) => 0,
                Err(other) => panic!("fini: {other}"),
            };
        });
        assert!(!there.load(Ordering::SeqCst) && ended.load(Ordering::SeqCst) > 0);
    });
}

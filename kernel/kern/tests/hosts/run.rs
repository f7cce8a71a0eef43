//! What the simulated host itself promises: the same seed is the same run, and a deadlock is told.

use std::sync::Arc;

use abi::Syscalls;
use hypercall::sim::{Failure, SimConfig};
use kern::{KernelMemory, RforkFds};
use sync::Mutex;
use testing::{SEEDS, Setup};

#[test]
fn two_runs_of_a_seed_are_the_same_to_the_byte() {
    for seed in 0..20 {
        let run = || {
            let config = SimConfig {
                keep_trace: true,
                ..SimConfig::new(seed)
            };
            Setup::new().sim(config, |bed| {
                bed.users(4, |_, lwp| {
                    let (r, w) = super::pipe(lwp, 0);
                    for _ in 0..10 {
                        let _ = lwp.rfork(RforkFds::Copy);
                        assert_eq!(lwp.write(w, b"x", 1), Ok(1));
                        assert_eq!(lwp.read(r, &mut [0; 1], 1), Ok(1));
                    }
                });
            })
        };
        let (a, b) = (run(), run());
        assert!(a.result.is_ok() && a.trace.len() > 1000);
        assert_eq!(a.trace, b.trace);
    }
}

#[test]
fn a_deadlock_is_reported_with_what_each_lwp_waits_for() {
    let deadlocked = (0..SEEDS).find_map(|seed| {
        let setup = Setup::new().param("RUMP_NCPU", "2");
        let run = setup.sim(SimConfig::new(seed), |bed| {
            let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
            bed.users(2, move |i, lwp| {
                lwp.enter(&KernelMemory, |cx| {
                    let _one = locks[i].lock(cx.cpu());
                    cx.unscheduled(|| cx.kernel().host().relax());
                    let _other = locks[1 - i].lock(cx.cpu());
                });
            });
        });
        match run.result {
            Err(Failure::Deadlock(who)) => Some(who),
            _ => None,
        }
    });
    assert_eq!(
        deadlocked.expect("a seed finds it"),
        ["main", "user0 (mutex)", "user1 (mutex)"]
    );
}

#[test]
fn every_kind_of_wait_has_a_name() {
    let run = Setup::new().sim(SimConfig::new(1), |bed| {
        bed.users(8, |i, lwp| {
            let (r, w) = super::pipe(lwp, 0);
            let mut buf = [0; 8];
            let _ = match i {
                0 => lwp.read(r, &mut buf, 1),
                1 => lwp.write(w, &[0; 100_000], 100_000),
                2 => lwp.poll(
                    &mut abi::Pollfd {
                        fd: r,
                        events: 1,
                        revents: 0,
                    }
                    .to_bytes(),
                    1,
                    -1,
                ),
                3 => {
                    let epoll = lwp.epoll_create1(0).expect("an instance") as i32;
                    lwp.epoll_wait(epoll, &mut [0; 12], 1, -1)
                }
                4 => {
                    let event = lwp.eventfd2(0, 0).expect("an eventfd") as i32;
                    lwp.read(event, &mut buf, 8)
                }
                5 => {
                    let timer = lwp.timerfd_create(1, 0).expect("a timer") as i32;
                    lwp.read(timer, &mut buf, 8)
                }
                6 => lwp.enter(&KernelMemory, |cx| {
                    cx.tsleep(1, "identity", None).map(|()| 0)
                }),
                _ => lwp.enter(&KernelMemory, |cx| cx.sleep_until(u64::MAX).map(|()| 0)),
            };
        });
    });
    let Err(Failure::Deadlock(who)) = run.result else {
        panic!("{:?}", run.result.err());
    };
    let waits = [
        "piperd", "pipewr", "poll", "epoll", "eventfd", "timerfd", "identity", "nanoslp",
    ];
    let named = waits.iter().enumerate();
    let mut want = vec!["main".to_owned()];
    want.extend(named.map(|(i, wait)| format!("user{i} ({wait})")));
    assert_eq!(who, want);
}

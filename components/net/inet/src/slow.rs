//! The slow timer: what has to be looked at about once a second, while there is anything to look at.

use kern::Curlwp;
use kern::callout::Callout;
use std::sync::{Arc, OnceLock};
use sync::Cpu;

use crate::{Inet, leaf};

const SECOND: u64 = 1_000_000_000;

/// The callout. It is due only while something waits for it.
#[derive(Default)]
pub(crate) struct SlowTimer(OnceLock<Callout>);

impl SlowTimer {
    pub(crate) fn start(&self, cx: &Curlwp<'_>, inet: &Arc<Inet>) {
        let weak = Arc::downgrade(inet);
        let callout = Callout::new(cx.kernel(), move |cx| {
            if let Some(inet) = weak.upgrade() {
                inet.slow_turn(cx);
            }
        });
        let _ = self.0.set(callout);
    }
}

impl Inet {
    /// There is something that has to be looked at.
    pub(crate) fn want_slow_timer(&self, cpu: &Cpu<'_>) {
        if let Some(callout) = self.slow.0.get()
            && !callout.pending()
        {
            callout.schedule(&leaf(cpu), self.now() + SECOND);
        }
    }

    fn slow_turn(&self, cx: &Curlwp<'_>) {
        let cpu = cx.cpu();
        let mut more = self.age_fragments(cpu);
        more |= self.age_neighbours(cpu);
        more |= self.age_autoconf(cpu);
        more |= self.age_tcp(cpu);
        self.age_path_mtus(cpu);
        if more {
            self.want_slow_timer(cpu);
        }
    }
}

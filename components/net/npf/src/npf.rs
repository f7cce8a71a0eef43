//! The packet filter of a kernel: when it is there, and with which rules.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use abi::Errno;
use arc_swap::ArcSwapOption;
use hypercall::Clock;
use inet::{Filter, Inet};
use kern::{Curlwp, Kernel};
use net::Net;
use sync::{Cpu, Mutex, OffCpu};

use crate::device;
use crate::firewall::Firewall;
use crate::lang::{Match, Ruleset, SyntaxError, flush};
use crate::log::Log;
use crate::rules::{Loaded, Named, Which};
use crate::state::States;

/// Where it stands among filters: Linux's `NF_IP_PRI_FILTER`.
const PRIORITY: i32 = 0;

/// The packet filter of a kernel. `changing` is held while rules are changed, over no wait.
pub struct Npf {
    kernel: Weak<Kernel>,
    inet: Arc<Inet>,
    /// While there are rules.
    firewall: ArcSwapOption<Firewall>,
    changing: Mutex<()>,
}

/// Starts the component.
pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    let npf = Arc::new(Npf {
        kernel: Arc::downgrade(cx.kernel()),
        inet: inet.clone(),
        firewall: ArcSwapOption::empty(),
        changing: Mutex::default(),
    });
    let weak = Arc::downgrade(&npf);
    inet.interfaces().listen(Box::new(move |cpu, _| {
        if let Some(firewall) = weak.upgrade().and_then(|npf| npf.firewall.load_full())
            && let Some(npf) = weak.upgrade()
        {
            npf.resolve(cpu, &firewall.loaded.load().interfaces);
        }
    }));
    Net::of(cx)?.offer(cx, npf);
    match device::attach(cx) {
        Err(Errno::EOPNOTSUPP) => Ok(()),
        result => result,
    }
}

impl Npf {
    /// The packet filter of a kernel; `EOPNOTSUPP` when it has none.
    pub fn of(cx: &Curlwp<'_>) -> Result<Arc<Npf>, Errno> {
        Net::of(cx)?.service(cx).ok_or(Errno::EOPNOTSUPP)
    }

    /// Replaces all rules by those of a text, or none of them. Connections that are known stay so, unless the text has no rules: then
    /// they are forgotten, and packets are not looked at any more.
    pub fn load(&self, cx: &Curlwp<'_>, text: &str) -> Result<(), SyntaxError> {
        let rules: Ruleset = text.parse()?;
        let _guard = self.changing.lock(cx.cpu());
        let there = self.firewall.load_full();
        if rules.is_empty() {
            if let Some(firewall) = there {
                self.inet.remove_filter(&(firewall as Arc<dyn Filter>));
                self.firewall.store(None);
            }
            return Ok(());
        }
        let states = self.states(cx, there.as_deref(), rules.states);
        let loaded = Arc::new(Loaded::new(rules, states));
        self.resolve(cx.cpu(), &loaded.interfaces);
        match there {
            Some(firewall) => firewall.loaded.store(loaded.clone()),
            None => {
                let log = Log::new(self.kernel.clone());
                let firewall = Firewall::new(cx.kernel().host().clone(), log, loaded.clone());
                let firewall = Arc::new(firewall);
                self.firewall.store(Some(firewall.clone()));
                self.inet.add_filter(PRIORITY, firewall);
            }
        }
        // An interface may have come meanwhile.
        self.resolve(cx.cpu(), &loaded.interfaces);
        Ok(())
    }

    /// The connections that are known, in a table for so many. One of another size takes them over; what begins at that very moment is
    /// picked up by its next packet.
    fn states(&self, cx: &Curlwp<'_>, there: Option<&Firewall>, limit: usize) -> Arc<States> {
        let host = cx.kernel().host();
        let before = there.map(|firewall| firewall.loaded.load().states.clone());
        if let Some(same) = before.as_ref().filter(|states| states.limit() == limit) {
            return same.clone();
        }
        let (leaf, now) = (OffCpu(&**host), host.now(Clock::Monotonic));
        let states = States::new(&**host, limit);
        for state in before
            .map(|states| states.list(&leaf, now))
            .unwrap_or_default()
        {
            // Those that find no room are forgotten.
            let _ = states.insert(&leaf, &state, now);
        }
        Arc::new(states)
    }

    /// The rules with what they have counted, in the language of rules; the figures are comments.
    pub fn rules(&self) -> String {
        match &*self.firewall.load() {
            Some(firewall) => firewall.rules(),
            None => String::new(),
        }
    }

    /// The connections that are known, a line each: protocol, source and destination as the first packet came, source and destination as
    /// it left, how far it has got, seconds until it is forgotten, packets and bytes its way, packets and bytes of the answers.
    pub fn connections(&self) -> String {
        match &*self.firewall.load() {
            Some(firewall) => firewall.list(),
            None => String::new(),
        }
    }

    /// Forgets connections: those that `command` means by `flush` and clauses that stand in rules too, as `flush proto tcp to port 80`,
    /// which compare them with their first packets as the rules saw them; by `flush` alone, all. What comes of them afterwards is asked
    /// of the rules. How many there were.
    pub fn flush(&self, cx: &Curlwp<'_>, command: &str) -> Result<usize, SyntaxError> {
        let firewall = self.firewall.load_full();
        let loaded = firewall.map(|firewall| firewall.loaded.load_full());
        let tables = loaded.as_ref().map_or(&[][..], |l| &l.text.tables);
        let which = flush(command, tables)?;
        let Some(loaded) = &loaded else {
            return Ok(0);
        };
        let host = cx.kernel().host();
        let (leaf, states) = (OffCpu(&**host), &loaded.states);
        if which == Match::default() {
            return Ok(states.clear(&leaf));
        }
        let which = Which::new(&which, tables);
        self.resolve(cx.cpu(), &which.interfaces);
        let all = states.list(&leaf, host.now(Clock::Monotonic));
        let meant = all.iter().filter(|state| which.has(state, &*self.inet));
        Ok(meant.filter(|state| states.remove(&leaf, state)).count())
    }

    /// Finds out which interfaces there are of the names in rules.
    fn resolve(&self, cpu: &Cpu<'_>, interfaces: &[Arc<Named>]) {
        for named in interfaces {
            let found = self.inet.interfaces().by_name(cpu, &named.name);
            let index = found.map_or(0, |interface| interface.index());
            named.index.store(index, Ordering::Relaxed);
        }
    }
}

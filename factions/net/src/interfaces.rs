//! The interfaces of a kernel, and who is above them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::Errno;
use arc_swap::ArcSwap;
use kern::Curlwp;
use sync::{Cpu, Mutex};

use crate::Cloner;
use crate::Packet;
use crate::ifnet::{Config, Driver, Ifnet};

/// The most bytes of an interface's name.
pub const NAME_MAX: usize = 15;

/// The network layer: takes what comes in.
pub trait NetworkLayer: Send + Sync {
    /// A frame with its link-layer header. No lock is held; may be a software interrupt.
    fn input(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, packet: Packet);
}

/// What happened to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// There is a new one with this index.
    Attached(u32),
    /// Its flags, MTU, name, address or master changed.
    Changed(u32),
    /// It is gone.
    Detached(u32),
}

/// Who is told of them. No lock is held; may be a software interrupt.
pub type LinkListener = Box<dyn Fn(&Cpu<'_>, &LinkEvent) + Send + Sync>;

/// The interfaces of a kernel.
///
/// `changing` is held while one is attached, renamed or detached; it and `cloners` are leaves; the lists are swapped whole, so that a
/// packet on its way takes no lock.
#[derive(Default)]
pub struct Interfaces {
    list: ArcSwap<Vec<Arc<Ifnet>>>,
    layers: ArcSwap<Vec<Arc<dyn NetworkLayer>>>,
    listeners: ArcSwap<Vec<Arc<LinkListener>>>,
    last_index: AtomicU32,
    changing: Mutex<()>,
    pub(crate) cloners: Mutex<Vec<(&'static str, Arc<dyn Cloner>)>>,
}

impl Interfaces {
    /// All, in the order of their indices.
    pub fn list(&self) -> Arc<Vec<Arc<Ifnet>>> {
        self.list.load_full()
    }

    /// One by its index.
    pub fn by_index(&self, index: u32) -> Option<Arc<Ifnet>> {
        let list = self.list.load();
        let at = list.binary_search_by_key(&index, |i| i.index()).ok()?;
        Some(list[at].clone())
    }

    /// One by its name.
    pub fn by_name(&self, cpu: &Cpu<'_>, name: &str) -> Option<Arc<Ifnet>> {
        self.list
            .load()
            .iter()
            .find(|i| i.name(cpu) == name)
            .cloned()
    }

    /// Makes an interface, which is down. `EEXIST` when the name is taken, `EINVAL` when it cannot be one.
    pub fn attach(
        self: &Arc<Self>,
        cx: &Curlwp<'_>,
        mut config: Config,
        driver: Arc<dyn Driver>,
    ) -> Result<Arc<Ifnet>, Errno> {
        let guard = self.changing.lock(cx.cpu());
        if let Some(stem) = config.name.strip_suffix("%d") {
            let free = (0..)
                .map(|n| format!("{stem}{n}"))
                .find(|name| self.by_name(cx.cpu(), name).is_none());
            config.name = free.unwrap_or_default();
        }
        self.check_name(cx.cpu(), &config.name)?;
        let index = self.last_index.fetch_add(1, Ordering::Relaxed) + 1;
        let interface = Ifnet::new(index, config, driver, Arc::downgrade(self));
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            list.push(interface.clone());
            list
        });
        drop(guard);
        self.tell(cx.cpu(), &LinkEvent::Attached(index));
        Ok(interface)
    }

    /// Takes an interface away, after bringing it down.
    pub fn detach(&self, cx: &Curlwp<'_>, interface: &Arc<Ifnet>) -> Result<(), Errno> {
        interface.set_up(cx, false)?;
        let guard = self.changing.lock(cx.cpu());
        self.list.rcu(|list| {
            let mut list = Vec::clone(list);
            list.retain(|i| !Arc::ptr_eq(i, interface));
            list
        });
        drop(guard);
        interface.driver().detach(cx);
        self.tell(cx.cpu(), &LinkEvent::Detached(interface.index()));
        Ok(())
    }

    /// Brings every interface down, for the kernel's end: threads that serve them leave.
    pub fn shut_down(&self, cx: &Curlwp<'_>) {
        for interface in self.list().iter().rev() {
            // One that cannot be brought down stays as it is: there is nobody left to be told.
            let _ = interface.set_up(cx, false);
        }
    }

    /// Gives an interface another name. `EEXIST`, `EINVAL`.
    pub fn rename(&self, cx: &Curlwp<'_>, interface: &Ifnet, name: &str) -> Result<(), Errno> {
        let guard = self.changing.lock(cx.cpu());
        self.check_name(cx.cpu(), name)?;
        interface.set_name(cx.cpu(), name);
        drop(guard);
        self.tell(cx.cpu(), &LinkEvent::Changed(interface.index()));
        Ok(())
    }

    fn check_name(&self, cpu: &Cpu<'_>, name: &str) -> Result<(), Errno> {
        let bad = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0;
        if name.is_empty()
            || name.len() > NAME_MAX
            || name == "."
            || name == ".."
            || name.bytes().any(bad)
        {
            return Err(Errno::EINVAL);
        }
        match self.by_name(cpu, name) {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        }
    }

    /// Has a network layer see what comes in from now on.
    pub fn add_layer(&self, layer: Arc<dyn NetworkLayer>) {
        self.layers.rcu(|layers| {
            let mut layers = Vec::clone(layers);
            layers.push(layer.clone());
            layers
        });
    }

    /// Has somebody be told of what happens to interfaces.
    pub fn listen(&self, listener: LinkListener) {
        let listener = Arc::new(listener);
        self.listeners.rcu(|listeners| {
            let mut listeners = Vec::clone(listeners);
            listeners.push(listener.clone());
            listeners
        });
    }

    pub(crate) fn network_input(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, packet: Packet) {
        let layers = self.layers.load();
        let Some((last, others)) = layers.split_last() else {
            return;
        };
        for layer in others {
            layer.input(cpu, interface, packet.clone());
        }
        last.input(cpu, interface, packet);
    }

    pub(crate) fn tell(&self, cpu: &Cpu<'_>, event: &LinkEvent) {
        for listener in self.listeners.load().iter() {
            listener(cpu, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EtherAddr, Features, LinkType, NET, Net};
    use kern::{Component, Stage};

    struct Nowhere;

    impl Driver for Nowhere {
        fn transmit(&self, _: &Cpu<'_>, _: Packet) -> Result<(), Errno> {
            Err(Errno::ENOBUFS)
        }
    }

    fn config(name: &str) -> Config {
        Config {
            name: name.into(),
            link: LinkType::Ethernet,
            mtu: 1500,
            address: EtherAddr::default(),
            features: Features::default(),
            point_to_point: false,
        }
    }

    fn with_kernel(check: fn(&Curlwp<'_>) -> Result<(), Errno>) {
        let host = hypercall::PosixHost::new();
        let check = Component {
            name: "check",
            stage: Stage::Net,
            requires: &["net"],
            init: check,
        };
        let check: &'static Component = Box::leak(Box::new(check));
        let kernel = kern::Kernel::builder(host)
            .component(&NET)
            .component(check)
            .boot();
        kernel.expect("boots").shutdown(true).expect("ends");
    }

    #[test]
    fn names_are_numbered_checked_and_change() {
        with_kernel(|cx| {
            let all = Net::of(cx)?.interfaces();
            let nowhere: Arc<dyn Driver> = Arc::new(Nowhere);
            let first = all.attach(cx, config("eth%d"), nowhere.clone())?;
            let second = all.attach(cx, config("eth%d"), nowhere.clone())?;
            assert_eq!((first.name(cx.cpu()), first.index()), ("eth0".into(), 1));
            assert_eq!((second.name(cx.cpu()), second.index()), ("eth1".into(), 2));
            assert_eq!(
                all.attach(cx, config("eth1"), nowhere.clone()).err(),
                Some(Errno::EEXIST)
            );
            for bad in ["", "a/b", "sixteen-bytes-xx", "a b", ".."] {
                assert_eq!(
                    all.attach(cx, config(bad), nowhere.clone()).err(),
                    Some(Errno::EINVAL),
                    "{bad}"
                );
            }
            all.rename(cx, &first, "wan")?;
            assert!(all.by_name(cx.cpu(), "wan").is_some_and(|i| i.index() == 1));
            all.detach(cx, &first)?;
            assert!(all.by_index(1).is_none() && all.by_index(2).is_some());
            Ok(())
        });
    }

    #[test]
    fn an_interface_that_is_down_sends_nothing_and_counts_what_is_refused() {
        with_kernel(|cx| {
            let eth = Net::of(cx)?
                .interfaces()
                .attach(cx, config("eth0"), Arc::new(Nowhere))?;
            assert_eq!(
                eth.output(cx.cpu(), Packet::default()),
                Err(Errno::ENETDOWN)
            );
            eth.set_up(cx, true)?;
            assert_eq!(eth.output(cx.cpu(), Packet::default()), Err(Errno::ENOBUFS));
            assert_eq!(eth.stats.tx_dropped.load(Ordering::Relaxed), 1);
            Ok(())
        });
    }
}

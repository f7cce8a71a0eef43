//! Domains: where protocols come from.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, FactionId};
use sync::RwLock;

use crate::{Common, Interfaces, Kind, Protocol};

/// An address family and the protocols in it.
pub trait Domain: Send + Sync {
    /// Makes the protocol of a new socket. `EPROTONOSUPPORT` or `ESOCKTNOSUPPORT` for what there is not, `EPERM` for
    /// what only the superuser may open.
    fn socket(
        &self,
        cx: &Curlwp<'_>,
        kind: Kind,
        protocol: i32,
        common: &Arc<Common>,
    ) -> Result<Arc<dyn Protocol>, Errno>;

    /// The sockets of a family that is not IP's, for lists of them.
    fn sockets(&self, cx: &Curlwp<'_>) -> Vec<SocketEntry> {
        let _ = cx;
        Vec::new()
    }
}

/// A socket in a list, as sock_diag(7) has it.
#[derive(Clone, Debug)]
pub struct SocketEntry {
    /// A number that no other socket of the family has.
    pub number: u32,
    /// Its type.
    pub kind: Kind,
    /// As TCP's: 1 connected, 7 not, 10 listening.
    pub state: u8,
    /// What it is called, without the family; empty for nothing.
    pub name: Vec<u8>,
    /// The number of the socket that it is connected to; 0 for none.
    pub peer: u32,
    /// Bytes that wait to be received; of a listening socket the connections that wait.
    pub receive_queue: usize,
    /// Bytes that wait at the peer; of a listening socket the most connections that may wait.
    pub send_queue: usize,
    /// The protocol, of a packet socket.
    pub protocol: u16,
    /// The interface that it is bound to; 0 for none.
    pub interface: u32,
}

/// The faction's state: the domains and the interfaces there are. `domains` and `services` are leaves.
#[derive(Default)]
pub struct Net {
    domains: RwLock<Vec<(u16, Arc<dyn Domain>)>>,
    services: RwLock<Vec<Arc<dyn Any + Send + Sync>>>,
    interfaces: Arc<Interfaces>,
}

impl Net {
    /// The state of this kernel's faction; `EAFNOSUPPORT` where there is no net faction.
    pub fn of<'a>(cx: &'a Curlwp<'_>) -> Result<&'a Net, Errno> {
        cx.kernel()
            .faction(FactionId::Net)
            .and_then(|state| state.downcast_ref())
            .ok_or(Errno::EAFNOSUPPORT)
    }

    /// Makes a family available. `EEXIST` when it is there already, which the console is told.
    pub fn register(
        &self,
        cx: &Curlwp<'_>,
        family: u16,
        domain: Arc<dyn Domain>,
    ) -> Result<(), Errno> {
        let mut domains = self.domains.write(cx.cpu());
        if domains.iter().any(|(f, _)| *f == family) {
            drop(domains);
            let line = format!(
                "rump: address family {family} is another component's already; leave one of the two out, as inet or sockin\n"
            );
            cx.kernel().host().console_write(line.as_bytes());
            return Err(Errno::EEXIST);
        }
        domains.push((family, domain));
        Ok(())
    }

    /// The domain of a family; `EAFNOSUPPORT` when there is none.
    pub fn domain(&self, cx: &Curlwp<'_>, family: i32) -> Result<Arc<dyn Domain>, Errno> {
        self.domains
            .read(cx.cpu())
            .iter()
            .find(|(f, _)| i32::from(*f) == family)
            .map(|(_, domain)| domain.clone())
            .ok_or(Errno::EAFNOSUPPORT)
    }

    /// Lets other components find what a component offers them, by its type.
    pub fn offer<T: Any + Send + Sync>(&self, cx: &Curlwp<'_>, service: Arc<T>) {
        self.services.write(cx.cpu()).push(service);
    }

    /// What a component [offered](Self::offer); `None` when it is not part of this kernel.
    pub fn service<T: Any + Send + Sync>(&self, cx: &Curlwp<'_>) -> Option<Arc<T>> {
        let services = self.services.read(cx.cpu());
        let found = services.iter().find(|s| s.is::<T>())?;
        found.clone().downcast().ok()
    }

    /// The interfaces of this kernel.
    pub fn interfaces(&self) -> &Arc<Interfaces> {
        &self.interfaces
    }

    /// Makes the state for a kernel that boots.
    pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
        cx.kernel()
            .set_faction(FactionId::Net, Arc::new(Net::default()));
        cx.kernel().at_shutdown(cx, "interfaces", |cx| {
            Net::of(cx)?.interfaces().shut_down(cx);
            Ok(())
        });
        crate::report::attach(cx)?;
        crate::syscalls::establish(cx)
    }
}

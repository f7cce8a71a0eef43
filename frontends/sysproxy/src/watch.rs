//! Readiness for clients that wait in their own poll(2).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use abi::sysproxy::Watch;
use abi::{Errno, SysResult, UserAddr};
use kern::Curlwp;
use kern::poll::{Events, Watcher};
use sync::Parker;

use crate::client::Client;
use crate::conn::{Conn, lock};
use crate::core::Core;

/// The most descriptors of one watch.
const MAX_WATCHES: u64 = 65_536;

/// Sends one byte the first time it is told.
struct ReadyWatcher {
    conn: Weak<Conn>,
    told: AtomicBool,
}

impl Watcher for ReadyWatcher {
    fn notify(&self, _: &dyn Parker, _: Events) {
        if !self.told.swap(true, Ordering::SeqCst)
            && let Some(conn) = self.conn.upgrade()
        {
            conn.send_ready();
        }
    }
}

impl Core {
    /// [`abi::sysproxy::NR_POLLWATCH`].
    pub(crate) fn pollwatch(
        &self,
        client: &Arc<Client>,
        cx: &Curlwp<'_>,
        args: &[u64; 6],
    ) -> SysResult {
        let conn = self
            .ready_conn(client, args[0] as u32)
            .ok_or(Errno::EBADF)?;
        if args[2] > MAX_WATCHES {
            return Err(Errno::EINVAL);
        }
        let watcher: Arc<dyn Watcher> = Arc::new(ReadyWatcher {
            conn: Arc::downgrade(&conn),
            told: AtomicBool::new(false),
        });
        // In place before the files are looked at, so that no change is missed; what was watched before goes.
        drop(lock(&conn.watcher).replace(watcher.clone()));
        let mut ready = 0;
        for i in 0..args[2] as usize {
            let at = UserAddr(args[1]).add(i * Watch::SIZE);
            let mut raw = [0; Watch::SIZE];
            cx.copyin(at, &mut raw)?;
            let mut watch = Watch::decode(&raw).map_err(|_| Errno::EINVAL)?;
            watch.revents = look(cx, &watch, &watcher).0;
            ready += i64::from(watch.revents != 0);
            cx.copyout(&watch.encode(), at)?;
        }
        Ok(ready)
    }
}

fn look(cx: &Curlwp<'_>, watch: &Watch, watcher: &Arc<dyn Watcher>) -> Events {
    let events = Events(watch.events) | Events::ERR | Events::HUP;
    match cx.file(watch.fd) {
        Ok(file) => file.file().poll(cx, events, Some(watcher)) & events,
        Err(_) => Events::NVAL,
    }
}

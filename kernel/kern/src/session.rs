//! Process groups and sessions, credentials(7).

use std::sync::Arc;

use abi::Errno;
use sync::Mutex;

use crate::{Curlwp, Pid, Proc};

/// A session: the groups that one login has. `login` is a leaf.
pub struct Session {
    /// The number of the process that made it.
    pub sid: Pid,
    login: Mutex<String>,
}

impl Session {
    pub(crate) fn new(sid: Pid) -> Arc<Session> {
        Arc::new(Session {
            sid,
            login: Mutex::default(),
        })
    }

    /// The name of who is logged in; empty when nobody said.
    pub fn login(&self, cx: &Curlwp<'_>) -> String {
        self.login.lock(cx.cpu()).clone()
    }

    /// Says who is logged in.
    pub fn set_login(&self, cx: &Curlwp<'_>, name: &str) {
        name.clone_into(&mut self.login.lock(cx.cpu()));
    }
}

/// Puts a process, the current one or a child of it, into a group of its session, or makes it the first of a new one.
/// `ESRCH` for what is neither, `EPERM` for the leader of a session, another session's process or another session's group.
pub fn setpgid(cx: &Curlwp<'_>, pid: Pid, pgid: Pid) -> Result<(), Errno> {
    let me = cx.proc();
    let kernel = cx.kernel();
    let _groups = kernel.lock_groups(cx);
    let proc = match pid == me.pid {
        true => me.clone(),
        false => {
            let proc = kernel.find_proc(cx, pid).ok_or(Errno::ESRCH)?;
            if proc.ppid() != me.pid {
                return Err(Errno::ESRCH);
            }
            proc
        }
    };
    let session = me.session();
    if !Arc::ptr_eq(&proc.session(), &session) || session.sid == proc.pid {
        return Err(Errno::EPERM);
    }
    let joins = pgid == proc.pid
        || kernel
            .all_procs(cx)
            .iter()
            .any(|p| p.pgid() == pgid && Arc::ptr_eq(&p.session(), &session));
    if !joins {
        return Err(Errno::EPERM);
    }
    proc.set_pgid(pgid);
    Ok(())
}

/// Makes the current process the first of a new session and group. `EPERM` when there is a group of its number.
pub fn setsid(cx: &Curlwp<'_>) -> Result<Pid, Errno> {
    let me = cx.proc();
    let _groups = cx.kernel().lock_groups(cx);
    let leads = |p: &Arc<Proc>| p.pgid() == me.pid;
    if cx.kernel().all_procs(cx).iter().any(leads) {
        return Err(Errno::EPERM);
    }
    me.set_session(Session::new(me.pid));
    me.set_pgid(me.pid);
    Ok(me.pid)
}

//! Control data: descriptors, credentials and what else goes along with a message, cmsg(3).

use std::sync::Arc;

use abi::{Errno, UserAddr};
use kern::{Curlwp, OpenFile, fd};

use crate::consts::{MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET};

/// `struct cmsghdr`: length (u64), level, type.
const HEADER: usize = 16;
/// The most control data of one message, in bytes.
const CONTROL_MAX: usize = 64 << 10;
/// The most descriptors in one message, `SCM_MAX_FD`.
const RIGHTS_MAX: usize = 253;

/// Who a process is, `struct ucred`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are unix(7)'s
pub struct Credentials {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

impl Credentials {
    /// Those of the current process.
    pub fn current(cx: &Curlwp<'_>) -> Credentials {
        let cred = cx.cred();
        Credentials {
            pid: cx.proc().pid,
            uid: cred.euid,
            gid: cred.egid,
        }
    }

    /// As `struct ucred` lies in user memory.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[..4].copy_from_slice(&self.pid.to_le_bytes());
        out[4..8].copy_from_slice(&self.uid.to_le_bytes());
        out[8..].copy_from_slice(&self.gid.to_le_bytes());
        out
    }

    /// What a process says it is. `EPERM` when it is not and may not pretend.
    fn claimed(cx: &Curlwp<'_>, data: &[u8]) -> Result<Credentials, Errno> {
        let data: [u8; 12] = data
            .get(..12)
            .and_then(|d| d.try_into().ok())
            .ok_or(Errno::EINVAL)?;
        let word =
            |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        let claimed = Credentials {
            pid: word(0) as i32,
            uid: word(4),
            gid: word(8),
        };
        let cred = cx.cred();
        let honest = claimed.pid == cx.proc().pid
            && [cred.ruid, cred.euid, cred.suid].contains(&claimed.uid)
            && [cred.rgid, cred.egid, cred.sgid].contains(&claimed.gid);
        if honest || cred.is_superuser() {
            Ok(claimed)
        } else {
            Err(Errno::EPERM)
        }
    }
}

/// One piece of control data.
pub enum Control {
    /// Descriptors on their way; each is held ([`fd::hold`]) until it arrives or is given back.
    Rights(Vec<Arc<OpenFile>>),
    /// Who sent it.
    Credentials(Credentials),
    /// Anything else: level, type, data.
    Other(i32, i32, Vec<u8>),
}

impl Control {
    /// Gives back what it holds, when it goes nowhere.
    pub fn release(self, cx: &Curlwp<'_>) {
        if let Control::Rights(files) = self {
            for file in files {
                fd::release(cx, &file);
            }
        }
    }

    /// Reads the control data of a message that is sent. On an error nothing is held.
    pub(crate) fn copyin(
        cx: &Curlwp<'_>,
        from: UserAddr,
        len: usize,
    ) -> Result<Vec<Control>, Errno> {
        if from.is_null() || len == 0 {
            return Ok(Vec::new());
        }
        if len > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes = vec![0; len];
        cx.copyin(from, &mut bytes)?;
        let mut out = Vec::new();
        let parsed = parse(cx, &bytes, &mut out);
        match parsed {
            Ok(()) => Ok(out),
            Err(error) => {
                out.into_iter().for_each(|c| c.release(cx));
                Err(error)
            }
        }
    }

    /// Writes the control data of a message that came, as much as fits; descriptors get numbers. Answers the bytes
    /// written and `MSG_CTRUNC` when something did not fit.
    pub(crate) fn copyout(
        cx: &Curlwp<'_>,
        list: Vec<Control>,
        to: UserAddr,
        room: usize,
        flags: i32,
    ) -> Result<(usize, i32), Errno> {
        let mut out = Vec::new();
        let mut told = 0;
        for control in list {
            let left = room.saturating_sub(out.len());
            let (level, kind, data) = match control {
                Control::Rights(files) => {
                    let fit = left.saturating_sub(HEADER) / 4;
                    if fit < files.len() {
                        told |= MSG_CTRUNC;
                    }
                    (
                        SOL_SOCKET,
                        SCM_RIGHTS,
                        receive_rights(cx, files, fit, flags, &mut told),
                    )
                }
                Control::Credentials(cred) => {
                    (SOL_SOCKET, SCM_CREDENTIALS, cred.to_bytes().to_vec())
                }
                Control::Other(level, kind, data) => (level, kind, data),
            };
            if data.is_empty() {
                continue;
            }
            if left < HEADER + data.len() {
                told |= MSG_CTRUNC;
                continue;
            }
            out.extend_from_slice(&((HEADER + data.len()) as u64).to_le_bytes());
            out.extend_from_slice(&level.to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&data);
            out.resize(out.len().next_multiple_of(8).min(room), 0);
        }
        cx.copyout(&out, to)?;
        Ok((out.len(), told))
    }
}

/// Gives arrived descriptors numbers in this process, as many as fit; the others are closed.
fn receive_rights(
    cx: &Curlwp<'_>,
    files: Vec<Arc<OpenFile>>,
    fit: usize,
    flags: i32,
    told: &mut i32,
) -> Vec<u8> {
    let mut numbers = Vec::new();
    for (i, file) in files.into_iter().enumerate() {
        if i < fit {
            match cx.install(file.clone(), flags & MSG_CMSG_CLOEXEC != 0) {
                Ok(number) => numbers.extend_from_slice(&number.to_le_bytes()),
                Err(_) => *told |= MSG_CTRUNC,
            }
        }
        fd::release(cx, &file);
    }
    numbers
}

fn parse(cx: &Curlwp<'_>, mut bytes: &[u8], out: &mut Vec<Control>) -> Result<(), Errno> {
    while bytes.len() >= HEADER {
        let (head, _) = bytes.split_at(HEADER);
        let word =
            |at: usize| i32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = usize::try_from(u64::from_le_bytes([
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7],
        ]))
        .map_err(|_| Errno::EINVAL)?;
        if len < HEADER || len > bytes.len() {
            return Err(Errno::EINVAL);
        }
        let data = &bytes[HEADER..len];
        out.push(match (word(8), word(12)) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                let count = |c: &Control| match c {
                    Control::Rights(files) => files.len(),
                    _ => 0,
                };
                let before: usize = out.iter().map(count).sum();
                if before + data.len() / 4 > RIGHTS_MAX {
                    return Err(Errno::EINVAL);
                }
                rights(cx, data)?
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => Control::Credentials(Credentials::claimed(cx, data)?),
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (level, kind) => Control::Other(level, kind, data.to_vec()),
        });
        bytes = bytes.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(())
}

/// Takes hold of the open files that a process wants to send.
fn rights(cx: &Curlwp<'_>, data: &[u8]) -> Result<Control, Errno> {
    let numbers = data
        .chunks_exact(4)
        .map(|n| i32::from_le_bytes([n[0], n[1], n[2], n[3]]));
    let mut files = Vec::new();
    for number in numbers {
        match cx.proc().fds().hold(cx, number) {
            Ok(file) => files.push(file),
            Err(error) => {
                Control::Rights(files).release(cx);
                return Err(error);
            }
        }
    }
    Ok(Control::Rights(files))
}

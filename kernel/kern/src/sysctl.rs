//! The sysctl tree, sysctl(7): what can be asked of a kernel and set in it, by dotted names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use abi::Errno;
use sync::RwLock;

use crate::{Curlwp, version};

/// The value of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number; eight bytes where it crosses into user memory.
    Int(i64),
    /// A text; ends with a NUL where it crosses.
    Text(String),
}

/// The type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has [`Value::Int`]s.
    Int,
    /// Has [`Value::Text`]s.
    Text,
}

type Read = Box<dyn Fn(&Curlwp<'_>) -> Result<Value, Errno> + Send + Sync>;
/// Sets a node.
pub type SetNode = Box<dyn Fn(&Curlwp<'_>, Value) -> Result<(), Errno> + Send + Sync>;

/// A node.
pub struct Node {
    kind: Kind,
    read: Read,
    write: Option<SetNode>,
}

impl Node {
    /// A node to be read whose reading may fail. `read` gives a value of the node's type.
    pub fn new(
        kind: Kind,
        read: impl Fn(&Curlwp<'_>) -> Result<Value, Errno> + Send + Sync + 'static,
    ) -> Node {
        Node {
            kind,
            read: Box::new(read),
            write: None,
        }
    }

    /// A number to be read.
    pub fn int(read: impl Fn(&Curlwp<'_>) -> i64 + Send + Sync + 'static) -> Node {
        Node {
            kind: Kind::Int,
            read: Box::new(move |cx| Ok(Value::Int(read(cx)))),
            write: None,
        }
    }

    /// A text to be read.
    pub fn text(read: impl Fn(&Curlwp<'_>) -> String + Send + Sync + 'static) -> Node {
        Node {
            kind: Kind::Text,
            read: Box::new(move |cx| Ok(Value::Text(read(cx)))),
            write: None,
        }
    }

    /// One that the superuser may also set. `write` gets a value of the node's type.
    #[must_use]
    pub fn writable(
        self,
        write: impl Fn(&Curlwp<'_>, Value) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Node {
        Node {
            write: Some(Box::new(write)),
            ..self
        }
    }
}

/// The tree of a kernel. The lock is not held while a node is read or written.
#[derive(Default)]
pub struct Sysctl {
    nodes: RwLock<BTreeMap<String, Arc<Node>>>,
}

impl Sysctl {
    /// Adds a node, such as `vfs.maxvnodes`. `EEXIST` when there is one of this name.
    pub fn add(&self, cx: &Curlwp<'_>, name: &str, node: Node) -> Result<(), Errno> {
        let mut nodes = self.nodes.write(cx.cpu());
        if nodes.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        nodes.insert(name.to_owned(), Arc::new(node));
        Ok(())
    }

    /// Takes a node away. Whoever is reading or writing it finishes.
    pub(crate) fn remove(&self, cx: &Curlwp<'_>, name: &str) {
        let node = self.nodes.write(cx.cpu()).remove(name);
        drop(node);
    }

    /// The value of a node. An inner node, or the empty name for the whole tree, has a text with a line for each node
    /// below it: name, `int` or `string`, and `ro` or `rw`. `ENOENT`.
    pub fn read(&self, cx: &Curlwp<'_>, name: &str) -> Result<Value, Errno> {
        match self.find(cx, name) {
            Some(node) => (node.read)(cx),
            None => self.list(cx, name).map(Value::Text),
        }
    }

    /// Sets a node from what was written to it. `EPERM` for a node that is only to be read and for others than the
    /// superuser, `EINVAL` for bytes that are no value of the node's type, `ENOENT`.
    pub fn write(&self, cx: &Curlwp<'_>, name: &str, raw: &[u8]) -> Result<(), Errno> {
        let node = self.find(cx, name).ok_or(Errno::ENOENT)?;
        let write = node.write.as_ref().ok_or(Errno::EPERM)?;
        if !cx.cred().is_superuser() {
            return Err(Errno::EPERM);
        }
        write(cx, decode(node.kind, raw)?)
    }

    fn find(&self, cx: &Curlwp<'_>, name: &str) -> Option<Arc<Node>> {
        self.nodes.read(cx.cpu()).get(name).cloned()
    }

    fn list(&self, cx: &Curlwp<'_>, name: &str) -> Result<String, Errno> {
        let prefix = match name.trim_end_matches('.') {
            "" => String::new(),
            inner => format!("{inner}."),
        };
        let mut text = String::new();
        for (name, node) in self.nodes.read(cx.cpu()).range(prefix.clone()..) {
            if !name.starts_with(&prefix) {
                break;
            }
            let kind = match node.kind {
                Kind::Int => "int",
                Kind::Text => "string",
            };
            let access = if node.write.is_some() { "rw" } else { "ro" };
            let _ = writeln!(text, "{name} {kind} {access}");
        }
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        Ok(text)
    }
}

impl Value {
    /// The value as it lies in user memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Value::Int(n) => n.to_le_bytes().to_vec(),
            Value::Text(text) => [text.as_bytes(), &[0]].concat(),
        }
    }
}

fn decode(kind: Kind, raw: &[u8]) -> Result<Value, Errno> {
    match kind {
        Kind::Int => match *raw {
            [a, b, c, d] => Ok(Value::Int(i32::from_le_bytes([a, b, c, d]).into())),
            _ => {
                let raw = raw.try_into().map_err(|_| Errno::EINVAL)?;
                Ok(Value::Int(i64::from_le_bytes(raw)))
            }
        },
        Kind::Text => {
            let text = raw.strip_suffix(&[0]).unwrap_or(raw);
            let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
            if text.contains('\0') {
                return Err(Errno::EINVAL);
            }
            Ok(Value::Text(text.to_owned()))
        }
    }
}

/// The nodes of the kernel proper.
pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let tree = cx.kernel().sysctl();
    let constants = [
        ("kern.ostype", version::OSTYPE),
        ("kern.osrelease", version::OSRELEASE),
        ("kern.version", version::VERSION),
        ("hw.machine", version::MACHINE),
    ];
    for (name, text) in constants {
        tree.add(cx, name, Node::text(move |_| text.to_owned()))?;
    }
    let hostname = Node::text(|cx| cx.kernel().hostname(cx)).writable(|cx, value| {
        let Value::Text(name) = value else {
            return Err(Errno::EINVAL);
        };
        if name.len() > 64 {
            return Err(Errno::EINVAL);
        }
        cx.kernel().set_hostname(cx, &name);
        Ok(())
    });
    tree.add(cx, "kern.hostname", hostname)?;
    let boottime = |cx: &Curlwp<'_>| (cx.kernel().boottime() / 1_000_000_000) as i64;
    tree.add(cx, "kern.boottime", Node::int(boottime))?;
    tree.add(cx, "kern.maxfiles", Node::int(|_| crate::fd::FD_MAX as i64))?;
    let maxproc = Node::int(|cx| cx.kernel().maxproc() as i64).writable(|cx, value| {
        let Value::Int(count) = value else {
            return Err(Errno::EINVAL);
        };
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        cx.kernel().set_maxproc(count);
        Ok(())
    });
    tree.add(cx, "kern.maxproc", maxproc)?;
    let procs = |cx: &Curlwp<'_>| cx.kernel().proc_count(cx) as i64;
    tree.add(cx, "kern.nprocs", Node::int(procs))?;
    let evcnts = |cx: &Curlwp<'_>| cx.kernel().evcnts().text(cx);
    tree.add(cx, "kern.evcnt", Node::text(evcnts))?;
    let messages = |cx: &Curlwp<'_>| String::from_utf8_lossy(&cx.kernel().messages()).into_owned();
    tree.add(cx, "kern.msgbuf", Node::text(messages))?;
    let modules = |cx: &Curlwp<'_>| {
        let names = cx.kernel().module_list(cx).into_iter().map(|m| m.name);
        names.collect::<Vec<_>>().join(" ")
    };
    tree.add(cx, "kern.modules", Node::text(modules))?;
    let ncpu = |cx: &Curlwp<'_>| cx.kernel().cpus().count() as i64;
    tree.add(cx, "hw.ncpu", Node::int(ncpu))?;
    let memlimit = |cx: &Curlwp<'_>| cx.kernel().memory_limit() as i64;
    tree.add(cx, "hw.memlimit", Node::int(memlimit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_must_be_of_the_type() {
        assert_eq!(decode(Kind::Int, &[255; 4]), Ok(Value::Int(-1)));
        assert_eq!(decode(Kind::Int, &[1; 3]), Err(Errno::EINVAL));
        assert_eq!(decode(Kind::Text, b"a\0"), Ok(Value::Text("a".into())));
        assert_eq!(decode(Kind::Text, b"a\0b"), Err(Errno::EINVAL));
        assert_eq!(decode(Kind::Text, &[0xff]), Err(Errno::EINVAL));
    }
}

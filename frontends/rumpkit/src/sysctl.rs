//! A kernel's variables, by name.

use std::ffi::CString;
use std::io;

use abi::{Errno, Invoke, Syscalls};
use kern::sysctl::{Kind, Value};

use crate::Process;
use crate::process::error;

/// The most bytes of a variable's value.
const LONGEST: u64 = 64 * 1024;

/// A variable that a kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, such as `kern.hostname`.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it can be set.
    pub writable: bool,
}

impl<S: Invoke> Process<S> {
    /// The variables below a name, such as `kern`; all of them below the empty one. `ENOENT` when there are none.
    pub fn variables(&self, below: &str) -> io::Result<Vec<Variable>> {
        let list = self.sysctl_raw(below)?;
        let list = String::from_utf8_lossy(&list);
        Ok(list
            .trim_end_matches('\0')
            .lines()
            .filter_map(Variable::parse)
            .collect())
    }

    /// The value of a variable.
    pub fn sysctl(&self, variable: &Variable) -> io::Result<Value> {
        let raw = self.sysctl_raw(&variable.name)?;
        match variable.kind {
            Kind::Int => {
                let raw = raw.try_into().map_err(|_| error(Errno::EINVAL))?;
                Ok(Value::Int(i64::from_le_bytes(raw)))
            }
            Kind::Text => {
                let text = raw.strip_suffix(&[0]).unwrap_or(&raw);
                Ok(Value::Text(String::from_utf8_lossy(text).into_owned()))
            }
        }
    }

    /// Sets a variable from text. `EPERM` when it cannot be set, `EINVAL` for a text that is no value of its kind.
    pub fn set_sysctl(&self, variable: &Variable, text: &str) -> io::Result<()> {
        let value = match variable.kind {
            Kind::Int => Value::Int(text.parse().map_err(|_| error(Errno::EINVAL))?),
            Kind::Text => Value::Text(text.to_owned()),
        };
        let name = CString::new(variable.name.as_str())?;
        let raw = value.to_bytes();
        let answer = self
            .sys()
            .__sysctl(&name, &mut [], &mut [], &raw, raw.len());
        answer.map(drop).map_err(error)
    }

    fn sysctl_raw(&self, name: &str) -> io::Result<Vec<u8>> {
        let name = CString::new(name)?;
        let mut value = vec![0; LONGEST as usize];
        let mut len = LONGEST.to_le_bytes();
        self.sys()
            .__sysctl(&name, &mut value, &mut len, &[], 0)
            .map_err(error)?;
        value.truncate(u64::from_le_bytes(len).min(LONGEST) as usize);
        Ok(value)
    }
}

impl Variable {
    /// A line of the kernel's list: name, `int` or `string`, `ro` or `rw`.
    fn parse(line: &str) -> Option<Variable> {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let kind = match words.next()? {
            "int" => Kind::Int,
            "string" => Kind::Text,
            _ => return None,
        };
        let writable = words.next()? == "rw";
        Some(Variable {
            name,
            kind,
            writable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_listed_read_and_set() {
        let kernel = crate::builder().boot().unwrap();
        let process = Process::new(&kernel).unwrap();
        let all = process.variables("").unwrap();
        let find = |name: &str| all.iter().find(|v| v.name == name).unwrap();
        let hostname = find("kern.hostname");
        process.set_sysctl(hostname, "other").unwrap();
        assert_eq!(
            process.sysctl(hostname).unwrap(),
            Value::Text("other".into())
        );
        let ncpu = find("hw.ncpu");
        assert!(matches!(process.sysctl(ncpu).unwrap(), Value::Int(1..)));
        let refused = process.set_sysctl(ncpu, "3").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EPERM.0));
        assert!(process.variables("no.such").is_err());
        assert!(
            process
                .variables("kern")
                .unwrap()
                .iter()
                .all(|v| v.name.starts_with("kern."))
        );
    }
}

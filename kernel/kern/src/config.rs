//! What a kernel is configured with: the builder's settings, and the parameters of its host.

use abi::Errno;
use hypercall::Host;

/// Settings of a kernel. Each starts from the host's parameter of the name given and can be set in the builder.
#[derive(Clone, Debug)]
pub struct Config {
    /// `RUMP_NCPU`: virtual CPUs, a number or `host`; default the host's count.
    pub ncpu: usize,
    /// `RUMP_VERBOSE`: whether boot messages go to the console too.
    pub verbose: bool,
    /// `RUMP_THREADS`: whether the kernel may make threads of its own; `0` forbids it.
    pub threads: bool,
    /// `RUMP_MEMLIMIT`: bytes that caches may take, with k, m or g behind it; `None` for half of the host's memory.
    pub memlimit: Option<u64>,
    /// The name of the machine that the kernel is, `kern.hostname`.
    pub hostname: String,
}

impl Config {
    /// The settings that a host's parameters ask for. `EINVAL` for a parameter that makes no sense; it is named on
    /// the console.
    pub fn from_host(host: &dyn Host) -> Result<Config, Errno> {
        let refuse = |name: &str, value: &str, want: &str| {
            host.console_write(format!("rump: {name}={value}: {want}\n").as_bytes());
            Errno::EINVAL
        };
        let ncpu = match host.param("RUMP_NCPU") {
            None => host.ncpu(),
            Some(v) if v == "host" => host.ncpu(),
            Some(v) => match v.parse::<usize>() {
                Ok(n) if (1..=sync::MAX_CPUS).contains(&n) => n,
                _ => {
                    return Err(refuse(
                        "RUMP_NCPU",
                        &v,
                        "want a number of CPUs from 1 to 256, or \"host\"",
                    ));
                }
            },
        };
        let memlimit = match host.param("RUMP_MEMLIMIT") {
            None => None,
            Some(v) => Some(parse_size(&v).filter(|&n| n > 0).ok_or_else(|| {
                refuse(
                    "RUMP_MEMLIMIT",
                    &v,
                    "want a number of bytes, as 64m (k, m, g)",
                )
            })?),
        };
        let flag = |name: &str| host.param(name).map(|v| !v.starts_with('0'));
        Ok(Config {
            ncpu,
            verbose: flag("RUMP_VERBOSE").unwrap_or(false),
            threads: flag("RUMP_THREADS").unwrap_or(true),
            memlimit,
            hostname: host.hostname(),
        })
    }
}

/// A size in bytes with an optional k, m or g behind it. `None` when it is none or does not fit.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_take_a_suffix_and_refuse_nonsense() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("64m"), Some(64 << 20));
        assert_eq!(parse_size("2G"), Some(2 << 30));
        for bad in ["", "m", "-1", "+1", "1t", "99999999999g", "1 m"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}

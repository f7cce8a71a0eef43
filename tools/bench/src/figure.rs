//! Figures and how they are shown.

use serde_json::{Value, json};

/// What a figure should reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
    /// At most this many times the host's.
    MostOfHost(f64),
    /// At most this more than the host's.
    MostOverHost(f64),
    /// At least this many times the host's.
    LeastOfHost(f64),
    /// At most this, and not more than the host's.
    MostAndHost(f64),
    /// Nothing is set.
    None,
}

impl Target {
    fn met(self, value: f64, host: Option<f64>) -> bool {
        match self {
            Target::Most(most) => value <= most,
            Target::Least(least) => value >= least,
            Target::MostOfHost(times) => host.is_none_or(|h| value <= times * h),
            Target::MostOverHost(more) => host.is_none_or(|h| value <= h + more),
            Target::LeastOfHost(times) => host.is_none_or(|h| value >= times * h),
            Target::MostAndHost(most) => value <= most && host.is_none_or(|h| value <= h),
            Target::None => true,
        }
    }

    fn shown(self) -> String {
        match self {
            Target::Most(n) => format!("<= {}", number(n)),
            Target::Least(n) => format!(">= {}", number(n)),
            Target::MostOfHost(n) => format!("<= {n} host"),
            Target::MostOverHost(n) => format!("<= host + {}", number(n)),
            Target::LeastOfHost(n) => format!(">= {n} host"),
            Target::MostAndHost(n) => format!("<= {}, host", number(n)),
            Target::None => String::new(),
        }
    }
}

/// One figure measured several times.
#[derive(Clone)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The standard deviation; of one value, zero.
    fn spread(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|v| (v - mean).powi(2)).sum();
        (squares / (self.0.len() - 1).max(1) as f64).sqrt()
    }
}

/// Takes figures and shows them.
pub(crate) struct Output {
    json: bool,
    wanted: Option<String>,
    missed: usize,
    shown: usize,
}

impl Output {
    pub(crate) fn new(json: bool, wanted: Option<String>) -> Output {
        if !json {
            println!(
                "{:<32} {:>12} {:<6} {:>12} {:>8}  target",
                "figure", "value", "unit", "host", "ratio"
            );
        }
        Output {
            json,
            wanted,
            missed: 0,
            shown: 0,
        }
    }

    /// Whether anything of a group is wanted.
    pub(crate) fn wants_group(&self, group: &str) -> bool {
        self.wanted
            .as_deref()
            .is_none_or(|wanted| wanted.split('.').next() == Some(group))
    }

    /// Whether this figure is wanted. What costs much to measure asks before it does.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted
            .as_deref()
            .is_none_or(|wanted| name == wanted || name.split('.').next() == Some(wanted))
    }

    /// Whether any figure is wanted whose name begins like this.
    pub(crate) fn wants_any(&self, beginnings: &[&str]) -> bool {
        let Some(wanted) = self.wanted.as_deref() else {
            return true;
        };
        beginnings
            .iter()
            .any(|b| wanted.starts_with(b) || b.split('.').next() == Some(wanted))
    }

    /// A figure. Its unit is the end of its name.
    pub(crate) fn figure(&mut self, name: &str, value: f64, host: Option<f64>, target: Target) {
        self.show(name, value, host, target, None);
    }

    /// The mean of what was measured several times, and the spread of ours and of the host's.
    pub(crate) fn samples(
        &mut self,
        name: &str,
        ours: &Samples,
        host: Option<&Samples>,
        target: Target,
    ) {
        let spread = (ours.spread(), host.map(Samples::spread));
        self.show(
            name,
            ours.mean(),
            host.map(Samples::mean),
            target,
            Some(spread),
        );
    }

    fn show(
        &mut self,
        name: &str,
        value: f64,
        host: Option<f64>,
        target: Target,
        spread: Option<(f64, Option<f64>)>,
    ) {
        if !self.wants(name) {
            return;
        }
        let unit = unit(name);
        let ratio = host.map(|h| value / h);
        let met = target.met(value, host);
        self.shown += 1;
        self.missed += usize::from(!met);
        if self.json {
            let target = match target.shown() {
                text if text.is_empty() => Value::Null,
                text => json!(text),
            };
            let mut figure = json!({
                "name": name, "value": value, "unit": unit, "host": host, "ratio": ratio, "target": target, "met": met,
            });
            if let Some((ours, host)) = spread {
                figure["spread"] = json!(ours);
                figure["host_spread"] = json!(host);
            }
            println!("{figure}");
        } else {
            println!(
                "{name:<32} {:>12} {unit:<6} {:>12} {:>8}  {}{}{}",
                number(value),
                host.map_or("-".into(), number),
                ratio.map_or("-".into(), |r| format!("{r:.2}")),
                target.shown(),
                if met { "" } else { "   missed" },
                match spread {
                    Some((ours, Some(host))) =>
                        format!("   spread {}, {}", number(ours), number(host)),
                    Some((ours, None)) => format!("   spread {}", number(ours)),
                    None => String::new(),
                }
            );
        }
    }

    pub(crate) fn finish(&self) {
        if !self.json {
            println!(
                "{} figures, {} beyond their target",
                self.shown, self.missed
            );
        }
    }
}

/// The unit that a name ends in.
fn unit(name: &str) -> &'static str {
    const UNITS: [(&str, &str); 9] = [
        ("_ns", "ns"),
        ("_gbit", "Gbit/s"),
        ("_mbit", "Mbit/s"),
        ("_ms", "ms"),
        ("_mb", "MB"),
        ("_mbps", "MiB/s"),
        ("_per_s", "1/s"),
        ("_2cpu", "times"),
        ("_bytes", "B"),
    ];
    UNITS
        .iter()
        .find(|(end, _)| name.ends_with(end))
        .map_or("", |(_, unit)| unit)
}

fn number(n: f64) -> String {
    match n.abs() {
        a if a >= 1000.0 => format!("{n:.0}"),
        a if a >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_alone_or_beside_the_host() {
        assert!(Target::Most(20.0).met(20.0, None));
        assert!(!Target::MostAndHost(20.0).met(15.0, Some(10.0)));
        assert!(Target::LeastOfHost(0.7).met(70.0, Some(100.0)));
        assert!(Target::MostOfHost(1.1).met(5.0, None));
    }

    #[test]
    fn samples_have_a_mean_and_a_spread() {
        let samples = Samples(vec![1.0, 2.0, 3.0]);
        assert_eq!((samples.mean(), samples.spread()), (2.0, 1.0));
        assert_eq!(Samples(vec![5.0]).spread(), 0.0);
    }

    #[test]
    fn a_unit_is_the_end_of_the_name() {
        assert_eq!(unit("tmpfs.stat_ns"), "ns");
        assert_eq!(unit("ext4.seq_write_mbps"), "MiB/s");
        assert_eq!(unit("boot.rss_mb"), "MB");
    }
}

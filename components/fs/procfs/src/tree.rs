//! What there is, by path.

use std::collections::BTreeMap;

use kern::Curlwp;
use kern::sysctl::Value;

/// The variables that are shown: those of the network, whose names are Linux's.
const SHOWN: &str = "net";

/// What is behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    /// A report of this name.
    Report(String),
    /// A variable, and whether it can be set.
    Variable(String, bool),
}

/// All files by path.
fn files(cx: &Curlwp<'_>) -> BTreeMap<String, Entry> {
    let reports = cx.kernel().reports().names(cx).into_iter();
    let mut files: BTreeMap<String, Entry> = reports
        .map(|name| (name.to_owned(), Entry::Report(name.to_owned())))
        .collect();
    if let Ok(Value::Text(list)) = cx.kernel().sysctl().read(cx, SHOWN) {
        for line in list.lines() {
            let mut words = line.split(' ');
            if let (Some(name), Some(_), Some(access)) = (words.next(), words.next(), words.next())
            {
                let path = format!("sys/{}", name.replace('.', "/"));
                files.insert(path, Entry::Variable(name.to_owned(), access == "rw"));
            }
        }
    }
    files
}

/// What is in a directory: names with what is behind them.
pub(crate) fn list(cx: &Curlwp<'_>, dir: &str) -> BTreeMap<String, Entry> {
    let mut names = BTreeMap::new();
    for (path, entry) in files(cx) {
        let below = match dir {
            "" => Some(&*path),
            dir => path
                .strip_prefix(dir)
                .and_then(|rest| rest.strip_prefix('/')),
        };
        match below.and_then(|below| below.split_once('/')) {
            Some((name, _)) => names.insert(name.to_owned(), Entry::Directory),
            None => below.and_then(|name| names.insert(name.to_owned(), entry)),
        };
    }
    names
}

/// A path and a name below it.
pub(crate) fn join(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}

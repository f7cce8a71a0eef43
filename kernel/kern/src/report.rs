//! Reports: what parts of a kernel tell about themselves in text, by names such as `net/dev`. A file system shows them as files, proc(5).

use std::collections::BTreeMap;
use std::sync::Arc;

use sync::RwLock;

use crate::Curlwp;

/// Writes a report.
type Report = dyn Fn(&Curlwp<'_>) -> String + Send + Sync;

/// The reports of a kernel. The lock is not held while one is written.
#[derive(Default)]
pub struct Reports(RwLock<BTreeMap<&'static str, Arc<Report>>>);

impl Reports {
    /// Adds a report, or puts it in the place of the one of that name.
    pub fn add(
        &self,
        cx: &Curlwp<'_>,
        name: &'static str,
        report: impl Fn(&Curlwp<'_>) -> String + Send + Sync + 'static,
    ) {
        self.0.write(cx.cpu()).insert(name, Arc::new(report));
    }

    /// The names of all.
    pub fn names(&self, cx: &Curlwp<'_>) -> Vec<&'static str> {
        self.0.read(cx.cpu()).keys().copied().collect()
    }

    /// The report of a name as it is now.
    pub fn read(&self, cx: &Curlwp<'_>, name: &str) -> Option<String> {
        let report = self.0.read(cx.cpu()).get(name).cloned()?;
        Some(report(cx))
    }
}

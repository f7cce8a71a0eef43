//! How the command fails: what it says, and its exit status.

/// `rump` itself failed, as with env(1) and its like.
pub(crate) const OWN: u8 = 125;
/// The program is there and cannot be run.
pub(crate) const CANNOT_RUN: u8 = 126;
/// There is no such program.
pub(crate) const NOT_FOUND: u8 = 127;

/// An error with the exit status that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) error: anyhow::Error,
}

/// A word's outcome: an exit status.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    pub(crate) fn with_status(status: u8, error: impl Into<anyhow::Error>) -> Failure {
        Failure {
            status,
            error: error.into(),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::with_status(OWN, error)
    }
}

//! Finding what was lost: the scoreboard of what is on the way, and RACK-TLP, which judges it by time.

mod rack;
mod recovery;
mod scoreboard;

pub(crate) use rack::Rack;
pub(crate) use recovery::{Phase, Recovery};
pub(crate) use scoreboard::{Record, Scoreboard};

//! Numbers that devices give their messages, so that what they repeat counts once.

use super::Path;

/// Where a device's sequence number is, and what it does besides going up. How agents read it is in the agent's
/// `source/dedupe`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dedupe {
    /// Where it is in the payload.
    pub path: Path,
    /// Numbers count modulo this, at least [`Dedupe::WRAPS_AT_MIN`]; `None` for those that never come to an end.
    pub wraps_at: Option<u64>,
    /// Whether the device may begin anew: a number far back is then a beginning and no repetition.
    pub restart: bool,
}

impl Dedupe {
    /// Numbers of one byte: below, what is ahead and what is behind could not be told apart.
    pub const WRAPS_AT_MIN: u64 = 256;

    /// Numbers at `path` that only go up.
    pub const fn rising(path: Path) -> Self {
        Self {
            path,
            wraps_at: None,
            restart: false,
        }
    }
}

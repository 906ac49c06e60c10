//! How many keys that were never seen before a query takes in.

use crate::time::Span;

/// A cap on new keys: at most `max` in each `every`, at each agent. Readings of the others count under one overflow
/// key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NewKeys {
    /// New keys in each interval; 0 takes in none but those of the first.
    pub max: u32,
    /// The interval's length, at least [`NewKeys::EVERY_MIN`].
    pub every: Span,
}

impl NewKeys {
    /// Shortest interval.
    pub const EVERY_MIN: Span = Span::from_secs(1);
}

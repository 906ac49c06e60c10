//! Exact arithmetic: decimals, wide integers, powers of ten, and the one rounding at the end.

pub mod decimal;

pub mod wide;

pub(crate) mod scale;

pub mod ratio;

//! What an operator asks on the command line.

pub mod query;

pub mod explain;

pub mod agents;

#[cfg(test)]
mod tests;

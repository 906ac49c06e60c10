//! What an operator asks on the command line: each command makes a question, asks it, and prints the answer.

pub mod show;

pub mod query;

pub mod explain;

pub mod agents;

pub mod changes;

pub mod status;

pub mod plan;

#[cfg(test)]
mod tests;

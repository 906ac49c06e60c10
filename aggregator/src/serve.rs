//! Questions about results and state, and their answers.
//!
//! A question is a value, and so is its answer: nothing here prints, parses a command line or knows of HTTP. Whoever has
//! something to ask (a command, later an interface) makes the question, asks it of a store, and puts the answer into its
//! own form. What a question needs of a store is [`Lookup`], so every store answers alike.

pub mod agents;

pub mod changes;

pub mod explain;

pub mod losses;

pub mod plan;

pub mod rows;

pub mod status;

use catchment_common::plan::Query;

use crate::store::StoreFault;
use crate::store::lookup::Lookup;

/// Something that can be asked of a store.
pub trait Question {
    /// What comes back.
    type Answer;

    /// The answer of a store. It is of one moment if the store's reads are.
    fn ask(&self, store: &impl Lookup) -> Result<Self::Answer, AskFault>;
}

/// Why there is no answer. The texts are for whoever asks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AskFault {
    /// There is no query of this name.
    #[error("there is no query `{name}`; the plan has {}", or_none(known))]
    NoQuery {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The question does not fit the query.
    #[error("{0}")]
    Misfit(String),
    /// There is no such row.
    #[error("{0}")]
    NoRow(String),
    /// There is no cursor of this name.
    #[error(
        "there is no cursor `{0}`; `changes list` shows those that there are, and `changes open` makes one"
    )]
    NoCursor(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// The query of this name.
fn query_of<'q>(queries: &'q [Query], name: &str) -> Result<&'q Query, AskFault> {
    let found = queries.iter().find(|query| query.name == name);
    found.ok_or_else(|| AskFault::NoQuery {
        name: name.to_owned(),
        known: queries.iter().map(|query| query.name.clone()).collect(),
    })
}

/// Names as a sentence has them.
fn or_none<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;

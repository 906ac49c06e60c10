//! The seam to what is durable: everything that the aggregator writes, and everything that it reads again, goes through
//! these traits.
//!
//! A store applies each [`Commit`] whole or not at all, and a commit that returned survives whatever happens to the
//! process. Two stores keep to it, and one suite of tests says what that means: one on SQLite, at the rim, and
//! [`memory::Memory`], which the simulator and tests use.

pub mod changes;

pub mod lookup;

pub mod memory;

pub mod text;

mod restore;

#[cfg(test)]
pub(crate) mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use catchment_common::plan::{PipelineId, Plan, Query};
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::SeqRange;
use catchment_common::wire::lineage::DatabaseId;

use crate::agents::Standing;
use crate::aggregator::{Aggregator, Settings};
use crate::catalog::{Catalog, change};
use crate::commit::{AppendedBatch, Commit, PaneSource, SourceFault, StoredChunk, Unrevised};
use crate::lineages::Newest;
use crate::window::Provisional;

/// What a store gives back.
pub type Result<T> = std::result::Result<T, StoreFault>;

/// Takes the chunks of stored panes, one after another: the pane's start and the chunk.
pub type TakeChunk<'t> = &'t mut dyn FnMut(Timestamp, StoredChunk);

/// Takes ranges of committed seqs: agent, epoch and range.
pub type TakeRange<'t> = &'t mut dyn FnMut(&str, u64, SeqRange);

/// Takes appended batches in the order in which they were merged.
pub type TakeBatch<'t> = &'t mut dyn FnMut(AppendedBatch) -> std::result::Result<(), SourceFault>;

/// A store that cannot be used, and what to do. The texts are for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreFault {
    /// The store's software refused: the disk is full, another process holds a lock, a file cannot be opened.
    #[error("{}: {problem}", path.display())]
    Failed {
        /// The database file.
        path: PathBuf,
        /// What it said.
        problem: String,
    },
    /// The file is damaged.
    #[error(
        "{}: the database is damaged ({found}); stop everything that writes to it, keep a copy, and restore the last \
         backup (agents send again what a backup does not have), or move the file away to start anew",
        path.display()
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What the check found.
        found: String,
    },
    /// The file is no longer where it was.
    #[error(
        "{}: the database file was removed or replaced while it was served; nothing is acknowledged any more, and what is \
         acknowledged is only in a file without a name. Stop the aggregator, put the file back or `restore` a backup or \
         the copy that was made, and start it: agents send again what that does not have",
        path.display()
    )]
    Moved {
        /// Where the database file was.
        path: PathBuf,
    },
    /// The file was written by newer software.
    #[error(
        "{}: the database has schema version {found}, this software knows {known}; run the newer catchment-aggregator \
         that wrote it, or name another database file",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file was written by older software, and this command does not write.
    #[error(
        "{}: the database has schema version {found}, and this command reads version {known}; `serve` brings it up to \
         date when it starts (make a backup before)",
        path.display()
    )]
    Behind {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file was written by software from before the first release.
    #[error(
        "{}: the database has schema version {found}, from before the first release, and cannot be read; move the file \
         away to start anew",
        path.display()
    )]
    Older {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A plan cannot be put into force here.
    #[error("query `{query}`: {problem}")]
    Plan {
        /// The query at fault.
        query: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Stored bytes that should be ours are not.
    #[error("{}: stored {what} cannot be read: {problem}", path.display())]
    Content {
        /// The database file.
        path: PathBuf,
        /// What was to be read.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A stored pane could not be read.
    #[error(transparent)]
    Source(#[from] SourceFault),
}

/// A query whose table cannot be had.
pub(crate) fn plan_fault(query: &Query, problem: impl Into<String>) -> StoreFault {
    StoreFault::Plan {
        query: query.name.clone(),
        problem: problem.into(),
    }
}

/// Whether each query of a plan may have the name that it has: each is compared with the newest of its name, however
/// long ago that was in force. `before` gives the plans of before, the newest first.
pub(crate) fn check_changes(plan: &Plan, mut before: impl FnMut() -> Result<Option<Plan>>) -> Result<()> {
    let mut unknown: Vec<&Query> = plan.queries.iter().collect();
    let mut was_away = false;
    while !unknown.is_empty()
        && let Some(before) = before()?
    {
        let mut refused = None;
        unknown.retain(|query| {
            let last = before.queries.iter().find(|last| last.name == query.name);
            let problem = last.and_then(|last| change::refusal(last, query, was_away));
            if let Some(problem) = problem {
                refused.get_or_insert_with(|| plan_fault(query, problem));
            }
            last.is_none()
        });
        if let Some(refused) = refused {
            return Err(refused);
        }
        was_away = true;
    }
    Ok(())
}

/// The plan's file that the configuration of the server names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanFile {
    /// Where it is.
    pub path: String,
    /// The hash of its text when it was last taken.
    pub hash: u64,
}

/// How far a query's windows have been shown.
#[derive(Clone, PartialEq, Debug)]
pub struct ShownThrough {
    /// Every window that ends by then has been shown.
    pub through: Timestamp,
    /// The windows shown before all expected agents had passed them.
    pub provisional: Vec<Provisional>,
    /// The windows that have new data and are yet to be revised.
    pub unrevised: Vec<Unrevised>,
}

/// What can be read of a store, also while another process writes to it. Each answer is of one moment; two answers may
/// have a commit between them.
pub trait Reads: PaneSource {
    /// The version of the plan in force; 0 before the first.
    fn plan_version(&self) -> Result<u64>;

    /// The plan in force with its pipelines.
    fn catalog(&self) -> Result<Catalog>;

    /// Which database this is.
    fn database(&self) -> Result<DatabaseId>;

    /// The newest epoch of each lineage of an agent that has greeted, with the agent's name, the newest first.
    fn lineages(&self) -> Result<Vec<(String, Newest)>>;

    /// The text of the plan in force.
    fn plan_source(&self) -> Result<Option<String>>;

    /// Whether a plan of this text was ever in force.
    fn had_plan(&self, source: &str) -> Result<bool>;

    /// The plan's file that the server's configuration named at its last start.
    fn plan_file(&self) -> Result<Option<PlanFile>>;

    /// The agents that an operator has retired.
    fn retired(&self) -> Result<BTreeSet<String>>;

    /// The agents whose epochs an operator lets be forgotten, until a commit has done it.
    fn to_forget(&self) -> Result<BTreeSet<String>>;

    /// How each agent stood when it was last heard.
    fn standings(&self) -> Result<BTreeMap<String, Standing>>;

    /// The seqs that have been committed.
    fn committed(&self, take: TakeRange<'_>) -> Result<()>;

    /// How far a query of the plan in force has been shown; `None` if nothing of it was.
    fn shown_through(&self, query: &Query) -> Result<Option<ShownThrough>>;

    /// The stored panes of a pipeline that start at or after `from`, in their order.
    fn panes_from(&self, pipeline: PipelineId, from: Timestamp, take: TakeChunk<'_>) -> Result<()>;

    /// The batches that were appended after the last checkpoint.
    fn batches(&self, take: TakeBatch<'_>) -> Result<()>;

    /// The machine as it was when the last commit became durable.
    fn restore(&self, settings: Settings, now: Now) -> Result<Aggregator>
    where
        Self: Sized,
    {
        restore::restore(self, settings, now)
    }
}

/// What a store takes. It has one writer.
pub trait Store: Reads {
    /// Puts a checked plan into force: names its pipelines, makes or widens result tables, and stores it under the next
    /// version, which is returned. On an error nothing has changed.
    fn apply_plan(&mut self, plan: Plan, source: &str, now: Timestamp) -> Result<u64>;

    /// Remembers the plan's file.
    fn set_plan_file(&mut self, file: Option<&PlanFile>) -> Result<()>;

    /// Makes a commit durable. On an error nothing of it is.
    fn commit(&mut self, commit: &Commit) -> Result<()>;

    /// Retires an agent; returns whether there is one of that name. With `forget`, the next commit also forgets which of
    /// its batches have been taken.
    fn retire(&mut self, agent: &str, forget: bool) -> Result<bool>;
}

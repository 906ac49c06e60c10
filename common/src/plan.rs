//! The plan: what users ask for, and what agents run because of it.
//!
//! A [`Query`] is one result table. Queries that read the same messages in the same way share a [`Pipeline`]: the part
//! that an agent runs. [`Plan::pipelines`] derives the pipelines, so that the plan alone decides what is on the wire
//! and a query more of the same kind costs no bytes. Parsing a plan's TOML lives at the aggregator's rim; this module
//! owns the meaning and the rules ([`Plan::validate`]). How plans travel and are stored is for [`crate::wire`]: its types
//! mirror these, so that these may change.

mod aggregate;

mod dedupe;

mod field;

mod format;

mod sketch;

mod new_keys;

#[cfg(any(test, feature = "kit"))]
mod kit;

mod series;

mod source;

mod pipeline;

mod check;

mod window;

use alloc::string::String;
use alloc::vec::Vec;

use crate::expression::Expression;
use crate::time::Span;
use crate::topic::TopicTemplate;

pub use crate::path::{KeyPart, Path};
pub use aggregate::{Aggregate, AggregateFault, Components, Quantile};
pub use check::cost::{PipelineCost, PlanCost, SERIES_POINT_BYTES};
pub use check::validate::{Part, PlanFault, Problem};
pub use dedupe::Dedupe;
pub use field::{CounterRules, Field, FieldKind, FieldSource};
pub use format::{Compression, Csv, Format};
pub use new_keys::NewKeys;
pub use pipeline::{Pipeline, PipelineField, PipelineId, PlannedPipelines};
pub use sketch::{Column, ColumnType, PipelineSketch, Shown};
pub use source::is_source_name;
pub use window::{Hopping, Period, Window};

/// A versioned set of queries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Counts up by one with each plan that the aggregator takes; 0 is the empty plan before the first.
    pub version: u64,
    /// The queries, in the order of the file.
    pub queries: Vec<Query>,
}

/// What a user asks for; one query is one result table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// The query's and its result table's name.
    pub name: String,
    /// Which messages it reads.
    pub topic: TopicTemplate,
    /// How their payloads are written.
    pub format: Format,
    /// How their payloads are packed.
    pub compression: Compression,
    /// Where the event time comes from.
    pub time: TimeSource,
    /// Tags taken from the payload, besides those that the topic captures.
    pub tags: Vec<PayloadTag>,
    /// The ordered tag names that readings are grouped by.
    pub key: Vec<String>,
    /// The measured fields.
    pub fields: Vec<Field>,
    /// `where`: which readings count, a condition. `None` takes all.
    pub filter: Option<Expression>,
    /// The windows that readings are summarised over.
    pub window: Window,
    /// What is computed of each field over each window.
    pub aggregates: Vec<Aggregate>,
    /// An agent's watermark trails its newest event time by this.
    pub watermark_delay: Span,
    /// A reading whose event time lies further than this behind the agent's wall clock is rejected as `too_late`.
    pub allowed_lateness: Span,
    /// A reading whose event time lies further than this ahead of the agent's wall clock is rejected as `too_early`.
    pub max_ahead: Span,
    /// After this long without a reading the watermark follows the wall clock.
    pub idle: Span,
    /// How far back from a window's start readings before it matter to functions that go from reading to reading: `None`
    /// leaves it to [`Query::lookback`], which says how far it is, and with zero none matters.
    pub lookback: Option<Span>,
    /// How long the centre waits after a window's end for silent agents before it shows a provisional row.
    pub patience: Span,
    /// How long result rows and panes are kept; `None` keeps them for ever.
    pub retention: Option<Span>,
    /// Pane widths that agents may coarsen to when an outage fills their spools, ascending, each a multiple of the one
    /// before and of the windows' pane. Empty forbids it: then the oldest batches are given up instead.
    pub coarsen: Vec<Span>,
    /// Where a device's sequence number is in the payload: readings that repeat one are dropped by the agent.
    pub dedupe: Option<Dedupe>,
    /// How many keys that it has never seen an agent takes in; `None` takes all.
    pub new_keys: Option<NewKeys>,
    /// Bytes of each agent's memory for this query's open partials, at least [`crate::limits::QUERY_MEMORY_MIN`];
    /// `None` leaves them all that there is. With more, the query's own coldest leave early. Queries that share a
    /// pipeline share the largest of their budgets.
    pub memory: Option<u64>,
    /// The name of the agents' source whose messages count; `None` takes those of all. An agent without a source of
    /// this name reads nothing for the query.
    pub source: Option<String>,
}

/// Where a reading's event time comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimeSource {
    /// The agent's wall clock when the message arrived.
    Arrival,
    /// A value in the payload.
    Payload {
        /// Where it is.
        path: Path,
        /// How it is written.
        unit: TimeUnit,
        /// Whether a reading without a time that can be read has that of its arrival, and counts.
        fallback: bool,
    },
}

/// How an event time is written in a payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimeUnit {
    /// Seconds since the Unix epoch; decimals are kept to the microsecond.
    Seconds,
    /// Milliseconds since the Unix epoch; decimals are kept to the microsecond.
    Millis,
    /// Microseconds since the Unix epoch.
    Micros,
    /// A string such as `2026-11-23T08:12:00.5+01:00`.
    Rfc3339,
    /// Nanoseconds since the Unix epoch, cut to the microsecond.
    Nanos,
}

/// A tag taken from the payload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PayloadTag {
    /// The tag's name.
    pub name: String,
    /// Where its value is: a string, a number (its text) or a boolean.
    pub path: Path,
}

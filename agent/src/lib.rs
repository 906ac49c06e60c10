//! One gateway: readings in over MQTT, mergeable partials out over QUIC.
//!
//! ```text
//! message ─▶ decode ─▶ reading ─▶ intake ─▶ panes ─▶ batcher ─▶ spool ─▶ uplink ─▶ aggregator
//!            paths      key, time   one task  open     batches   until    session
//!            to text    and values  for all   partials sealed    acked
//! ```
//!
//! Beside the road runs the [`log::journal`]: what was accepted is in it before the broker is told so, and until a durable
//! batch holds it. [`log::commit`] makes journal and spool durable together; [`recovery`] puts both back at a start.
//! [`log::disk`] is the seam to files.
//!
//! Everything outside [`io`] is a machine: events and `now` come in, batches, messages and the next deadline come
//! out. [`agent::Agent`] composes the stages above in this order; [`io::run`] is the loop that feeds it.

pub mod settings;

pub mod metrics;

pub mod ancestry;

pub mod clock;

pub mod decode;

pub mod source;

pub mod aggregate;

pub mod log;

pub mod recovery;

pub mod uplink;

pub mod agent;

pub mod io;

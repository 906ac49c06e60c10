//! One gateway: readings in over MQTT, mergeable partials out over QUIC.
//!
//! ```text
//! message ─▶ decode ─▶ reading ─▶ intake ─▶ panes ─▶ outbox ─▶ spool ─▶ uplink ─▶ aggregator
//!            paths      key, time   one task  open     batches   until    session
//!            to text    and values  for all   partials sealed    acked
//! ```
//!
//! Beside the road runs the [`journal`]: what was lifted is in it before the broker is told so, and until a durable batch
//! holds it. [`commit`] makes journal and spool durable together; [`recovery`] puts both back at a start. [`disk`] is
//! the seam to files.
//!
//! Everything outside [`io`] is a machine: events and `now` come in, batches, messages and the next deadline come
//! out. [`agent::Agent`] composes the stages above in this order; [`io::run`] is the loop that feeds it.

pub mod settings;

pub mod tally;

pub mod decode;

pub mod reading;

pub mod watermark;

pub mod devices;

pub mod known_keys;

pub mod counts;

pub mod redelivery;

pub mod sketches;

pub mod panes;

pub mod disk;

pub mod journal;

pub mod intake;

pub mod outbox;

pub mod spool;

pub mod commit;

pub mod recovery;

pub mod uplink;

pub mod agent;

pub mod io;

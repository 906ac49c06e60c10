//! What survives the process: the journal of readings, the spool of batches, and the group commit of both.

pub mod disk;

pub mod journal;

pub mod batcher;

pub mod spool;

pub mod commit;

//! Where results and checkpoints are kept: one SQLite file with one writer.

pub mod tables;

pub mod sqlite;

pub mod lock;

pub mod backup;

pub mod sources;

//! The promises with real parts: fleet, brokers, agents, aggregator and its database, each a process of its own.

mod bad_config;

mod bad_frames;

mod bad_input;

mod bounded;

mod changes;

mod count_windows;

mod fleet;

mod modes;

mod payloads;

mod restarts;

mod series;

mod sources;

mod store;

mod upgrade;

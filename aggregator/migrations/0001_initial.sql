-- What the aggregator keeps besides the result tables. Times are microseconds since the Unix epoch, UTC.
-- Epochs are 64 random bits, stored as the same bits in a signed integer.

-- Every plan that was ever applied; the newest is in force. `source` is the TOML as the operator wrote it.
CREATE TABLE catchment_plan (
    version    INTEGER PRIMARY KEY,
    applied_at TEXT NOT NULL,
    source     TEXT NOT NULL,
    definition BLOB NOT NULL
);

-- Slices ever given out. A definition keeps its number for ever. A rung of a coarsening ladder names the slice that it
-- is a rung of, others 0.
CREATE TABLE catchment_slice (
    id         INTEGER PRIMARY KEY,
    definition BLOB NOT NULL,
    coarser_of INTEGER NOT NULL DEFAULT 0,
    UNIQUE (definition, coarser_of)
);

-- Numbers up to which a database may have given out that a restored backup replaced: of slices, and of plans. Agents
-- still know them, so they are not given out again.
CREATE TABLE catchment_floor (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- One row for each query that ever was: its current slice, and up to where its windows have been shown.
CREATE TABLE catchment_query (
    name               TEXT PRIMARY KEY,
    slice              INTEGER NOT NULL,
    emitted_through_us INTEGER
) WITHOUT ROWID;

-- The slices that a query has read, the current one included.
CREATE TABLE catchment_reader (
    query TEXT NOT NULL,
    slice INTEGER NOT NULL,
    PRIMARY KEY (query, slice)
) WITHOUT ROWID;

-- `retired` is set by an operator and cleared by the agent's next hello. `conflicts` counts how often a second agent
-- with the same name was found alive.
CREATE TABLE catchment_agent (
    name            TEXT PRIMARY KEY,
    last_heard_us   INTEGER NOT NULL,
    plan_version    INTEGER NOT NULL,
    software        TEXT NOT NULL,
    retired         INTEGER NOT NULL DEFAULT 0,
    backlog_batches INTEGER NOT NULL DEFAULT 0,
    backlog_bytes   INTEGER NOT NULL DEFAULT 0,
    conflicts       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- What agents had to give up, by the name of the batch that held it: readings of a slice within a range of event time.
-- A record that could not say what was lost has one row of slice 0.
CREATE TABLE catchment_loss (
    agent    TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    slice    INTEGER NOT NULL,
    from_us  INTEGER NOT NULL,
    to_us    INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    PRIMARY KEY (agent, epoch, seq, slice, from_us)
) WITHOUT ROWID;

-- Which batches have been merged, as ranges of seqs. Never expired by time.
CREATE TABLE catchment_committed (
    agent TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    PRIMARY KEY (agent, epoch, first)
) WITHOUT ROWID;

CREATE TABLE catchment_watermark (
    agent        TEXT NOT NULL,
    slice        INTEGER NOT NULL,
    watermark_us INTEGER NOT NULL,
    PRIMARY KEY (agent, slice)
) WITHOUT ROWID;

-- What agents count, cumulative for each era of counting (an agent's state directory, across its restarts). Slice 0 is
-- the agent itself.
CREATE TABLE catchment_counter (
    agent    TEXT NOT NULL,
    counting INTEGER NOT NULL,
    slice    INTEGER NOT NULL,
    name     TEXT NOT NULL,
    value    INTEGER NOT NULL,
    PRIMARY KEY (agent, counting, slice, name)
) WITHOUT ROWID;

-- Batches merged since the last checkpoint, as they came.
CREATE TABLE catchment_batch (
    id    INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    frame BLOB NOT NULL
);

-- Panes as of the last checkpoint: columns of up to 4,096 keys, in key order.
CREATE TABLE catchment_pane (
    slice    INTEGER NOT NULL,
    start_us INTEGER NOT NULL,
    chunk    INTEGER NOT NULL,
    columns  BLOB NOT NULL,
    PRIMARY KEY (slice, start_us, chunk)
) WITHOUT ROWID;

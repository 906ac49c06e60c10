-- What was stored and could not be read again: kept as it was, where nothing reads it, and reported as a loss. `kind`
-- says what it is: `pane`, a chunk of a pane, or `batch`, a batch that was appended after the last checkpoint; the
-- columns that do not name such a thing are NULL.
CREATE TABLE catchment_set_aside (
    id       INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL,
    at_us    INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    pipeline INTEGER,
    start_us INTEGER,
    chunk    INTEGER,
    agent    TEXT,
    epoch    INTEGER,
    seq      INTEGER,
    bytes    BLOB NOT NULL
);

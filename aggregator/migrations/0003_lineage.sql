-- For `explain`: who has shipped what of a pane. Deltas are counted over all keys; late ones came when a window over the
-- pane had been shown. They go with the panes.
CREATE TABLE catchment_contribution (
    slice    INTEGER NOT NULL,
    start_us INTEGER NOT NULL,
    agent    TEXT NOT NULL,
    deltas   INTEGER NOT NULL,
    late     INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us  INTEGER NOT NULL,
    PRIMARY KEY (slice, start_us, agent)
) WITHOUT ROWID;

-- When rows of a window were written, how many, and why. They go with the rows.
CREATE TABLE catchment_shown (
    id       INTEGER PRIMARY KEY,
    query    TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    end_us   INTEGER NOT NULL,
    coarse   INTEGER NOT NULL,
    at_us    INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    status   TEXT NOT NULL,
    coverage REAL NOT NULL,
    rows     INTEGER NOT NULL
);
CREATE INDEX catchment_shown_window ON catchment_shown (query, start_us);

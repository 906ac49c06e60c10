-- Pipelines are known by fingerprints of their definitions, as 64 bits in a signed integer, and mean the same in every
-- database; agents of version 1 know them by `number`. A rung of a ladder names the pipeline that it is a rung of, others
-- 0. `ordinal` counts up in the order in which they were given out, and the newest of a definition is in force.
CREATE TABLE catchment_pipeline_next (
    id         INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL UNIQUE,
    definition BLOB NOT NULL,
    coarser_of INTEGER NOT NULL DEFAULT 0,
    nonce      INTEGER NOT NULL DEFAULT 0,
    ordinal    INTEGER NOT NULL
);

-- Which database this is: 128 random bits, which its backups keep; and the nonce of what it gives out first.
CREATE TABLE catchment_database (
    id          BLOB NOT NULL,
    first_nonce INTEGER NOT NULL DEFAULT 0
);

-- The epoch that greeted last in each lineage of an agent's state.
CREATE TABLE catchment_lineage (
    agent      TEXT NOT NULL,
    lineage    INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    at_us      INTEGER NOT NULL,
    PRIMARY KEY (agent, lineage)
) WITHOUT ROWID;

-- How often an older copy of an agent's state greeted.
ALTER TABLE catchment_agent ADD COLUMN forks INTEGER NOT NULL DEFAULT 0;

-- The version of the form of a pane's columns.
ALTER TABLE catchment_pane ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- Plan versions alone are counted up from what was given out before; pipelines need no such floor any more.
DELETE FROM catchment_floor WHERE name <> 'plan';

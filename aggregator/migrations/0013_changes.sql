-- The change feed: each time that a row of a result table was written, in the order of commits. Positions rise strictly and
-- have no gaps; `end_us` is NULL where retention let rows go, of windows before `start_us`. Kept while a cursor needs it.
CREATE TABLE catchment_change (
    position INTEGER PRIMARY KEY,
    query    TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    end_us   INTEGER,
    number   INTEGER,
    coarse   INTEGER NOT NULL,
    key      BLOB NOT NULL,
    revision INTEGER NOT NULL
);

-- From where on changes are kept, and where the next one goes.
CREATE TABLE catchment_feed (
    floor INTEGER NOT NULL,
    next  INTEGER NOT NULL
);
INSERT INTO catchment_feed (floor, next) VALUES (1, 1);

-- How far each reader of the feed is. `reread`: it must read the tables anew first; `gaps` counts how often it fell behind.
CREATE TABLE catchment_cursor (
    name     TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    reread   INTEGER NOT NULL,
    gaps     INTEGER NOT NULL
) WITHOUT ROWID;

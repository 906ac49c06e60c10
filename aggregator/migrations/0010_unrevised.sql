-- Windows that have late data and are yet to be revised: the starts of the first and the last of each stretch.
CREATE TABLE catchment_unrevised (
    query    TEXT NOT NULL,
    key      BLOB NOT NULL,
    first_us INTEGER NOT NULL,
    last_us  INTEGER NOT NULL,
    PRIMARY KEY (query, key, first_us)
) WITHOUT ROWID;

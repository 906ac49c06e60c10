-- A definition may have several numbers, of which the largest is in force: a slice that one query leaves and another
-- stays on goes on under a new number, or the query that left would read both and count twice.
CREATE TABLE catchment_slice_next (
    id         INTEGER PRIMARY KEY,
    definition BLOB NOT NULL,
    coarser_of INTEGER NOT NULL DEFAULT 0
);
INSERT INTO catchment_slice_next (id, definition, coarser_of) SELECT id, definition, coarser_of FROM catchment_slice;
DROP TABLE catchment_slice;
ALTER TABLE catchment_slice_next RENAME TO catchment_slice;
CREATE INDEX catchment_slice_definition ON catchment_slice (definition, coarser_of);

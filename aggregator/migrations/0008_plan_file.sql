-- The plan's file that the configuration names, as it was when it was last taken: at most one row. `hash` is XXH64 of its
-- text.
CREATE TABLE catchment_plan_file (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    path TEXT NOT NULL,
    hash INTEGER NOT NULL
);

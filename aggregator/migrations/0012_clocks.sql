-- How far an agent's wall clock was ahead of the aggregator's, as it last said.
ALTER TABLE catchment_agent ADD COLUMN clock_offset_us INTEGER;

-- Agents whose watermarks an operator sets back, and how far (`set-back`): the server does it with its next commit.
CREATE TABLE catchment_set_back (
    agent TEXT PRIMARY KEY,
    to_us INTEGER NOT NULL
) WITHOUT ROWID;

-- How an agent's sources are, as it last said.
ALTER TABLE catchment_agent ADD COLUMN sources TEXT NOT NULL DEFAULT '';

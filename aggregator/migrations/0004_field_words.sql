-- The field's words in place of ours: a *slice* of the plan is a pipeline, and the era of an agent's counters is called
-- so. Statistics are copied as they are.
ALTER TABLE catchment_slice RENAME TO catchment_pipeline;
DROP INDEX catchment_slice_definition;
CREATE INDEX catchment_pipeline_definition ON catchment_pipeline (definition, coarser_of);
ALTER TABLE catchment_query RENAME COLUMN slice TO pipeline;
ALTER TABLE catchment_reader RENAME COLUMN slice TO pipeline;
ALTER TABLE catchment_loss RENAME COLUMN slice TO pipeline;
ALTER TABLE catchment_watermark RENAME COLUMN slice TO pipeline;
ALTER TABLE catchment_counter RENAME COLUMN slice TO pipeline;
ALTER TABLE catchment_counter RENAME COLUMN counting TO era;
ALTER TABLE catchment_pane RENAME COLUMN slice TO pipeline;
ALTER TABLE catchment_contribution RENAME COLUMN slice TO pipeline;
UPDATE catchment_floor SET name = 'pipeline' WHERE name = 'slice';
UPDATE catchment_counter SET name = 'accepted' WHERE name = 'lifted';
UPDATE catchment_counter SET name = 'emitted_early' WHERE name = 'spilled';

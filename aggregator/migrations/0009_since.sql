-- Since when the readings of a query are taken, and since when by the pipeline that it is on; nothing for queries that
-- were there before this was noted. The first plan of a database has the beginning of time.
ALTER TABLE catchment_query ADD COLUMN since_us INTEGER;
ALTER TABLE catchment_query ADD COLUMN on_it_us INTEGER;

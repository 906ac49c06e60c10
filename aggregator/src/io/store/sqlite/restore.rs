//! Start: the newest plan, then everything that the machine must know again.

use std::collections::BTreeMap;

use catchment_common::plan::{PipelineId, Plan, Query, Window};
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::{self, SeqRange};
use rusqlite::{OptionalExtension, Row, params};

use super::{Result, Store, StoreFault, at};
use crate::agents::{About, Standing};
use crate::aggregator::{Aggregator, Settings};
use crate::catalog::{Catalog, Pipelines};
use crate::commit::{AppendedBatch, StoredChunk};
use crate::io::store::tables::{TableSql, parse_time_text};
use crate::window::Aligned;

impl Store {
    /// The newest plan.
    pub fn load_plan(&self) -> Result<Option<Plan>> {
        let newest = "SELECT definition FROM catchment_plan ORDER BY version DESC LIMIT 1";
        let bytes: Option<Vec<u8>> = self
            .connection
            .query_row(newest, [], |row| row.get(0))
            .optional()
            .map_err(at(&self.path))?;
        bytes
            .map(|bytes| wire::parse_plan(&bytes).map_err(|fault| self.content("plan", fault.to_string())))
            .transpose()
    }

    /// The newest plan with its pipelines.
    pub fn load_catalog(&self) -> Result<Catalog> {
        let plan = self.load_plan()?.unwrap_or_default();
        let unknown = |query: &&Query| {
            let is_calendar = matches!(query.window, Window::Calendar { .. });
            is_calendar && Aligned::new(&query.window).is_none()
        };
        if let Some(query) = plan.queries.iter().find(unknown) {
            let problem = format!("the time zone of query `{}` is not known here", query.name);
            return Err(self.content("plan", problem));
        }
        let mut pipelines = Pipelines::default();
        for (id, bytes, of) in self.rows(
            "SELECT id, definition, coarser_of FROM catchment_pipeline",
            |row| {
                Ok((
                    PipelineId(row.get(0)?),
                    row.get::<_, Vec<u8>>(1)?,
                    PipelineId(row.get(2)?),
                ))
            },
        )? {
            let pipeline =
                wire::parse_pipeline(&bytes).map_err(|fault| self.content("pipeline", fault.to_string()))?;
            pipelines.all.insert(id, pipeline);
            if of != PipelineId(0) {
                pipelines.coarser_of.insert(id, of);
            }
        }
        let (mut own, mut before) = (Vec::new(), Vec::new());
        for query in &plan.queries {
            let pipeline = "SELECT pipeline FROM catchment_query WHERE name = ?1";
            let id = self
                .connection
                .query_row(pipeline, [&query.name], |row| row.get(0))
                .map_err(at(&self.path))?;
            own.push(PipelineId(id));
            let read = || {
                let mut statement = self
                    .connection
                    .prepare("SELECT pipeline FROM catchment_reader WHERE query = ?1 ORDER BY pipeline")?;
                statement
                    .query_map([&query.name], |row| row.get(0).map(PipelineId))?
                    .collect::<rusqlite::Result<_>>()
            };
            before.push(read().map_err(at(&self.path))?);
        }
        Ok(Catalog::new(plan, pipelines, &own, &before))
    }

    /// The machine as it was when the last commit became durable.
    pub fn restore(&self, settings: Settings, now: Now) -> Result<Aggregator> {
        let catalog = self.load_catalog()?;
        let mut aggregator = Aggregator::new(settings, catalog, now);
        self.restore_agents(&mut aggregator)?;
        self.restore_queries(&mut aggregator)?;
        let pipelines: Vec<PipelineId> = aggregator.catalog().pipelines.keys().copied().collect();
        for pipeline in pipelines {
            let from = aggregator.restore_panes_from(pipeline);
            let chunks = self.rows_of(
                "SELECT start_us, chunk, columns FROM catchment_pane WHERE pipeline = ?1 AND start_us >= ?2
                 ORDER BY start_us, chunk",
                params![pipeline.0, from.as_micros()],
                |row| {
                    let chunk = StoredChunk {
                        number: row.get(1)?,
                        columns: row.get(2)?,
                    };
                    Ok((Timestamp::clamped(row.get(0)?), chunk))
                },
            )?;
            for (start, chunk) in chunks {
                aggregator.restore_chunk(pipeline, start, &chunk);
            }
        }
        let batches = self.rows(
            "SELECT agent, epoch, seq, frame FROM catchment_batch ORDER BY id",
            |row| {
                Ok(AppendedBatch {
                    agent: row.get(0)?,
                    epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                    seq: row.get::<_, i64>(2)?.cast_unsigned(),
                    frame: row.get::<_, Vec<u8>>(3)?.into(),
                })
            },
        )?;
        for batch in batches {
            aggregator
                .replay(&batch, self)
                .map_err(|fault| self.content("pane", fault.to_string()))?;
        }
        Ok(aggregator)
    }

    fn restore_agents(&self, aggregator: &mut Aggregator) -> Result<()> {
        let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
        for (name, standing) in self.rows(
            "SELECT name, last_heard_us, retired, software, plan_version, backlog_batches, backlog_bytes, conflicts
             FROM catchment_agent",
            |row| {
                let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                let about = About {
                    software: row.get(3)?,
                    plan_version: number(4)?,
                    backlog_batches: number(5)?,
                    backlog_bytes: number(6)?,
                    conflicts: number(7)?,
                };
                let standing = Standing {
                    heard: Timestamp::clamped(row.get(1)?),
                    retired: row.get(2)?,
                    watermarks: BTreeMap::new(),
                    about,
                };
                Ok((row.get::<_, String>(0)?, standing))
            },
        )? {
            standings.insert(name, standing);
        }
        for (agent, pipeline, watermark) in self.rows(
            "SELECT agent, pipeline, watermark_us FROM catchment_watermark",
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)),
        )? {
            if let Some(standing) = standings.get_mut(&agent) {
                standing
                    .watermarks
                    .insert(PipelineId(pipeline), Timestamp::clamped(watermark));
            }
        }
        for (name, standing) in standings {
            aggregator.restore_agent(name, standing);
        }
        for (agent, epoch, first, last) in self.rows(
            "SELECT agent, epoch, first, last FROM catchment_committed",
            |row| {
                let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                Ok((row.get::<_, String>(0)?, number(1)?, number(2)?, number(3)?))
            },
        )? {
            aggregator.restore_range(&agent, epoch, SeqRange { first, last });
        }
        Ok(())
    }

    fn restore_queries(&self, aggregator: &mut Aggregator) -> Result<()> {
        let tables: Vec<TableSql> = aggregator
            .catalog()
            .queries
            .iter()
            .map(|query| TableSql::new(&query.query))
            .collect();
        for (index, table) in tables.iter().enumerate() {
            let through = "SELECT emitted_through_us FROM catchment_query WHERE name = ?1";
            let through: Option<i64> = self
                .connection
                .query_row(through, [&table.name], |row| row.get(0))
                .map_err(at(&self.path))?;
            let Some(through) = through else { continue };
            let provisional = self.rows(&table.provisional, |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
            })?;
            let provisional = provisional.into_iter().filter_map(|(start, end, coverage)| {
                Some((parse_time_text(&start)?, parse_time_text(&end)?, coverage))
            });
            aggregator.restore_query(index, Timestamp::clamped(through), provisional);
        }
        Ok(())
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.rows_of(sql, [], read)
    }

    fn rows_of<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let collect = || {
            let mut statement = self.connection.prepare(sql)?;
            statement
                .query_map(parameters, read)?
                .collect::<rusqlite::Result<_>>()
        };
        collect().map_err(at(&self.path))
    }

    fn content(&self, what: &'static str, problem: String) -> StoreFault {
        StoreFault::Content {
            path: self.path.clone(),
            what,
            problem,
        }
    }
}

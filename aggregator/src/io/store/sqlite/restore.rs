//! Start: the newest plan, then everything that the machine must know again.

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::plan::{PipelineId, Plan, Query, Window};
use catchment_common::time::{Span, Timestamp};
use catchment_common::wire::lineage::DatabaseId;
use catchment_common::wire::{self, SeqRange};
use rusqlite::{OptionalExtension, Row, params};
use tracing::{error, warn};

use super::pipelines::{self, bits, id_at};
use super::{Sqlite, at};
use crate::agents::{About, Standing};
use crate::catalog::Catalog;
use crate::commit::{AppendedBatch, PaneSource, SourceFault, StoredChunk, Unrevised};
use crate::io::store::sources;
use crate::io::store::tables::TableSql;
use crate::lineages::Newest;
use crate::pipelines::Pipelines;
use crate::plan_toml;
use crate::store::text::parse_time_text;
use crate::store::{PlanFile, Reads, Result, ShownThrough, StoreFault, TakeBatch, TakeChunk, TakeRange};
use crate::window::Aligned;

impl Sqlite {
    /// The newest plan. Should its stored form not be readable, its text is read again.
    pub fn load_plan(&self) -> Result<Option<Plan>> {
        let newest = "SELECT version, definition, source FROM catchment_plan ORDER BY version DESC LIMIT 1";
        let newest = self.connection.query_row(newest, [], |row| {
            let version = row.get::<_, i64>(0)?.cast_unsigned();
            Ok((version, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?))
        });
        let Some((version, bytes, source)) = newest.optional().map_err(at(&self.path))? else {
            return Ok(None);
        };
        let fault = match wire::parse_plan(&bytes) {
            Ok(plan) => return Ok(Some(plan)),
            Err(fault) => fault,
        };
        let plan = plan_toml::parse(&source, "the stored plan").map_err(|error| {
            let problem = format!("{fault}; nor can its text: {error}; give it again with `plan apply`");
            self.content("plan", problem)
        })?;
        warn!(%fault, version, "the stored form of the plan cannot be read; its text is read again");
        Ok(Some(Plan { version, ..plan }))
    }

    /// Everything that was given out. What cannot be read is made again from the plan, where it can be.
    pub(super) fn load_pipelines(&self, plan: &Plan) -> Result<Pipelines> {
        let (pipelines, unreadable) = pipelines::load(&self.connection, plan).map_err(at(&self.path))?;
        for (id, fault) in unreadable {
            error!(pipeline = %id, %fault, "a stored pipeline cannot be read; what agents hold of it is refused");
        }
        Ok(pipelines)
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.each(sql, [], |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// Hands each row of a statement to `take`, without keeping them.
    pub(super) fn each(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let visit = || {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query(parameters)?;
            while let Some(row) = rows.next()? {
                take(row)?;
            }
            Ok(())
        };
        visit().map_err(at(&self.path))
    }

    pub(super) fn content(&self, what: &'static str, problem: String) -> StoreFault {
        StoreFault::Content {
            path: self.path.clone(),
            what,
            problem,
        }
    }
}

impl Sqlite {
    /// The windows of a query that are yet to be revised.
    fn unrevised(&self, query: &str) -> Result<Vec<Unrevised>> {
        let mut all: BTreeMap<Vec<u8>, Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
        let stretches = "SELECT key, first_us, last_us FROM catchment_unrevised WHERE query = ?1";
        self.each(stretches, [query], |row| {
            let at = |column| row.get(column).map(Timestamp::clamped);
            all.entry(row.get(0)?).or_default().push((at(1)?, at(2)?));
            Ok(())
        })?;
        let unrevised = all.into_iter().map(|(key, windows)| Unrevised {
            key: key.into(),
            windows,
        });
        Ok(unrevised.collect())
    }
}

impl Reads for Sqlite {
    /// The newest plan's version; 0 before the first.
    fn plan_version(&self) -> Result<u64> {
        let version = "SELECT coalesce(max(version), 0) FROM catchment_plan";
        self.connection
            .query_row(version, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
            .map_err(at(&self.path))
    }

    /// The newest plan's text.
    fn plan_source(&self) -> Result<Option<String>> {
        let newest = "SELECT source FROM catchment_plan ORDER BY version DESC LIMIT 1";
        self.connection
            .query_row(newest, [], |row| row.get(0))
            .optional()
            .map_err(at(&self.path))
    }

    fn had_plan(&self, source: &str) -> Result<bool> {
        let any = "SELECT EXISTS (SELECT 1 FROM catchment_plan WHERE source = ?1)";
        let any = self.connection.query_row(any, [source], |row| row.get(0));
        any.map_err(at(&self.path))
    }

    fn plan_file(&self) -> Result<Option<PlanFile>> {
        let file = self
            .connection
            .query_row("SELECT path, hash FROM catchment_plan_file", [], |row| {
                Ok(PlanFile {
                    path: row.get(0)?,
                    hash: row.get::<_, i64>(1)?.cast_unsigned(),
                })
            });
        file.optional().map_err(at(&self.path))
    }

    /// The agents that an operator has retired.
    fn retired(&self) -> Result<BTreeSet<String>> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT name FROM catchment_agent WHERE retired")?;
            statement
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(at(&self.path))
    }

    fn to_forget(&self) -> Result<BTreeSet<String>> {
        let all = self.rows("SELECT agent FROM catchment_forget", |row| row.get(0))?;
        Ok(all.into_iter().collect())
    }

    /// The newest plan with its pipelines.
    fn catalog(&self) -> Result<Catalog> {
        let plan = self.load_plan()?.unwrap_or_default();
        let unknown = |query: &&Query| {
            let is_calendar = matches!(query.window, Window::Calendar { .. });
            is_calendar && Aligned::new(&query.window).is_none()
        };
        if let Some(query) = plan.queries.iter().find(unknown) {
            let problem = format!("the time zone of query `{}` is not known here", query.name);
            return Err(self.content("plan", problem));
        }
        let pipelines = self.load_pipelines(&plan)?;
        let standings = plan.queries.iter().map(|query| self.standing_of(&query.name));
        let standings = standings.collect::<Result<Vec<_>>>()?.into_iter();
        let (own, since): (Vec<_>, Vec<_>) = standings.map(|own| (own.pipeline, own.since)).unzip();
        Ok(Catalog::new(plan, pipelines, &own).since(since))
    }

    fn database(&self) -> Result<DatabaseId> {
        let id = "SELECT id FROM catchment_database";
        let id = self.connection.query_row(id, [], |row| row.get::<_, [u8; 16]>(0));
        id.map(|id| DatabaseId(u128::from_le_bytes(id)))
            .map_err(at(&self.path))
    }

    fn lineages(&self) -> Result<Vec<(String, Newest)>> {
        self.rows(
            "SELECT agent, lineage, generation, epoch FROM catchment_lineage ORDER BY at_us DESC",
            |row| {
                let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                let newest = Newest {
                    lineage: number(1)?,
                    generation: number(2)?,
                    epoch: number(3)?,
                };
                Ok((row.get(0)?, newest))
            },
        )
    }

    fn standings(&self) -> Result<BTreeMap<String, Standing>> {
        let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
        for (name, standing) in self.rows(
            "SELECT name, last_heard_us, retired, software, plan_version, backlog_batches, backlog_bytes, conflicts, forks,
                    sources, clock_offset_us
             FROM catchment_agent",
            |row| {
                let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                let about = About {
                    software: row.get(3)?,
                    plan_version: number(4)?,
                    backlog_batches: number(5)?,
                    backlog_bytes: number(6)?,
                    conflicts: number(7)?,
                    forks: number(8)?,
                    sources: sources::from_text(&row.get::<_, String>(9)?),
                    clock_offset: row.get::<_, Option<i64>>(10)?.map(Span::from_micros),
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
            |row| Ok((row.get::<_, String>(0)?, id_at(row, 1)?, row.get(2)?)),
        )? {
            if let Some(standing) = standings.get_mut(&agent) {
                standing
                    .watermarks
                    .insert(pipeline, Timestamp::clamped(watermark));
            }
        }
        Ok(standings)
    }

    fn committed(&self, take: TakeRange<'_>) -> Result<()> {
        self.each(
            "SELECT agent, epoch, first, last FROM catchment_committed",
            [],
            |row| {
                let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                let agent: String = row.get(0)?;
                let range = SeqRange {
                    first: number(2)?,
                    last: number(3)?,
                };
                take(&agent, number(1)?, range);
                Ok(())
            },
        )
    }

    fn shown_through(&self, query: &Query) -> Result<Option<ShownThrough>> {
        let table = TableSql::new(query);
        let through = "SELECT emitted_through_us FROM catchment_query WHERE name = ?1";
        let through: Option<i64> = self
            .connection
            .query_row(through, [&table.name], |row| row.get(0))
            .map_err(at(&self.path))?;
        let Some(through) = through else { return Ok(None) };
        let provisional = self.rows(&table.provisional, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
        })?;
        let provisional = provisional.into_iter().filter_map(|(start, end, coverage)| {
            Some((parse_time_text(&start)?, parse_time_text(&end)?, coverage))
        });
        Ok(Some(ShownThrough {
            through: Timestamp::clamped(through),
            provisional: provisional.collect(),
            unrevised: self.unrevised(&query.name)?,
        }))
    }

    fn panes_from(&self, pipeline: PipelineId, from: Timestamp, take: TakeChunk<'_>) -> Result<()> {
        self.each(
            "SELECT start_us, chunk, columns FROM catchment_pane WHERE pipeline = ?1 AND start_us >= ?2
             ORDER BY start_us, chunk",
            params![bits(pipeline), from.as_micros()],
            |row| {
                let chunk = StoredChunk {
                    number: row.get(1)?,
                    columns: row.get(2)?,
                };
                take(Timestamp::clamped(row.get(0)?), chunk);
                Ok(())
            },
        )
    }

    fn batches(&self, take: TakeBatch<'_>) -> Result<()> {
        let mut result = Ok(());
        self.each(
            "SELECT agent, epoch, seq, frame FROM catchment_batch ORDER BY id",
            [],
            |row| {
                if result.is_ok() {
                    result = take(AppendedBatch {
                        agent: row.get(0)?,
                        epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                        seq: row.get::<_, i64>(2)?.cast_unsigned(),
                        frame: row.get::<_, Vec<u8>>(3)?.into(),
                    });
                }
                Ok(())
            },
        )?;
        Ok(result?)
    }
}

impl PaneSource for Sqlite {
    fn chunks(
        &self,
        pipeline: PipelineId,
        pane: Timestamp,
    ) -> std::result::Result<Vec<StoredChunk>, SourceFault> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT chunk, columns FROM catchment_pane WHERE pipeline = ?1 AND start_us = ?2 ORDER BY chunk",
            )?;
            statement
                .query_map(params![bits(pipeline), pane.as_micros()], |row| {
                    Ok(StoredChunk {
                        number: row.get(0)?,
                        columns: row.get(1)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error: rusqlite::Error| SourceFault(at(&self.path)(error).to_string()))
    }

    fn starts(
        &self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> std::result::Result<Vec<Timestamp>, SourceFault> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT DISTINCT start_us FROM catchment_pane WHERE pipeline = ?1 AND start_us BETWEEN ?2 AND ?3",
            )?;
            statement
                .query_map(params![bits(pipeline), from.as_micros(), to.as_micros()], |row| {
                    row.get(0).map(Timestamp::clamped)
                })?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error: rusqlite::Error| SourceFault(at(&self.path)(error).to_string()))
    }
}

//! A store in memory that does what the SQLite one does: applies commits whole, gives a machine back, and numbers plans
//! and pipelines.

use std::collections::{BTreeMap, BTreeSet};

use catchment_aggregator::agents::{About, Standing};
use catchment_aggregator::aggregator::{Aggregator, Settings};
use catchment_aggregator::catalog::{Catalog, Pipelines, keeps_its_number};
use catchment_aggregator::commit::{
    AgentRow, AppendedBatch, Commit, CountedRow, PaneSource, QueryResults, Row, SourceFault, StoredChunk,
    WindowStatus,
};
use catchment_common::metrics::Counter;
use catchment_common::plan::{Pipeline, PipelineId, Plan, Query};
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::SeqRange;

/// Names a row: start, end, whether coarse, key.
pub type RowName = (Timestamp, Timestamp, bool, Box<[u8]>);

/// Names a row of a count window: key and number.
pub type CountedName = (Box<[u8]>, Timestamp);

/// A result row as it stands in its table.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The row.
    pub row: Row,
    /// Whether all expected agents have passed its end.
    pub is_final: bool,
    /// What it says about who has.
    pub coverage: f64,
    /// How often it was written.
    pub revision: u64,
    /// Whether it has become part of an earlier session.
    pub is_merged: bool,
}

/// A query's table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The horizon.
    pub through: Option<Timestamp>,
    /// The rows.
    pub rows: BTreeMap<RowName, Stored>,
    /// The rows of count windows: by key, whose last tag is the agent, and number; and how often each was
    /// written.
    pub counted: BTreeMap<CountedName, (CountedRow, u64)>,
    own: PipelineId0,
    readers: BTreeSet<PipelineId>,
}

/// A pipeline's number, 0 before there is one.
#[derive(Clone, Copy, Debug)]
struct PipelineId0(PipelineId);

impl Default for PipelineId0 {
    fn default() -> Self {
        Self(PipelineId(0))
    }
}

/// All that is durable at the centre.
#[derive(Clone, Debug, Default)]
pub struct Store {
    plan: Plan,
    pipelines: Pipelines,
    plan_floor: u64,
    batches: Vec<AppendedBatch>,
    committed: BTreeMap<(String, u64), Vec<SeqRange>>,
    watermarks: BTreeMap<(String, PipelineId), Timestamp>,
    agents: BTreeMap<String, AgentRow>,
    /// Readings given up, by agent, epoch, seq and pipeline.
    pub losses: BTreeMap<(String, u64, u64, PipelineId), u64>,
    /// Counters by agent, era, pipeline and counter.
    pub counters: BTreeMap<(String, u64, PipelineId, Counter), u64>,
    panes: BTreeMap<(PipelineId, Timestamp, u32), Vec<u8>>,
    /// Result tables by query.
    pub tables: BTreeMap<String, Table>,
}

impl Store {
    /// Puts a plan of these queries into force.
    pub fn apply_plan(&mut self, queries: Vec<Query>) {
        let plan = Plan {
            version: self.plan.version.max(self.plan_floor) + 1,
            queries,
        };
        let planned = plan.pipelines();
        let read: Vec<Vec<PipelineId>> = plan
            .queries
            .iter()
            .map(|query| {
                self.tables
                    .get(&query.name)
                    .map_or(Vec::new(), |table| table.readers.iter().copied().collect())
            })
            .collect();
        let mut numbers = Vec::new();
        for (index, (base, ladder)) in planned.pipelines.iter().zip(&planned.ladders).enumerate() {
            let queries = planned.readers.iter().zip(&read);
            let queries = queries.map(|((own, _), read)| (*own == index, read.as_slice()));
            let known = self
                .known_pipeline(base, None)
                .filter(|&known| keeps_its_number(known, queries));
            let id = known.unwrap_or_else(|| self.number_pipeline(base, None));
            for &pane in ladder {
                let rung = Pipeline { pane, ..base.clone() };
                if self.known_pipeline(&rung, Some(id)).is_none() {
                    self.number_pipeline(&rung, Some(id));
                }
            }
            numbers.push(id);
        }
        for (query, (index, _)) in plan.queries.iter().zip(&planned.readers) {
            let id = numbers[*index];
            let table = self.tables.entry(query.name.clone()).or_default();
            table.own = PipelineId0(id);
            table.readers.insert(id);
        }
        self.plan = plan;
    }

    /// The pipelines that a query has read, and the coarser ones of all of them.
    pub fn family(&self, query: &str) -> BTreeSet<PipelineId> {
        let own = self.tables.get(query).map(|table| &table.readers);
        let is_own = |id: &PipelineId| own.is_some_and(|own| own.contains(id));
        let Pipelines { all, coarser_of } = &self.pipelines;
        all.keys()
            .copied()
            .filter(|id| is_own(id) || coarser_of.get(id).is_some_and(is_own))
            .collect()
    }

    /// The newest number of a definition.
    fn known_pipeline(&self, pipeline: &Pipeline, of: Option<PipelineId>) -> Option<PipelineId> {
        let Pipelines { all, coarser_of } = &self.pipelines;
        let mut known = all.iter().rev();
        known
            .find(|(id, held)| *held == pipeline && coarser_of.get(id).copied() == of)
            .map(|(&id, _)| id)
    }

    fn number_pipeline(&mut self, pipeline: &Pipeline, of: Option<PipelineId>) -> PipelineId {
        let Pipelines { all, coarser_of } = &mut self.pipelines;
        let id = PipelineId(all.keys().next_back().map_or(1, |last| last.0 + 1));
        all.insert(id, pipeline.clone());
        if let Some(of) = of {
            coarser_of.insert(id, of);
        }
        id
    }

    /// The plan in force with its pipelines.
    pub fn catalog(&self) -> Catalog {
        let own: Vec<PipelineId> = self
            .plan
            .queries
            .iter()
            .map(|query| self.tables[&query.name].own.0)
            .collect();
        let readers = self
            .plan
            .queries
            .iter()
            .map(|query| self.tables[&query.name].readers.iter().copied().collect())
            .collect::<Vec<_>>();
        Catalog::new(self.plan.clone(), self.pipelines.clone(), &own, &readers)
    }

    /// An older state of this store takes its place, as the `restore` command does it: numbers go on, and the newer
    /// plan is put into force again.
    pub fn restore_backup(&mut self, backup: &Self) {
        let replaced = std::mem::replace(self, backup.clone());
        self.pipelines = replaced.pipelines;
        for (query, table) in replaced.tables {
            self.tables
                .entry(query)
                .or_default()
                .readers
                .extend(table.readers);
        }
        self.plan_floor = replaced.plan_floor.max(replaced.plan.version);
        if replaced.plan.version > self.plan.version {
            self.apply_plan(replaced.plan.queries);
        }
    }

    /// Makes a commit durable. `names` are the queries that its indices mean.
    pub fn commit(&mut self, commit: &Commit, names: &[String]) {
        assert_eq!(commit.set_aside, [], "all that is stored can be read");
        for (agent, epoch, ranges) in &commit.committed {
            self.committed.insert((agent.clone(), *epoch), ranges.clone());
        }
        for (agent, pipeline, watermark) in &commit.watermarks {
            self.watermarks.insert((agent.clone(), *pipeline), *watermark);
        }
        for agent in &commit.agents {
            self.agents.insert(agent.name.clone(), agent.clone());
        }
        for (agent, loss) in &commit.losses {
            for entry in &loss.entries {
                let name = (agent.clone(), loss.epoch, loss.seq, entry.pipeline);
                *self.losses.entry(name).or_default() += entry.readings;
            }
        }
        for (agent, era, pipeline, counter, value) in &commit.counters {
            self.counters
                .insert((agent.clone(), *era, *pipeline, *counter), *value);
        }
        for results in &commit.results {
            // Of a query that is no longer in the plan nothing is shown.
            let name = &names[results.query];
            let is_known = self.plan.queries.iter().any(|query| query.name == *name);
            if let Some(table) = self.tables.get_mut(name).filter(|_| is_known) {
                table.write(results);
            }
        }
        let Some(checkpoint) = &commit.checkpoint else {
            self.batches.extend(commit.batches.iter().cloned());
            return;
        };
        self.batches.clear();
        for pane in &checkpoint.panes {
            let (pipeline, start) = (pane.pipeline, pane.start);
            let held = (pipeline, start, 0)..=(pipeline, start, u32::MAX);
            let held: Vec<_> = self.panes.range(held).map(|(name, _)| *name).collect();
            for name in held {
                self.panes.remove(&name);
            }
            for (number, columns) in (0..).zip(&pane.chunks) {
                self.panes.insert((pipeline, start, number), columns.clone());
            }
        }
    }

    /// The machine as it was when the last commit became durable.
    pub fn restore(&self, settings: Settings, now: Now) -> Aggregator {
        let mut aggregator = Aggregator::new(settings, self.catalog(), now);
        self.restore_agents(&mut aggregator);
        for (index, query) in self.plan.queries.iter().enumerate() {
            let table = &self.tables[&query.name];
            let Some(through) = table.through else { continue };
            let provisional: BTreeMap<(Timestamp, Timestamp), f64> = table
                .rows
                .iter()
                .filter(|((_, _, coarse, _), stored)| !coarse && !stored.is_final)
                .map(|((start, end, ..), stored)| ((*start, *end), stored.coverage))
                .collect();
            let provisional = provisional.into_iter();
            let provisional = provisional.map(|((start, end), coverage)| (start, end, coverage));
            aggregator.restore_query(index, through, provisional);
        }
        let pipelines: Vec<PipelineId> = self.pipelines.all.keys().copied().collect();
        let from = pipelines
            .into_iter()
            .map(|pipeline| (pipeline, aggregator.restore_panes_from(pipeline)));
        let from: BTreeMap<PipelineId, Timestamp> = from.collect();
        for (&(pipeline, start, number), columns) in &self.panes {
            if start >= from[&pipeline] {
                let columns = columns.clone();
                aggregator.restore_chunk(pipeline, start, &StoredChunk { number, columns });
            }
        }
        for batch in &self.batches {
            aggregator
                .replay(batch, self)
                .expect("a store in memory can be read");
        }
        aggregator
    }

    fn restore_agents(&self, aggregator: &mut Aggregator) {
        for (name, row) in &self.agents {
            let watermarks = self
                .watermarks
                .iter()
                .filter(|((agent, _), _)| agent == name)
                .map(|((_, pipeline), watermark)| (*pipeline, *watermark))
                .collect();
            let about = About {
                software: row.software.clone(),
                plan_version: row.plan_version,
                backlog_batches: row.backlog_batches,
                backlog_bytes: row.backlog_bytes,
                conflicts: row.conflicts,
            };
            let standing = Standing {
                heard: row.heard,
                retired: false,
                watermarks,
                about,
            };
            aggregator.restore_agent(name.clone(), standing);
        }
        for ((agent, epoch), ranges) in &self.committed {
            for &range in ranges {
                aggregator.restore_range(agent, *epoch, range);
            }
        }
    }
}

impl Table {
    /// Takes a session's row out, whatever its end was, and marks those of its key that start within it as merged.
    fn take_session(&mut self, name: &RowName) -> Option<Stored> {
        let (start, end, _, key) = name;
        let same_key = |(_, _, coarse, of): &RowName| !coarse && of == key;
        let within = |at: &Timestamp| start < at && at < end;
        for (_, stored) in self
            .rows
            .iter_mut()
            .filter(|(name, _)| same_key(name) && within(&name.0))
        {
            if !stored.is_merged {
                stored.is_merged = true;
                stored.revision += 1;
                stored.row.readings = 0;
                stored.row.values.fill(None);
            }
        }
        let old = self.rows.keys().find(|name| same_key(name) && name.0 == *start);
        let old = old.cloned()?;
        self.rows.remove(&old)
    }

    fn write(&mut self, results: &QueryResults) {
        for window in &results.windows {
            let WindowStatus {
                start,
                end,
                is_final,
                coverage,
            } = window.status;
            for row in &window.rows {
                let name = (start, end, window.is_coarse, row.key.clone());
                let before = if window.is_session {
                    self.take_session(&name)
                } else {
                    self.rows.remove(&name)
                };
                let revision = before.map_or(1, |stored| stored.revision + 1);
                let stored = Stored {
                    row: row.clone(),
                    is_final,
                    coverage,
                    revision,
                    is_merged: false,
                };
                self.rows.insert(name, stored);
            }
        }
        for row in &results.counted {
            let held = self.counted.entry((row.row.key.clone(), row.number));
            let revision = held.or_insert_with(|| (row.clone(), 0));
            *revision = (row.clone(), revision.1 + 1);
        }
        for status in &results.statuses {
            for ((start, end, coarse, _), stored) in &mut self.rows {
                if (*start, *end) == (status.start, status.end) && !coarse && !stored.is_merged {
                    stored.is_final = status.is_final;
                    stored.coverage = status.coverage;
                }
            }
        }
        self.through = results.emitted_through.or(self.through);
    }
}

impl PaneSource for Store {
    fn chunks(&self, pipeline: PipelineId, pane: Timestamp) -> Result<Vec<StoredChunk>, SourceFault> {
        let range = (pipeline, pane, 0)..=(pipeline, pane, u32::MAX);
        Ok(self
            .panes
            .range(range)
            .map(|((_, _, number), columns)| StoredChunk {
                number: *number,
                columns: columns.clone(),
            })
            .collect())
    }

    fn starts(
        &self,
        pipeline: PipelineId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Timestamp>, SourceFault> {
        let range = (pipeline, from, 0)..=(pipeline, to, u32::MAX);
        let starts: BTreeSet<Timestamp> = self.panes.range(range).map(|((_, start, _), _)| *start).collect();
        Ok(starts.into_iter().collect())
    }
}

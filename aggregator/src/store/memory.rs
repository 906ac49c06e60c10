//! A store in memory: for simulations and tests, and as the plain statement of what a store does.

mod changes;

mod lookup;

mod table;

use std::collections::{BTreeMap, BTreeSet};

use catchment_common::metrics::Counter;
use catchment_common::plan::{PipelineId, Plan, Query};
use catchment_common::sketch::hash;
use catchment_common::time::Timestamp;
use catchment_common::wire::SeqRange;
use catchment_common::wire::lineage::DatabaseId;

pub use self::table::{CountedName, Defined, RowName, Stored, Table, Written};
use super::changes::What;
use super::{PlanFile, Reads, Result, ShownThrough, Store, TakeBatch, TakeChunk, TakeRange, check_changes};
use crate::agents::{About, Standing};
use crate::catalog::Catalog;
use crate::catalog::since::{self, standing};
use crate::commit::{
    AgentRow, AppendedBatch, Checkpoint, Commit, Contribution, Forgotten, PaneSource, SetAside, SourceFault,
    StoredChunk, Unreadable,
};
use crate::lineages::Newest;
use crate::pipelines::Pipelines;

/// Names a loss: agent, epoch, seq, pipeline and start of the earliest lost pane.
pub type LossName = (String, u64, u64, PipelineId, Timestamp);

/// Names what an agent has shipped of a pane: pipeline, pane and agent.
pub type ContributionName = (PipelineId, Timestamp, String);

/// What a commit has done to result tables, by query.
type Changed = Vec<(String, What)>;

/// All that is durable at the centre.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Which database this is.
    pub database: DatabaseId,
    /// Nonces given out, in this state of the database or any other.
    nonces: u64,
    plan: Plan,
    /// Every plan that was put into force, the newest last.
    plans: Vec<Plan>,
    /// Their texts.
    sources: Vec<String>,
    plan_file: Option<PlanFile>,
    pipelines: Pipelines,
    /// The largest plan version that may have been given out.
    plan_floor: u64,
    /// The pipeline that each query is on, and how long.
    own: BTreeMap<String, since::Standing>,
    batches: Vec<AppendedBatch>,
    /// For each agent and epoch the first seqs of ranges, with their last.
    committed: BTreeMap<(String, u64), BTreeMap<u64, u64>>,
    watermarks: BTreeMap<(String, PipelineId), Timestamp>,
    agents: BTreeMap<String, AgentRow>,
    lineages: BTreeMap<(String, u64), Newest>,
    /// Losses of unknown size: agent, epoch and seq.
    pub unknown: BTreeSet<(String, u64, u64)>,
    retired: BTreeSet<String>,
    to_forget: BTreeSet<String>,
    /// The end of the latest lost pane, and readings given up.
    pub losses: BTreeMap<LossName, (Timestamp, u64)>,
    /// Counters by agent, era, pipeline and counter.
    pub counters: BTreeMap<(String, u64, PipelineId, Counter), u64>,
    /// What agents have shipped, and when the first and the last of it was committed.
    pub contributions: BTreeMap<ContributionName, (Contribution, Timestamp, Timestamp)>,
    panes: BTreeMap<(PipelineId, Timestamp, u32), Vec<u8>>,
    /// What could not be read, with its bytes.
    pub set_aside: Vec<(SetAside, Vec<u8>)>,
    /// Result tables by query.
    pub tables: BTreeMap<String, Table>,
    feed: changes::Kept,
}

impl Memory {
    /// An empty database.
    pub fn new(database: DatabaseId) -> Self {
        Self {
            database,
            ..Self::default()
        }
    }

    /// The pipelines that a query has read, and the coarser ones of all of them.
    pub fn family(&self, query: &str) -> BTreeSet<PipelineId> {
        let Pipelines {
            all,
            coarser_of,
            readers,
            ..
        } = &self.pipelines;
        let is_own = |id: &PipelineId| readers.get(query).is_some_and(|own| own.contains(id));
        all.keys()
            .copied()
            .filter(|id| is_own(id) || coarser_of.get(id).is_some_and(is_own))
            .collect()
    }

    /// An older state of this store takes its place, as the `restore` command does it: what was given out stays known,
    /// and the newer plan is put into force again.
    pub fn restore_backup(&mut self, backup: &Self, now: Timestamp) {
        let replaced = std::mem::replace(self, backup.clone());
        self.pipelines = replaced.pipelines;
        self.nonces = replaced.nonces;
        self.plan_floor = replaced.plan_floor.max(replaced.plan.version);
        self.feed.break_off(replaced.feed.next());
        if replaced.plan.version > self.plan.version {
            let source = replaced.sources.last().cloned().unwrap_or_default();
            self.put_into_force(replaced.plan, &source, now);
        }
    }

    /// Every plan that was put into force, the newest last.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// How long the queries of the plan in force have been in plans.
    fn in_force(&self) -> BTreeMap<String, since::Standing> {
        let queries = { self.plan.queries.iter() }.map(|query| (query.name.clone(), self.own[&query.name]));
        queries.collect()
    }

    /// Puts a plan into force, whatever was before.
    fn put_into_force(&mut self, mut plan: Plan, source: &str, now: Timestamp) -> u64 {
        let before = (!self.sources.is_empty()).then(|| self.in_force());
        plan.version = self.plan.version.max(self.plan_floor) + 1;
        let (database, nonces) = (self.database, &mut self.nonces);
        let nonce = || {
            *nonces += 1;
            hash(format!("{} {nonces}", database.0).as_bytes())
        };
        let (own, _) = self.pipelines.assign(&plan, nonce);
        for (query, id) in plan.queries.iter().zip(own) {
            let name = query.name.clone();
            let standing = standing(&name, id, before.as_ref(), now);
            self.own.insert(name.clone(), standing);
            let table = self.tables.entry(name).or_insert_with(|| Table::of(query));
            table.widen(query);
        }
        self.plans.push(plan.clone());
        self.plan = plan;
        self.sources.push(source.to_owned());
        self.plan.version
    }

    fn set_aside(&mut self, aside: &SetAside) {
        let bytes = match &aside.what {
            Unreadable::Chunk {
                pipeline,
                pane,
                end,
                number,
            } => {
                let name = (String::new(), 0, 0, *pipeline, *pane);
                self.losses.entry(name).or_insert((*end, 0));
                self.panes.remove(&(*pipeline, *pane, *number))
            }
            Unreadable::Batch { agent, epoch, seq } => {
                let nothing = Timestamp::clamped(0);
                let name = (agent.clone(), *epoch, *seq, PipelineId::NONE, nothing);
                self.losses.entry(name).or_insert((nothing, 0));
                let is_it = |batch: &mut AppendedBatch| {
                    (&batch.agent, batch.epoch, batch.seq) == (agent, *epoch, *seq)
                };
                let batch = self.batches.extract_if(.., is_it).next();
                batch.map(|batch| batch.frame.to_vec())
            }
        };
        if let Some(bytes) = bytes {
            self.set_aside.push((aside.clone(), bytes));
        }
    }

    fn take_inputs(&mut self, commit: &Commit) {
        for Forgotten { agent, epochs } in &commit.forgotten {
            self.to_forget.remove(agent);
            self.committed
                .retain(|(of, epoch), _| of != agent || !epochs.contains(epoch));
        }
        for (agent, epoch, changed) in &commit.committed {
            let held = self.committed.entry((agent.clone(), *epoch)).or_default();
            for &range in changed {
                held.retain(|&first, _| !(range.first..=range.last).contains(&first));
                held.insert(range.first, range.last);
            }
        }
        for (agent, pipeline, watermark) in &commit.watermarks {
            self.watermarks.insert((agent.clone(), *pipeline), *watermark);
        }
        for (agent, newest) in &commit.lineages {
            self.lineages.insert((agent.clone(), newest.lineage), *newest);
        }
        for agent in &commit.agents {
            if agent.returned {
                self.retired.remove(&agent.name);
            }
            self.agents.insert(agent.name.clone(), agent.clone());
        }
        for (agent, loss) in &commit.losses {
            if loss.entries.is_empty() {
                self.unknown.insert((agent.clone(), loss.epoch, loss.seq));
            }
            let name = |pipeline, from| (agent.clone(), loss.epoch, loss.seq, pipeline, from);
            for entry in &loss.entries {
                let held = self.losses.entry(name(entry.pipeline, entry.from));
                let held = held.or_insert((entry.to, 0));
                *held = (held.0.max(entry.to), held.1 + entry.readings);
            }
            if loss.entries.is_empty() {
                let nothing = Timestamp::clamped(0);
                self.losses
                    .entry(name(PipelineId::NONE, nothing))
                    .or_insert((nothing, 0));
            }
        }
        for (agent, era, pipeline, counter, value) in &commit.counters {
            self.counters
                .insert((agent.clone(), *era, *pipeline, *counter), *value);
        }
        for more in &commit.contributions {
            let name = (more.pipeline, more.pane, more.agent.clone());
            let held = self.contributions.entry(name);
            let held = held.or_insert_with(|| {
                let none = Contribution {
                    deltas: 0,
                    late: 0,
                    ..more.clone()
                };
                (none, commit.at, commit.at)
            });
            held.0.deltas += more.deltas;
            held.0.late += more.late;
            held.2 = commit.at;
        }
    }

    fn take_checkpoint(&mut self, commit: &Commit, checkpoint: &Checkpoint, changed: &mut Changed) {
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
        for &(query, before) in &checkpoint.expired.rows {
            let query = &commit.queries[query];
            let table = self.tables.get_mut(&query.name);
            if table.is_some_and(|table| table.expire(query, before)) {
                changed.push((query.name.clone(), What::Expired(before)));
            }
        }
        for &(of, before) in &checkpoint.expired.panes {
            self.panes
                .retain(|&(pipeline, start, _), _| pipeline != of || start >= before);
            self.contributions
                .retain(|&(pipeline, start, _), _| pipeline != of || start >= before);
        }
    }
}

impl Store for Memory {
    fn apply_plan(&mut self, plan: Plan, source: &str, now: Timestamp) -> Result<u64> {
        let mut before = self.plans.iter().rev().cloned();
        check_changes(&plan, || Ok(before.next()))?;
        Ok(self.put_into_force(plan, source, now))
    }

    fn set_plan_file(&mut self, file: Option<&PlanFile>) -> Result<()> {
        self.plan_file = file.cloned();
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<()> {
        for aside in &commit.set_aside {
            self.set_aside(aside);
        }
        self.take_inputs(commit);
        let mut changed = Changed::new();
        for results in &commit.results {
            let name = &commit.queries[results.query].name;
            if let Some(table) = self.tables.get_mut(name) {
                table.write(results, &commit.queries, commit.at, &mut |row, revision| {
                    changed.push((name.clone(), What::Written(row, revision)));
                });
            }
        }
        match &commit.checkpoint {
            None => self.batches.extend(commit.batches.iter().cloned()),
            Some(checkpoint) => self.take_checkpoint(commit, checkpoint, &mut changed),
        }
        self.feed.take(changed);
        Ok(())
    }

    fn retire(&mut self, agent: &str, forget: bool) -> Result<bool> {
        let is_known = self.agents.contains_key(agent);
        if is_known {
            self.retired.insert(agent.to_owned());
        }
        if is_known && forget {
            self.to_forget.insert(agent.to_owned());
        }
        Ok(is_known)
    }
}

impl Reads for Memory {
    fn plan_version(&self) -> Result<u64> {
        Ok(self.plan.version)
    }

    fn catalog(&self) -> Result<Catalog> {
        let queries = || self.plan.queries.iter();
        let own = queries().map(|query| self.own[&query.name]);
        let (own, since): (Vec<_>, Vec<_>) = own.map(|own| (own.pipeline, own.since)).unzip();
        let catalog = Catalog::new(self.plan.clone(), self.pipelines.clone(), &own);
        Ok(catalog.since(since))
    }

    fn database(&self) -> Result<DatabaseId> {
        Ok(self.database)
    }

    fn lineages(&self) -> Result<Vec<(String, Newest)>> {
        let all = self.lineages.iter();
        Ok(all.map(|((agent, _), newest)| (agent.clone(), *newest)).collect())
    }

    fn plan_source(&self) -> Result<Option<String>> {
        Ok(self.sources.last().cloned())
    }

    fn had_plan(&self, source: &str) -> Result<bool> {
        Ok(self.sources.iter().any(|held| held == source))
    }

    fn plan_file(&self) -> Result<Option<PlanFile>> {
        Ok(self.plan_file.clone())
    }

    fn retired(&self) -> Result<BTreeSet<String>> {
        Ok(self.retired.clone())
    }

    fn to_forget(&self) -> Result<BTreeSet<String>> {
        Ok(self.to_forget.clone())
    }

    fn standings(&self) -> Result<BTreeMap<String, Standing>> {
        let standing = |row: &AgentRow| Standing {
            heard: row.heard,
            retired: self.retired.contains(&row.name),
            watermarks: self
                .watermarks
                .range((row.name.clone(), PipelineId::NONE)..)
                .take_while(|((agent, _), _)| *agent == row.name)
                .map(|((_, pipeline), watermark)| (*pipeline, *watermark))
                .collect(),
            about: About {
                software: row.software.clone(),
                plan_version: row.plan_version,
                backlog_batches: row.backlog_batches,
                backlog_bytes: row.backlog_bytes,
                conflicts: row.conflicts,
                clock_offset: row.clock_offset,
                forks: row.forks,
                sources: row.sources.clone(),
            },
        };
        let agents = self.agents.values();
        Ok(agents.map(|row| (row.name.clone(), standing(row))).collect())
    }

    fn committed(&self, take: TakeRange<'_>) -> Result<()> {
        for ((agent, epoch), ranges) in &self.committed {
            for (&first, &last) in ranges {
                take(agent, *epoch, SeqRange { first, last });
            }
        }
        Ok(())
    }

    fn shown_through(&self, query: &Query) -> Result<Option<ShownThrough>> {
        let table = self.tables.get(&query.name);
        let shown = table.and_then(|table| Some((table.through?, table)));
        Ok(shown.map(|(through, table)| ShownThrough {
            through,
            provisional: table.provisional(),
            unrevised: table.unrevised.values().cloned().collect(),
        }))
    }

    fn panes_from(&self, pipeline: PipelineId, from: Timestamp, take: TakeChunk<'_>) -> Result<()> {
        let range = (pipeline, from, 0)..=(pipeline, Timestamp::MAX, u32::MAX);
        for (&(_, start, number), columns) in self.panes.range(range) {
            let columns = columns.clone();
            take(start, StoredChunk { number, columns });
        }
        Ok(())
    }

    fn batches(&self, take: TakeBatch<'_>) -> Result<()> {
        Ok(self.batches.iter().cloned().try_for_each(take)?)
    }
}

impl PaneSource for Memory {
    fn chunks(
        &self,
        pipeline: PipelineId,
        pane: Timestamp,
    ) -> std::result::Result<Vec<StoredChunk>, SourceFault> {
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
    ) -> std::result::Result<Vec<Timestamp>, SourceFault> {
        let range = (pipeline, from, 0)..=(pipeline, to, u32::MAX);
        let starts: BTreeSet<Timestamp> = self.panes.range(range).map(|((_, start, _), _)| *start).collect();
        Ok(starts.into_iter().collect())
    }
}

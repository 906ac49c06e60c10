//! What a segment of the journal begins with, so that it needs none before it.
//!
//! ```text
//! SNAPSHOT   := 10 version:u8 = 2  era:u64  spooled  length  plan  ancestry  sources  counters  extensions
//! plan       := a Plan message, as on the wire
//! ancestry   := lineage:u64  generation  epoch:u64  sealed  count  (generation  epoch:u64  sealed) × count
//!               count  (database id:u128) × count  database  count  (epoch:u64  database) × count
//! sources    := count  (name  count  filter × count) × count
//! counters   := count  (name  code:u8  value) × count     see [`super::record`]
//! extensions := count  (tag  length  bytes) × count
//! ```
//!
//! Integers are LEB128 varints unless a width is named; those are little-endian. `spooled` is the spool's last record so
//! far. A database is named by its place in the list of ids, from 1; 0 is none. Names and filters are texts with their
//! length before them. Extensions are passed over by readers that do not know their tag.
//!
//! Version 1 has `era`, `spooled`, the plan and the counters alone.

use std::collections::BTreeMap;

use catchment_common::limits::{
    ANCESTORS_MAX, EXTENSIONS_MAX, PLAN_BYTES_MAX, RANGES_MAX, SOURCES_MAX, TOPIC_BYTES_MAX,
};
use catchment_common::wire::cursor::{Cursor, put_varint};
use catchment_common::wire::lineage::{Ancestor, DatabaseId};
use catchment_common::wire::{AgentPlan, CounterSample, Message, WireFault, v1};

use super::context::{Context, PipelineNames, VERSION, take_ordinal};
use crate::ancestry::Ancestry;

/// Most filters of one source: one for each pipeline, and those of earlier plans that are not unsubscribed yet.
const FILTERS_MAX: usize = 1 << 14;
/// Longest extension.
const EXTENSION_BYTES_MAX: usize = 1 << 20;

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The version that it was read from.
    pub version: u8,
    /// The era of the counters.
    pub era: u64,
    /// The spool's last record so far.
    pub spooled: u64,
    /// The plan that pipelines and fields refer to.
    pub plan: AgentPlan,
    /// Where the state comes from; none in version 1.
    pub ancestry: Option<Ancestry>,
    /// What each source is subscribed to, or may still be: name and filters.
    pub sources: Vec<(String, Vec<String>)>,
    /// All counters.
    pub counts: Vec<CounterSample>,
}

impl Snapshot {
    /// Appends the record without its kind. A snapshot that is written has an ancestry.
    pub(super) fn put(&self, out: &mut Vec<u8>, names: &PipelineNames) {
        out.push(VERSION);
        out.extend_from_slice(&self.era.to_le_bytes());
        put_varint(out, self.spooled);
        let plan = Message::Plan(self.plan.clone()).emit();
        // Whoever applies a plan has made sure of it.
        assert!(plan.len() <= PLAN_BYTES_MAX, "a plan of {} bytes", plan.len());
        put_bytes(out, &plan);
        put_ancestry(out, self.ancestry.as_ref().unwrap_or(&Ancestry::default()));
        put_varint(out, self.sources.len() as u64);
        for (name, filters) in &self.sources {
            put_bytes(out, name.as_bytes());
            put_varint(out, filters.len() as u64);
            for filter in filters {
                put_bytes(out, filter.as_bytes());
            }
        }
        names.put_samples(out, &self.counts);
        put_varint(out, 0);
    }

    pub(super) fn take(cursor: &mut Cursor<'_>) -> Result<Self, WireFault> {
        let version = cursor.byte()?;
        if version != VERSION && version != v1::VERSION {
            return Err(WireFault::Version(version));
        }
        let era = u64::from_le_bytes(cursor.array()?);
        let spooled = take_ordinal(cursor)?;
        let plan = take_bytes(cursor, PLAN_BYTES_MAX, "plan")?;
        let Message::Plan(plan) = Message::parse(plan)? else {
            return Err(WireFault::Invalid("plan"));
        };
        let context = Context::new(version, plan);
        let (mut ancestry, mut sources) = (None, Vec::new());
        if version != v1::VERSION {
            ancestry = Some(take_ancestry(cursor)?);
            sources = take_sources(cursor)?;
        }
        let counts = context.take_samples(cursor)?;
        if version != v1::VERSION {
            for _ in 0..cursor.length(EXTENSIONS_MAX, "extensions")? {
                cursor.varint()?;
                take_bytes(cursor, EXTENSION_BYTES_MAX, "extension")?;
            }
        }
        Ok(Self {
            version,
            era,
            spooled,
            plan: context.plan,
            ancestry,
            sources,
            counts,
        })
    }
}

fn put_ancestry(out: &mut Vec<u8>, ancestry: &Ancestry) {
    out.extend_from_slice(&ancestry.lineage.to_le_bytes());
    put_varint(out, ancestry.generation);
    out.extend_from_slice(&ancestry.epoch.to_le_bytes());
    put_varint(out, ancestry.sealed);
    put_varint(out, ancestry.ancestors.len() as u64);
    for ancestor in &ancestry.ancestors {
        put_varint(out, ancestor.generation);
        out.extend_from_slice(&ancestor.epoch.to_le_bytes());
        put_varint(out, ancestor.sealed);
    }
    let mut databases: Vec<DatabaseId> = ancestry.origins.values().copied().collect();
    databases.extend(ancestry.database);
    databases.sort_unstable();
    databases.dedup();
    let number = |id: DatabaseId| databases.binary_search(&id).map_or(0, |index| index as u64 + 1);
    put_varint(out, databases.len() as u64);
    for id in &databases {
        out.extend_from_slice(&id.0.to_le_bytes());
    }
    put_varint(out, ancestry.database.map_or(0, number));
    put_varint(out, ancestry.origins.len() as u64);
    for (epoch, &database) in &ancestry.origins {
        out.extend_from_slice(&epoch.to_le_bytes());
        put_varint(out, number(database));
    }
}

fn take_ancestry(cursor: &mut Cursor<'_>) -> Result<Ancestry, WireFault> {
    let lineage = u64::from_le_bytes(cursor.array()?);
    let generation = take_ordinal(cursor)?;
    let epoch = u64::from_le_bytes(cursor.array()?);
    let sealed = take_ordinal(cursor)?;
    let mut ancestors = Vec::new();
    for _ in 0..cursor.length(ANCESTORS_MAX, "ancestors")? {
        ancestors.push(Ancestor {
            generation: cursor.varint()?,
            epoch: u64::from_le_bytes(cursor.array()?),
            sealed: cursor.varint()?,
        });
    }
    let mut databases = Vec::new();
    for _ in 0..cursor.length(ORIGINS_MAX + 1, "databases")? {
        databases.push(DatabaseId(u128::from_le_bytes(cursor.array()?)));
    }
    let named = |number: u64| {
        let Some(index) = number.checked_sub(1) else {
            return Ok(None);
        };
        let id = usize::try_from(index).ok().and_then(|index| databases.get(index));
        id.map(|&id| Some(id)).ok_or(WireFault::Invalid("database"))
    };
    let database = named(cursor.varint()?)?;
    let mut origins = BTreeMap::new();
    for _ in 0..cursor.length(ORIGINS_MAX, "epochs")? {
        let epoch = u64::from_le_bytes(cursor.array()?);
        if let Some(database) = named(cursor.varint()?)? {
            origins.insert(epoch, database);
        }
    }
    Ok(Ancestry {
        lineage,
        generation,
        epoch,
        sealed,
        ancestors,
        database,
        origins,
    })
}

/// Most earlier epochs whose database is kept: as many as a hello can name.
pub(crate) const ORIGINS_MAX: usize = RANGES_MAX;

fn take_sources(cursor: &mut Cursor<'_>) -> Result<Vec<(String, Vec<String>)>, WireFault> {
    let mut sources = Vec::new();
    for _ in 0..cursor.length(SOURCES_MAX, "sources")? {
        let name = take_text(cursor)?;
        let mut filters = Vec::new();
        for _ in 0..cursor.length(FILTERS_MAX, "filters")? {
            filters.push(take_text(cursor)?);
        }
        sources.push((name, filters));
    }
    Ok(sources)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'b>(cursor: &mut Cursor<'b>, limit: usize, what: &'static str) -> Result<&'b [u8], WireFault> {
    let length = cursor.length(limit, what)?;
    cursor.take(length)
}

fn take_text(cursor: &mut Cursor<'_>) -> Result<String, WireFault> {
    let bytes = take_bytes(cursor, TOPIC_BYTES_MAX, "text")?;
    core::str::from_utf8(bytes)
        .map(String::from)
        .map_err(|_| WireFault::Invalid("text"))
}

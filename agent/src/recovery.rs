//! The start after an end: the journal replayed through the code that wrote it, and the spool read up to where the
//! journal's history ends.
//!
//! The replay takes each reading into an open pane, as it was taken the first time, and takes panes out where the
//! journal says that they went to the spool. What remains is exactly what was neither sent nor lost. Should the panes
//! not fit any more, because the budget was made smaller, what does not fit leaves as batches at the end.

use std::collections::BTreeMap;

use catchment_common::sketch::{empty_row, merge_rows};
use catchment_common::stats::Stats;
use catchment_common::table::pane::kept;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::{AgentPlan, Section};

use crate::aggregate::count_windows::{Window, identify};
use crate::aggregate::intake::{Intake, Limits};
use crate::aggregate::panes::{Measured, Partial, fill};
use crate::aggregate::sketches::TagValues;
use crate::ancestry::Ancestry;
use crate::log::disk::{Disk, DiskFault, File};
use crate::log::journal::record::Record;
use crate::log::journal::sources::Kept;
use crate::log::journal::{Replayed, Segments};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::source::mqtt::{Session, in_flight};
use crate::source::{SourceId, SourceSettings};

/// A partial that did not fit while the journal was replayed, and the segment of its first reading.
type Overflow = BTreeMap<(u16, Timestamp, Box<[u8]>), (Partial, u32)>;

/// A key and what it had.
type Row = (Box<[u8]>, Partial);

/// What a journal gives back.
#[derive(Debug)]
pub(crate) struct Recovery<'a> {
    pub(crate) intake: Intake,
    pub(crate) sessions: Vec<Session>,
    pub(crate) metrics: Metrics,
    /// The era of the counters, if a journal was there.
    pub(crate) era: Option<u64>,
    pub(crate) plan: AgentPlan,
    /// Where the state comes from; none if no journal was there, or one of version 1.
    pub(crate) ancestry: Option<Ancestry>,
    pub(crate) replayed: Replayed,
    pub(crate) segments: Segments,
    pub(crate) readings: u64,
    /// Keys whose windows found no room any more.
    pub(crate) gone: Vec<Box<[u8]>>,
    overflow: Overflow,
    limits: Limits<'a>,
    now: Now,
}

impl<'a> Recovery<'a> {
    /// Replays the journal on this disk. Fails on one of newer software, of which nothing is changed.
    pub(crate) fn replay(
        disk: &impl Disk,
        limits: Limits<'a>,
        settings: &Settings,
        now: Now,
    ) -> Result<Self, DiskFault> {
        let segments = Segments::find(disk)?;
        let room = in_flight::share(settings.journal_bytes, settings.sources.len());
        let session = |(source, number): (&SourceSettings, u16)| {
            let random = limits.seed.rotate_left(7 + u32::from(number));
            Session::new(SourceId(number), source, room, random)
        };
        let sessions: Vec<Session> = settings.sources.iter().zip(0..).map(session).collect();
        let mut metrics = Metrics::default();
        let mut recovery = Self {
            intake: Intake::new(&AgentPlan::default(), None, limits, now, &mut metrics),
            sessions,
            metrics,
            era: None,
            plan: AgentPlan::default(),
            ancestry: None,
            replayed: Replayed::default(),
            segments: Segments::find(disk)?,
            readings: 0,
            gone: Vec::new(),
            overflow: Overflow::new(),
            limits,
            now,
        };
        let mut names = Names::default();
        recovery.replayed = segments.replay(disk, |segment, plan, record| {
            recovery.take(segment, plan, record, &mut names);
        });
        if let Some((segment, version)) = recovery.replayed.newer {
            let file = File::Journal(segment).name();
            return Err(DiskFault::Newer { file, version });
        }
        Ok(recovery)
    }

    /// Segments with something whole in them that was not read.
    pub(crate) fn unread(&self) -> Vec<File> {
        let unread = self.replayed.unread.iter().chain(self.segments.broken());
        unread.map(|&number| File::Journal(number)).collect()
    }

    fn take(&mut self, segment: u32, plan: &AgentPlan, record: Record<'_>, names: &mut Names) {
        names.enter(segment);
        match record {
            Record::Snapshot(snapshot) => {
                let snapshot = *snapshot;
                // It has all that was counted before it.
                self.era = Some(snapshot.era);
                self.metrics.replace(&snapshot.counts);
                self.ancestry = snapshot.ancestry;
                if self.plan != snapshot.plan {
                    self.plan = snapshot.plan;
                    let Self {
                        intake,
                        metrics,
                        limits,
                        now,
                        plan,
                        ..
                    } = self;
                    *intake = Intake::new(plan, Some(intake), *limits, *now, metrics);
                }
            }
            Record::Key { number, bytes } => {
                names.keys.insert(number, bytes.into());
            }
            Record::Device {
                number,
                numbers,
                bytes,
            } => {
                names.devices.insert(number, bytes.into());
                self.intake.dedupe().restore(bytes, numbers, segment);
            }
            Record::Sequence { device, number } => {
                if let Some(identity) = names.devices.get(&device) {
                    self.intake.dedupe().replay(identity, number);
                }
            }
            Record::Window { id, window, bytes } => {
                names.windows.insert(bytes[..].into(), window);
                names.window_ids.insert(id, bytes[..].into());
                self.restore_count((&bytes, window), segment);
            }
            Record::Next { id, number } => {
                if let Some(identity) = names.window_ids.get(&id) {
                    let window = Window { number, readings: 0 };
                    names.windows.insert(identity.clone(), window);
                }
            }
            Record::Gone(identity) => self.intake.count_windows().replay_gone(&identity),
            Record::Floor(number) => self.intake.count_windows().restore_floor(number, segment),
            Record::Source { source, kept } => names.enter_source(source, kept, &mut self.sessions),
            Record::Message { source, id, hash } => {
                if let Some(session) = names.session(source, &mut self.sessions) {
                    session.restore_message(id, hash, segment);
                }
            }
            Record::Carried {
                source,
                number,
                id,
                hash,
            } => {
                if let Some(session) = names.session(source, &mut self.sessions) {
                    session.restore_carried(number, id, hash, segment);
                }
            }
            Record::Settled { source, number } => {
                if let Some(session) = names.session(source, &mut self.sessions) {
                    session.restore_settled(number);
                }
            }
            Record::Session { source } => {
                if let Some(session) = names.session(source, &mut self.sessions) {
                    session.restore_session();
                }
            }
            reading @ Record::Reading { .. } => self.take_reading(segment, plan, reading, names),
            Record::Closed { pipeline, watermark } => {
                let width = plan.pipelines[usize::from(pipeline)].1.pane;
                self.intake.discard_due(pipeline, watermark);
                self.overflow
                    .retain(|(of, pane, _), _| *of != pipeline || pane.plus(width) > watermark);
            }
            Record::ClosedAll => {
                self.intake.discard_all();
                self.overflow.clear();
            }
            Record::Taken { pipeline, pane, keys } => {
                for key in keys {
                    self.intake.discard_one(pipeline, pane, key);
                    self.overflow.remove(&(pipeline, pane, Box::from(key)));
                }
            }
            Record::Counts(samples) => self.metrics.restore(&samples),
            Record::Sealed(seq) => {
                if let Some(ancestry) = &mut self.ancestry {
                    ancestry.sealed = seq.max(ancestry.sealed);
                }
            }
            // There is no source yet that is read from a position.
            Record::Spooled(_) | Record::Position { .. } => {}
        }
    }

    /// Takes a reading into its open pane, and what does not fit beside it.
    fn take_reading(&mut self, segment: u32, plan: &AgentPlan, record: Record<'_>, names: &mut Names) {
        let Record::Reading {
            pipeline,
            key,
            at,
            values,
            tags: texts,
        } = record
        else {
            return;
        };
        let Some(key) = names.keys.get(&key) else {
            self.replayed.damaged += 1;
            return;
        };
        let (id, running) = &plan.pipelines[usize::from(pipeline)];
        let mut window = None;
        if running.count.is_some() {
            identify(&mut names.identity, *id, key);
            let Some(held) = names.windows.get_mut(&names.identity[..]) else {
                self.replayed.damaged += 1;
                return;
            };
            held.readings = held.readings.saturating_add(1);
            window = Some(held.number);
            self.restore_count((&names.identity, *held), segment);
        }
        self.readings += 1;
        let mark = segment as u16;
        let mut tags = TagValues::default();
        for tag in texts {
            tags.push(tag);
        }
        let reading = Measured {
            at,
            values: &values,
            tags: &tags,
        };
        while self
            .intake
            .replay((pipeline, key), window, reading, mark, self.now)
            .is_err()
        {
            let overflow = &mut self.overflow;
            self.intake
                .emit_early(pipeline, |index, section| keep(overflow, index, section, segment));
        }
    }

    fn restore_count(&mut self, window: (&[u8], Window), segment: u32) {
        let Self {
            intake,
            gone,
            metrics,
            ..
        } = self;
        intake.restore_count(window, segment, gone, metrics);
    }

    /// What did not fit: first back into open panes, where there is room now; the rest is handed to `sink` with its
    /// pipeline's index.
    pub(crate) fn settle_overflow(&mut self, mut sink: impl FnMut(u16, &Section)) {
        let mut rest: BTreeMap<(u16, Timestamp), Vec<Row>> = BTreeMap::new();
        for ((pipeline, pane, key), (partial, segment)) in std::mem::take(&mut self.overflow) {
            let absorbed = self.intake.absorb(pipeline, pane, &key, &partial, segment as u16);
            if absorbed.is_err() {
                rest.entry((pipeline, pane)).or_default().push((key, partial));
            }
        }
        let mut section = Section::default();
        for ((pipeline, pane), rows) in rest {
            let (id, running) = &self.intake.pipelines()[usize::from(pipeline)];
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                section.reset(*id, pane, kept(&running.fields));
                section.set_sketches(running.sketch_kinds());
                fill(&mut section, &mut rows);
                sink(pipeline, &section);
            }
        }
    }
}

/// Keys and devices by the numbers that one segment gives them.
#[derive(Default)]
struct Names {
    segment: u32,
    keys: BTreeMap<u64, Box<[u8]>>,
    devices: BTreeMap<u64, Box<[u8]>>,
    /// Count windows: by pipeline and key, and these by number.
    windows: BTreeMap<Box<[u8]>, Window>,
    window_ids: BTreeMap<u64, Box<[u8]>>,
    /// Room to put an identity together.
    identity: Vec<u8>,
    /// For each source of the journal which of the configuration it is, if there is still one.
    sources: BTreeMap<u32, Option<usize>>,
}

impl Names {
    fn enter(&mut self, segment: u32) {
        if self.segment != segment {
            *self = Self {
                segment,
                sources: std::mem::take(&mut self.sources),
                ..Self::default()
            };
        }
    }

    fn enter_source(&mut self, source: u32, kept: Kept, sessions: &mut [Session]) {
        let named = |session: &Session| session.is(&kept) && session.name() == kept.name;
        let place = sessions.iter().position(named);
        let place = place.or_else(|| sessions.iter().position(|session| session.is(&kept)));
        self.sources.insert(source, place);
        if let Some(place) = place {
            sessions[place].restore(kept);
        }
    }

    fn session<'s>(&self, source: u32, sessions: &'s mut [Session]) -> Option<&'s mut Session> {
        // A journal that names no source is of the time when there was one.
        let place = self
            .sources
            .get(&source)
            .copied()
            .unwrap_or(Some(source as usize))?;
        sessions.get_mut(place)
    }
}

fn keep(overflow: &mut Overflow, index: u16, section: &Section, segment: u32) {
    for (row, key) in section.keys.iter().enumerate() {
        let stats = section.row(row);
        let kinds = || section.sketch_kinds.iter().copied();
        let (held, _) = overflow
            .entry((index, section.pane, key.into()))
            .or_insert_with(|| {
                let nothing = Partial {
                    readings: 0,
                    stats: vec![Stats::IDENTITY; stats.len()],
                    sketches: empty_row(kinds()),
                };
                (nothing, segment)
            });
        held.readings = held.readings.saturating_add(section.readings[row]);
        held.stats
            .iter_mut()
            .zip(stats)
            .for_each(|(held, more)| held.merge(more));
        merge_rows(&mut held.sketches, section.sketch_row(row), kinds());
    }
}

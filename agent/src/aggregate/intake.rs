//! The hot path: one message in, its readings lifted into open panes or rejected under a reason.
//!
//! Pipelines that read the same topics share one decoding of the payload. From there each pipeline takes its own view:
//! key, event time, values. Steady work allocates nothing.

mod close;
mod count_windows;
mod dedupe;
mod lift;
mod replay;
mod route;
mod silence;
mod view;

use std::collections::{BTreeMap, VecDeque};

use catchment_common::limits::BATCH_DELTAS_MAX;
use catchment_common::metrics::{Counter, Reason};
use catchment_common::plan::{Pipeline, PipelineId};
use catchment_common::table::pane::PaneKey;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::{AgentPlan, Section, checksum};

use self::count_windows::close_full;
use self::lift::Lift;
use self::route::Route;
use self::view::{Seen, View};
use crate::aggregate::arrival::Arrivals;
use crate::aggregate::count_windows::CountWindows;
use crate::aggregate::key_cap::KeyCap;
use crate::aggregate::panes::{OpenPanes, Place as PanePlace};
use crate::aggregate::watermark::Watermark;
use crate::decode::{Births, Body, Command, Decoded, Decoder};
use crate::log::journal::Journal;
use crate::metrics::{AGENT, Metrics, Place};
use crate::source::SourceId;
use crate::source::dedupe::Dedupe;

pub use self::close::Pieces;
pub use self::route::Message;

/// Most devices that number their messages.
const DEVICES_MAX: usize = 65_536;
/// One part in so many of the memory is for the count windows that keys are in, if a query has such: about
/// as many as can be open, so that no key is forgotten for want of room here while there is room for its partial.
const COUNTS_PART: usize = 4;
/// Full windows that gather before they are closed in any case: a batch of the largest size.
const FULL_MAX: usize = BATCH_DELTAS_MAX;
/// One part in so many of the memory is for knowing keys, if a query caps new ones: about as many as can be open.
const KNOWN_KEYS_PART: usize = 16;

/// A running plan with its open panes.
#[derive(Debug)]
pub struct Intake {
    routes: Vec<Route>,
    views: Vec<View>,
    pipelines: Vec<(PipelineId, Pipeline)>,
    panes: OpenPanes,
    decoded: Decoded,
    unpacked: Vec<u8>,
    births: Births,
    /// Requests to edge nodes, with the source that they are behind.
    commands: VecDeque<(SourceId, Command)>,
    dedupe: Dedupe,
    count_windows: CountWindows,
    /// Open panes that are full windows.
    full: Vec<PaneKey>,
    identity: Vec<u8>,
    arrivals: Arrivals,
    payload_bytes_max: usize,
    agent: Place,
}

/// What a message did that asks for closing panes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four things that may each be so")]
pub struct Closable {
    /// Partials had to leave early.
    pub emitted_early: bool,
    /// A watermark has passed the end of a pane.
    pub on_time: bool,
    /// A reading came behind the watermark.
    pub late: bool,
    /// A count window is full.
    pub full: bool,
}

impl Intake {
    /// Runs `plan` from `now` on, with open panes in `memory_bytes`. Watermarks of pipelines in `before` are carried
    /// on; its panes, which had better be closed, give their memory back first, so that the budget is never taken
    /// twice.
    pub fn new(
        plan: &AgentPlan,
        mut before: Option<&mut Self>,
        limits: Limits<'_>,
        now: Now,
        metrics: &mut Metrics,
    ) -> Self {
        let mut known = BTreeMap::new();
        if let Some(before) = before.as_deref_mut() {
            before.panes = OpenPanes::new(0, &[], limits.seed);
            known = before.take_known();
        }
        let before = before.as_deref();
        // Without a pipeline nothing can be open.
        let memory_bytes = if plan.pipelines.is_empty() {
            0
        } else {
            limits.memory_bytes
        };
        let capped = plan
            .pipelines
            .iter()
            .filter(|(_, pipeline)| pipeline.new_keys.is_some())
            .count();
        let known_bytes = if capped > 0 {
            memory_bytes / KNOWN_KEYS_PART
        } else {
            0
        };
        let counts_bytes = if plan
            .pipelines
            .iter()
            .any(|(_, pipeline)| pipeline.count.is_some())
        {
            memory_bytes / COUNTS_PART
        } else {
            0
        };
        let numbered = plan
            .pipelines
            .iter()
            .any(|(_, pipeline)| pipeline.dedupe.is_some());
        let readings = dedupe::readings(plan);
        let mut intake = Self {
            routes: Vec::new(),
            views: Vec::new(),
            pipelines: plan.pipelines.clone(),
            panes: OpenPanes::new(
                memory_bytes - known_bytes - counts_bytes,
                &plan.pipelines,
                limits.seed,
            ),
            decoded: Decoded::default(),
            unpacked: Vec::new(),
            births: Births::default(),
            commands: VecDeque::new(),
            dedupe: Dedupe::new(
                if numbered {
                    DEVICES_MAX.min(limits.memory_bytes / 1_024)
                } else {
                    0
                },
                limits.seed.rotate_left(16),
            ),
            count_windows: CountWindows::new(counts_bytes, limits.seed.rotate_left(40)),
            full: Vec::with_capacity(if counts_bytes > 0 { FULL_MAX } else { 0 }),
            identity: Vec::new(),
            arrivals: Arrivals::default(),
            payload_bytes_max: limits.payload_bytes_max,
            agent: metrics.place(AGENT),
        };
        if let Some(before) = before {
            intake.dedupe.adopt(&before.dedupe, &readings);
            let runs = |id| plan.pipelines.iter().any(|(held, _)| *held == id);
            intake.count_windows.adopt(&before.count_windows, runs);
            intake.births = before.births.clone();
            intake.arrivals = before.arrivals;
        }
        for ((id, pipeline), reading) in plan.pipelines.iter().zip(readings) {
            let watermark = before.and_then(|before| before.watermark(*id));
            intake.add_view(
                pipeline,
                limits.agent,
                watermark.unwrap_or_else(|| Watermark::new(pipeline, now)),
                metrics.place(*id),
            );
            if let Some(sequence) = intake.views.last_mut().and_then(|view| view.sequence.as_mut()) {
                sequence.reading = reading;
            }
            if let (Some(cap), Some(view)) = (pipeline.new_keys, intake.views.last_mut()) {
                let capacity = known_bytes / capped.max(1) / KeyCap::entry_bytes();
                let held = known.remove(id).map(|held| held.resized(capacity));
                let seed = limits.seed.rotate_left(8) ^ id.0;
                view.key_cap = Some(held.unwrap_or_else(|| KeyCap::new(cap, capacity, seed)));
            }
        }
        intake
    }

    /// The keys that are known, pipeline by pipeline.
    fn take_known(&mut self) -> BTreeMap<PipelineId, KeyCap> {
        let ids = self.pipelines.iter().map(|(id, _)| *id);
        let views = self.views.iter_mut().map(|view| view.key_cap.take());
        ids.zip(views)
            .filter_map(|(id, known)| Some((id, known?)))
            .collect()
    }

    fn add_view(&mut self, pipeline: &Pipeline, agent: &str, watermark: Watermark, place: Place) {
        let shape = pipeline.topic.shape();
        let alike = |route: &Route| {
            (&route.format, route.compression, &route.source)
                == (&pipeline.format, pipeline.compression, &pipeline.source)
                && route.topic.shape() == shape
        };
        let home = self.routes.iter().position(alike).unwrap_or_else(|| {
            self.routes.push(Route {
                topic: pipeline.topic.clone(),
                source: pipeline.source.clone(),
                format: pipeline.format.clone(),
                compression: pipeline.compression,
                decoder: Decoder::new(pipeline.format.clone()),
                views: Vec::new(),
                providers: Vec::new(),
                reader: checksum(pipeline.topic.filter().as_bytes()),
            });
            self.routes.len() - 1
        });
        let Route { decoder, views, .. } = &mut self.routes[home];
        views.push(self.views.len());
        self.views
            .push(View::new(pipeline, agent, watermark, place, &mut decoder.tree));
    }

    /// Pipelines are called otherwise from now on. A plan that calls them so must follow.
    pub fn rename(&mut self, ids: &BTreeMap<PipelineId, PipelineId>) {
        for (id, _) in &mut self.pipelines {
            *id = ids.get(id).copied().unwrap_or(*id);
        }
        self.count_windows.rename(ids);
    }

    /// The pipelines that run.
    pub fn pipelines(&self) -> &[(PipelineId, Pipeline)] {
        &self.pipelines
    }

    /// Open panes, for looking.
    pub fn panes(&self) -> &OpenPanes {
        &self.panes
    }

    fn watermark(&self, id: PipelineId) -> Option<Watermark> {
        let index = self.pipelines.iter().position(|(held, _)| *held == id)?;
        Some(self.views[index].watermark)
    }

    /// The watermarks of all pipelines; [`Timestamp::MIN`] for a pipeline that has no watermark yet.
    pub fn watermarks(&self) -> impl Iterator<Item = (PipelineId, Timestamp)> {
        let all = self.pipelines.iter().zip(&self.views);
        all.map(|((id, _), view)| (*id, view.watermark.value()))
    }

    /// Takes one message apart and lifts its readings. Sections that had to leave early go to `emit`.
    #[inline]
    pub fn handle_message(
        &mut self,
        now: Now,
        mut message: Message<'_, '_>,
        metrics: &mut Metrics,
        journal: &mut Journal,
        mut emit: impl FnMut(&Section, &mut Metrics),
    ) -> Closable {
        let now = self.begin(now, message.payload.len(), metrics);
        let (mut closable, mut matched, mut is_read) = (Closable::default(), false, false);
        let Message { source, topic, .. } = message;
        let context = self.context(source, topic, now);
        let Self {
            routes,
            views,
            pipelines,
            panes,
            decoded,
            unpacked,
            births,
            dedupe,
            count_windows,
            full,
            identity,
            arrivals,
            ..
        } = self;
        let mark = journal.segment() as u16;
        for route in routes.iter_mut() {
            let Some((captures, provider)) = route.matches(source, topic) else {
                continue;
            };
            matched = true;
            if !message.readers.include(route.reader, provider) {
                continue;
            }
            is_read = true;
            let decoding = route.decode(message.payload, context, unpacked, births, decoded);
            for &index in &route.views {
                let view = &mut views[index];
                let Some(text) = readable(decoding, decoded, metrics, view.place) else {
                    continue;
                };
                for reading in 0..decoded.readings() {
                    let pipeline = &pipelines[index].1;
                    let now = arrivals.reading(now, reading);
                    let seen = Seen {
                        captures,
                        text,
                        decoded,
                        reading,
                    };
                    let numbers = (topic, &mut *identity, &mut *dedupe);
                    let read = match view.read_new(seen, pipeline, now, numbers, journal) {
                        Ok(read) => read,
                        Err(reason) => {
                            reject(metrics, view.place, reason, 1);
                            continue;
                        }
                    };
                    if let Some(reason) = read.unwanted {
                        closable.on_time |= view.pass_over(&read, reason, now, metrics);
                        continue;
                    }
                    let (at, late) = view.count(&read, now, metrics);
                    view.admit(now, pipeline, metrics);
                    let key = view.key_buffer.as_bytes();
                    let mut lift = Lift {
                        pipelines,
                        panes,
                        journal,
                        metrics,
                    };
                    let step = lift.next_window(count_windows, (index, key), now.wall, &mut emit);
                    let place = PanePlace {
                        pipeline: index as u16,
                        pane: step.map_or_else(|| at.pane_start(pipeline.pane), |step| step.number),
                        key,
                    };
                    let (lifted, left) = lift.lift(place, view.measured(at), mark, &mut emit);
                    metrics.add(view.place, Counter::EmittedEarly, left);
                    closable.emitted_early |= left > 0;
                    if lifted.is_new {
                        journal.forget_key(lifted.key);
                    }
                    let values = (pipeline.fields.as_slice(), view.values.as_slice());
                    journal.reading(index as u16, (lifted.key, key), at, values, &view.tags);
                    if let Some(step) = step {
                        closable.full |= step.is_last;
                        full.extend(step.is_last.then(|| place.pane_key(lifted.key)));
                        if full.len() >= FULL_MAX {
                            let sink = |_: &mut Journal, section: &Section| emit(section, metrics);
                            close_full(full, panes, pipelines, journal, sink);
                            closable.emitted_early = true;
                        }
                        closable.emitted_early |= step.has_cut;
                        continue;
                    }
                    closable.late |= late;
                    closable.on_time |= view.watermark.value() >= view.next_close;
                }
            }
        }
        self.finish(source, matched, is_read, metrics);
        closable
    }

    /// Counts a message of so many bytes; returns when it arrives.
    #[inline]
    fn begin(&mut self, now: Now, bytes: usize, metrics: &mut Metrics) -> Now {
        metrics.add(self.agent, Counter::Messages, 1);
        metrics.add(self.agent, Counter::RawBytes, bytes as u64);
        self.arrivals.begin(now)
    }

    /// Counts a message that nobody read. Requests to edge nodes go back to where their messages came from.
    #[inline]
    fn finish(&mut self, source: SourceId, matched: bool, is_read: bool, metrics: &mut Metrics) {
        if !matched {
            reject(metrics, self.agent, Reason::NoMatch, 1);
        } else if !is_read {
            metrics.add(self.agent, Counter::Copies, 1);
        }
        while let Some(command) = self.births.poll_command() {
            self.commands.push_back((source, command));
        }
    }

    /// What is to be published to the broker: requests to Sparkplug's edge nodes.
    pub fn poll_command(&mut self) -> Option<(SourceId, Command)> {
        self.commands.pop_front()
    }

    /// The devices that number their messages.
    pub fn dedupe(&mut self) -> &mut Dedupe {
        &mut self.dedupe
    }
}

/// The bounds of an intake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits<'a> {
    /// The agent's name.
    pub agent: &'a str,
    /// Bytes for open panes.
    pub memory_bytes: usize,
    /// Largest payload that is looked at.
    pub payload_bytes_max: usize,
    /// Sets the hashing; should be random.
    pub seed: u64,
}

/// The text of a payload as far as it can be read. What of it cannot is counted.
#[inline]
fn readable<'t>(
    decoding: Result<Body<'t>, Reason>,
    decoded: &'t Decoded,
    metrics: &mut Metrics,
    place: Place,
) -> Option<&'t str> {
    let body = decoding
        .map_err(|reason| reject(metrics, place, reason, 1))
        .ok()?;
    for &(reason, parts) in decoded.unreadable() {
        reject(metrics, place, reason, parts);
    }
    Some(decoded.text(body))
}

fn reject(metrics: &mut Metrics, place: Place, reason: Reason, count: u64) {
    metrics.add(place, Counter::Received, count);
    metrics.add(place, Counter::Rejected(reason), count);
}

/// The end of the pane that `watermark` lies in.
fn close_after(watermark: Timestamp, pipeline: &Pipeline) -> Timestamp {
    if pipeline.count.is_some() {
        // No watermark closes these.
        return Timestamp::MAX;
    }
    watermark.pane_start(pipeline.pane).plus(pipeline.pane)
}

#[cfg(test)]
mod tests;

//! The hot path: one message in, its readings lifted into open panes or rejected under a reason.
//!
//! Slices that read the same topics share one decoding of the payload. From there each slice takes its own view: key,
//! event time, values. Steady work allocates nothing.

mod count;
mod lift;
mod numbers;
mod replay;
mod view;

use std::collections::BTreeMap;

use catchment_common::counter::{Counter, Reason};
use catchment_common::limits::BATCH_DELTAS_MAX;
use catchment_common::pane::PaneKey;
use catchment_common::plan::{Compression, Format, Slice, SliceId};
use catchment_common::time::{Now, Timestamp};
use catchment_common::topic::TopicTemplate;
use catchment_common::wire::{AgentPlan, Section};

use self::count::close_full;
use self::lift::Lift;
use self::view::{Seen, View};
use crate::counts::Counts;
use crate::decode::{self, Births, Command, Context, Decoded, Decoder};
use crate::devices::Devices;
use crate::journal::Journal;
use crate::known_keys::KnownKeys;
use crate::panes::{OpenPanes, Place as PanePlace};
use crate::settings::READINGS_PER_MESSAGE_MAX;
use crate::tally::{AGENT, Place, Tally};
use crate::watermark::Watermark;

/// Most devices that number their messages.
const DEVICES_MAX: usize = 65_536;
/// One part in so many of the memory is for the windows of so many readings that keys are in, if a query has such: about
/// as many as can be open, so that no key is forgotten for want of room here while there is room for its partial.
const COUNTS_PART: usize = 4;
/// Full windows that gather before they are closed in any case: a batch of the largest size.
const FULL_MAX: usize = BATCH_DELTAS_MAX;
/// One part in so many of the memory is for knowing keys, if a query caps new ones: about as many as can be open.
const KNOWN_KEYS_PART: usize = 16;

/// A running plan with its open panes.
#[derive(Debug)]
pub struct Intake {
    sources: Vec<Source>,
    views: Vec<View>,
    slices: Vec<(SliceId, Slice)>,
    panes: OpenPanes,
    decoded: Decoded,
    unpacked: Vec<u8>,
    births: Births,
    devices: Devices,
    counts: Counts,
    /// Open panes that are full windows.
    full: Vec<PaneKey>,
    identity: Vec<u8>,
    messages: u64,
    payload_bytes_max: usize,
    agent: Place,
}

/// Topics that are read alike: matched once and decoded once.
#[derive(Debug)]
struct Source {
    topic: TopicTemplate,
    format: Format,
    compression: Compression,
    decoder: Decoder,
    views: Vec<usize>,
}

/// What a message did that asks for closing panes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four things that may each be so")]
pub struct Closable {
    /// Partials had to leave early.
    pub spilled: bool,
    /// A watermark has passed the end of a pane.
    pub on_time: bool,
    /// A reading came behind the watermark.
    pub late: bool,
    /// A window of so many readings is full.
    pub full: bool,
}

impl Intake {
    /// Runs `plan` from `now` on, with open panes in `memory_bytes`. Watermarks of slices in `before` are carried on;
    /// its panes, which had better be closed, give their memory back first, so that the budget is never taken twice.
    pub fn new(
        plan: &AgentPlan,
        mut before: Option<&mut Self>,
        limits: Limits<'_>,
        now: Now,
        tally: &mut Tally,
    ) -> Self {
        let mut known = BTreeMap::new();
        if let Some(before) = before.as_deref_mut() {
            before.panes = OpenPanes::new(0, &[], limits.seed);
            known = before.take_known();
        }
        let before = before.as_deref();
        // Without a slice nothing can be open.
        let memory_bytes = if plan.slices.is_empty() {
            0
        } else {
            limits.memory_bytes
        };
        let capped = plan
            .slices
            .iter()
            .filter(|(_, slice)| slice.new_keys.is_some())
            .count();
        let known_bytes = if capped > 0 {
            memory_bytes / KNOWN_KEYS_PART
        } else {
            0
        };
        let counts_bytes = if plan.slices.iter().any(|(_, slice)| slice.count.is_some()) {
            memory_bytes / COUNTS_PART
        } else {
            0
        };
        let numbered = plan.slices.iter().any(|(_, slice)| slice.dedupe.is_some());
        let mut intake = Self {
            sources: Vec::new(),
            views: Vec::new(),
            slices: plan.slices.clone(),
            panes: OpenPanes::new(
                memory_bytes - known_bytes - counts_bytes,
                &plan.slices,
                limits.seed,
            ),
            decoded: Decoded::default(),
            unpacked: Vec::new(),
            births: Births::default(),
            devices: Devices::new(
                if numbered {
                    DEVICES_MAX.min(limits.memory_bytes / 1_024)
                } else {
                    0
                },
                limits.seed.rotate_left(16),
            ),
            counts: Counts::new(counts_bytes, limits.seed.rotate_left(40)),
            full: Vec::with_capacity(if counts_bytes > 0 { FULL_MAX } else { 0 }),
            identity: Vec::new(),
            messages: 0,
            payload_bytes_max: limits.payload_bytes_max,
            agent: tally.place(AGENT),
        };
        if let Some(before) = before {
            intake.devices.adopt(&before.devices);
            let runs = |id| plan.slices.iter().any(|(held, _)| *held == id);
            intake.counts.adopt(&before.counts, runs);
            intake.births = before.births.clone();
        }
        for (id, slice) in &plan.slices {
            let watermark = before.and_then(|before| before.watermark(*id));
            intake.add_view(
                slice,
                limits.agent,
                watermark.unwrap_or_else(|| Watermark::new(slice, now)),
                tally.place(*id),
            );
            if let (Some(cap), Some(view)) = (slice.new_keys, intake.views.last_mut()) {
                let capacity = known_bytes / capped.max(1) / KnownKeys::entry_bytes();
                let held = known.remove(id).map(|held| held.resized(capacity));
                let seed = limits.seed.rotate_left(8) ^ u64::from(id.0);
                view.known_keys = Some(held.unwrap_or_else(|| KnownKeys::new(cap, capacity, seed)));
            }
        }
        intake
    }

    /// The keys that are known, slice by slice.
    fn take_known(&mut self) -> BTreeMap<SliceId, KnownKeys> {
        let ids = self.slices.iter().map(|(id, _)| *id);
        let views = self.views.iter_mut().map(|view| view.known_keys.take());
        ids.zip(views)
            .filter_map(|(id, known)| Some((id, known?)))
            .collect()
    }

    fn add_view(&mut self, slice: &Slice, agent: &str, watermark: Watermark, place: Place) {
        let shape = slice.topic.shape();
        let alike = |source: &Source| {
            (&source.format, source.compression) == (&slice.format, slice.compression)
                && source.topic.shape() == shape
        };
        let home = self.sources.iter().position(alike).unwrap_or_else(|| {
            self.sources.push(Source {
                topic: slice.topic.clone(),
                format: slice.format.clone(),
                compression: slice.compression,
                decoder: Decoder::new(slice.format.clone()),
                views: Vec::new(),
            });
            self.sources.len() - 1
        });
        let Source { decoder, views, .. } = &mut self.sources[home];
        views.push(self.views.len());
        self.views
            .push(View::new(slice, agent, watermark, place, &mut decoder.tree));
    }

    /// The MQTT filters to subscribe to.
    pub fn filters(&self) -> Vec<String> {
        let mut filters: Vec<String> = self.sources.iter().map(|source| source.topic.filter()).collect();
        filters.sort_unstable();
        filters.dedup();
        filters
    }

    /// The slices that run.
    pub fn slices(&self) -> &[(SliceId, Slice)] {
        &self.slices
    }

    /// Open panes, for looking.
    pub fn panes(&self) -> &OpenPanes {
        &self.panes
    }

    fn watermark(&self, id: SliceId) -> Option<Watermark> {
        let index = self.slices.iter().position(|(held, _)| *held == id)?;
        Some(self.views[index].watermark)
    }

    /// The watermarks of all slices that have one.
    pub fn watermarks(&self) -> impl Iterator<Item = (SliceId, Timestamp)> {
        let all = self.slices.iter().zip(&self.views);
        all.map(|((id, _), view)| (*id, view.watermark.value()))
            .filter(|(_, value)| *value > Timestamp::MIN)
    }

    /// Takes one message apart and lifts its readings. Sections that had to leave early go to `spilled`.
    #[inline]
    pub fn handle_publish(
        &mut self,
        now: Now,
        topic: &str,
        payload: &[u8],
        tally: &mut Tally,
        journal: &mut Journal,
        mut spilled: impl FnMut(&Section, &mut Tally),
    ) -> Closable {
        tally.add(self.agent, Counter::Messages, 1);
        tally.add(self.agent, Counter::RawBytes, payload.len() as u64);
        let (mut closable, mut matched) = (Closable::default(), false);
        let Self {
            sources,
            views,
            slices,
            panes,
            decoded,
            unpacked,
            births,
            devices,
            counts,
            full,
            identity,
            messages,
            ..
        } = self;
        *messages += 1;
        let mark = journal.segment() as u16;
        for source in sources.iter_mut() {
            let Some(captures) = source.topic.matches(topic) else {
                continue;
            };
            matched = true;
            let decoder = &mut source.decoder;
            let decoding = decode::unpack(source.compression, payload, self.payload_bytes_max, unpacked)
                .and_then(|payload| decoder.decode(payload, Context { topic, now }, births, decoded));
            for &index in &source.views {
                let view = &mut views[index];
                let text = decoding.map(|body| decoded.text(body));
                let Ok(text) = text.map_err(|reason| reject(tally, view.place, reason)) else {
                    continue;
                };
                for reading in 0..decoded.readings() {
                    let slice = &slices[index].1;
                    let seen = Seen {
                        captures,
                        text,
                        decoded,
                        reading,
                    };
                    let stamp = *messages * READINGS_PER_MESSAGE_MAX as u64 + reading as u64;
                    let numbers = ((topic, stamp), &mut *identity, &mut *devices);
                    let read = match view.read_new(seen, slice, now, numbers, journal) {
                        Ok(read) => read,
                        Err(reason) => {
                            reject(tally, view.place, reason);
                            continue;
                        }
                    };
                    if let Some(reason) = read.unwanted {
                        // It tells how far event time has come all the same.
                        view.watermark.observe(read.at, now);
                        closable.on_time |= view.watermark.value() >= view.next_close;
                        reject(tally, view.place, reason);
                        continue;
                    }
                    let (at, late) = view.count(&read, now, tally);
                    view.admit(now, slice, tally);
                    let key = view.key_buffer.as_bytes();
                    let mut lift = Lift {
                        slices,
                        panes,
                        journal,
                        tally,
                    };
                    let step = lift.next_window(counts, (index, key), now.wall, &mut spilled);
                    let place = PanePlace {
                        slice: index as u16,
                        pane: step.map_or_else(|| at.pane_start(slice.pane), |step| step.number),
                        key,
                    };
                    let (lifted, left) = lift.lift(place, view.measured(at), mark, &mut spilled);
                    tally.add(view.place, Counter::Spilled, left);
                    closable.spilled |= left > 0;
                    if lifted.is_new {
                        journal.forget_key(lifted.key);
                    }
                    let values = (slice.fields.as_slice(), view.values.as_slice());
                    journal.reading(index as u16, (lifted.key, key), at, values, &view.tags);
                    if let Some(step) = step {
                        closable.full |= step.is_last;
                        full.extend(step.is_last.then(|| place.pane_key(lifted.key)));
                        if full.len() >= FULL_MAX {
                            close_full(full, panes, slices, journal, |section| spilled(section, tally));
                            closable.spilled = true;
                        }
                        closable.spilled |= step.has_cut;
                        continue;
                    }
                    closable.late |= late;
                    closable.on_time |= view.watermark.value() >= view.next_close;
                }
            }
        }
        if !matched {
            tally.add(self.agent, Counter::Received, 1);
            tally.add(self.agent, Counter::Rejected(Reason::NoMatch), 1);
        }
        closable
    }

    /// Lets the watermarks of silent slices follow the clock; returns whether any moved.
    pub fn follow_clock(&mut self, now: Now) -> bool {
        self.views
            .iter_mut()
            .fold(false, |moved, view| view.watermark.follow_clock(now) | moved)
    }

    /// Closes every pane that its slice's watermark has passed, and every full window; hands them to `sink`.
    pub fn close_due(&mut self, journal: &mut Journal, mut sink: impl FnMut(&Section)) {
        let Self {
            views,
            slices,
            panes,
            full,
            ..
        } = self;
        close_full(full, panes, slices, journal, &mut sink);
        for (view, (_, slice)) in views.iter_mut().zip(slices.iter()) {
            view.next_close = close_after(view.watermark.value(), slice);
        }
        let is_due = |key: &PaneKey, _| {
            let index = usize::from(key.slice);
            let slice = &slices[index].1;
            slice.count.is_none() && key.pane.plus(slice.pane) <= views[index].watermark.value()
        };
        let mut closed = None;
        panes.close(slices, is_due, |index, section| {
            if closed != Some(index) {
                closed = Some(index);
                journal.closed(index, views[usize::from(index)].watermark.value());
            }
            sink(section);
        });
    }

    /// Closes every pane, whether due or not: before another plan takes over.
    pub fn close_all(&mut self, journal: &mut Journal, mut sink: impl FnMut(&Section)) {
        let before = self.panes.len();
        self.panes
            .close(&self.slices, |_, _| true, |_, section| sink(section));
        if before > 0 {
            journal.closed_all();
        }
    }

    /// Closes the partials whose first readings are in old segments of the journal.
    pub fn close_marked(
        &mut self,
        journal: &mut Journal,
        is_old: impl Fn(u16) -> bool,
        mut sink: impl FnMut(&Section),
    ) {
        self.panes.close(
            &self.slices,
            |_, mark| is_old(mark),
            |index, section| {
                journal.taken(index, section.pane, section.keys.iter());
                sink(section);
            },
        );
    }

    /// What is to be published to the broker: requests to Sparkplug's edge nodes.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.births.poll_command()
    }

    /// The devices that number their messages.
    pub fn devices(&mut self) -> &mut Devices {
        &mut self.devices
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

fn reject(tally: &mut Tally, place: Place, reason: Reason) {
    tally.add(place, Counter::Received, 1);
    tally.add(place, Counter::Rejected(reason), 1);
}

/// The end of the pane that `watermark` lies in.
fn close_after(watermark: Timestamp, slice: &Slice) -> Timestamp {
    if slice.count.is_some() {
        // No watermark closes these.
        return Timestamp::MAX;
    }
    watermark.pane_start(slice.pane).plus(slice.pane)
}

#[cfg(test)]
mod tests;

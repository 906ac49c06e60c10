//! The hot path: one message in, its readings lifted into open panes or rejected under a reason.
//!
//! Slices that read the same topics share one decoding of the payload. From there each slice takes its own view: key,
//! event time, values. Steady work allocates nothing.

mod replay;

mod tags;

use catchment_common::counter::{Counter, Reason};
use catchment_common::decimal::{Resolution, Value};
use catchment_common::key::{KeyBuffer, SEPARATOR};
use catchment_common::pane::PaneKey;
use catchment_common::plan::{Format, Slice, SliceId, TimeSource, TimeUnit};
use catchment_common::time::{Now, Timestamp};
use catchment_common::topic::{Captures, TopicTemplate};
use catchment_common::wire::{AgentPlan, Section};

use self::tags::TagFrom;
use crate::decode::{Decoded, PathTree};
use crate::devices::{Devices, IDENTITY_BYTES_MAX};
use crate::journal::Journal;
use crate::panes::{Measured, OpenPanes, Place as PanePlace};
use crate::reading;
use crate::settings::READINGS_PER_MESSAGE_MAX;
use crate::sketches::TagValues;
use crate::tally::{AGENT, Place, Tally};
use crate::watermark::Watermark;

/// Most devices that number their messages.
const DEVICES_MAX: usize = 65_536;

/// A running plan with its open panes.
#[derive(Debug)]
pub struct Intake {
    sources: Vec<Source>,
    views: Vec<View>,
    slices: Vec<(SliceId, Slice)>,
    panes: OpenPanes,
    decoded: Decoded,
    devices: Devices,
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
    tree: PathTree,
    views: Vec<usize>,
}

/// How one slice looks at a decoded message.
#[derive(Debug)]
struct View {
    place: Place,
    time: Option<(usize, TimeUnit)>,
    key: Vec<TagFrom>,
    sequence: Option<usize>,
    fields: Vec<(usize, Option<Resolution>)>,
    watched: Vec<TagFrom>,
    watermark: Watermark,
    /// The end of the pane that holds the watermark: when the watermark reaches it, panes can be closed.
    next_close: Timestamp,
    key_buffer: KeyBuffer,
    values: Vec<Option<Value>>,
    tags: TagValues,
}

/// What a message did that asks for closing panes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Closable {
    /// Partials had to leave early.
    pub spilled: bool,
    /// A watermark has passed the end of a pane.
    pub on_time: bool,
    /// A reading came behind the watermark.
    pub late: bool,
}

impl Intake {
    /// Runs `plan` from `now` on, with open panes in `memory_bytes`. Watermarks of slices in `before` are carried on;
    /// its panes, which had better be closed, give their memory back first, so that the budget is never taken twice.
    pub fn new(
        plan: &AgentPlan,
        mut before: Option<&mut Self>,
        limits: Limits,
        now: Now,
        tally: &mut Tally,
    ) -> Self {
        if let Some(before) = before.as_deref_mut() {
            before.panes = OpenPanes::new(0, &[], limits.seed);
        }
        let before = before.as_deref();
        // Without a slice nothing can be open.
        let memory_bytes = if plan.slices.is_empty() {
            0
        } else {
            limits.memory_bytes
        };
        let numbered = plan.slices.iter().any(|(_, slice)| slice.dedupe.is_some());
        let mut intake = Self {
            sources: Vec::new(),
            views: Vec::new(),
            slices: plan.slices.clone(),
            panes: OpenPanes::new(memory_bytes, &plan.slices, limits.seed),
            decoded: Decoded::default(),
            devices: Devices::new(
                if numbered {
                    DEVICES_MAX.min(limits.memory_bytes / 1_024)
                } else {
                    0
                },
                limits.seed.rotate_left(16),
            ),
            identity: Vec::new(),
            messages: 0,
            payload_bytes_max: limits.payload_bytes_max,
            agent: tally.place(AGENT),
        };
        if let Some(before) = before {
            intake.devices.adopt(&before.devices);
        }
        for (id, slice) in &plan.slices {
            let watermark = before.and_then(|before| before.watermark(*id));
            intake.add_view(
                slice,
                watermark.unwrap_or_else(|| Watermark::new(slice, now)),
                tally.place(*id),
            );
        }
        intake
    }

    fn add_view(&mut self, slice: &Slice, watermark: Watermark, place: Place) {
        let shape = slice.topic.shape();
        let alike = |source: &Source| source.format == slice.format && source.topic.shape() == shape;
        let home = self.sources.iter().position(alike).unwrap_or_else(|| {
            let tree = PathTree::default();
            self.sources.push(Source {
                topic: slice.topic.clone(),
                format: slice.format,
                tree,
                views: Vec::new(),
            });
            self.sources.len() - 1
        });
        let Source { tree, views, .. } = &mut self.sources[home];
        views.push(self.views.len());
        self.views.push(View {
            place,
            time: match &slice.time {
                TimeSource::Arrival => None,
                TimeSource::Payload { path, unit } => Some((tree.add(path), *unit)),
            },
            key: TagFrom::all(&slice.key, tree),
            watched: TagFrom::all(&slice.watched, tree),
            sequence: slice.dedupe.as_ref().map(|path| tree.add(path)),
            fields: slice
                .fields
                .iter()
                .map(|field| {
                    (
                        tree.add(&field.path),
                        field.resolution.and_then(Resolution::from_units),
                    )
                })
                .collect(),
            watermark,
            next_close: close_after(watermark.value(), slice),
            key_buffer: KeyBuffer::default(),
            values: Vec::with_capacity(slice.fields.len()),
            tags: TagValues::default(),
        });
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
        let mut closable = Closable::default();
        let mut matched = false;
        let Self {
            sources,
            views,
            slices,
            panes,
            decoded,
            devices,
            identity,
            messages,
            ..
        } = self;
        *messages += 1;
        let mark = journal.segment() as u16;
        for source in sources.iter() {
            let Some(captures) = source.topic.matches(topic) else {
                continue;
            };
            matched = true;
            let decoding = if payload.len() > self.payload_bytes_max {
                Err(Reason::OversizedPayload)
            } else {
                match source.format {
                    Format::Json => decoded.decode(&source.tree, payload),
                }
            };
            for &index in &source.views {
                let view = &mut views[index];
                let message = match decoding {
                    Ok(text) => Message {
                        captures,
                        text,
                        decoded,
                    },
                    Err(reason) => {
                        reject(tally, view.place, reason);
                        continue;
                    }
                };
                for reading in 0..decoded.readings() {
                    let slice = &slices[index].1;
                    let taken = view.read(&message, reading, slice, now).and_then(|read| {
                        if let Some(path) = view.sequence {
                            let number = reading::sequence(decoded.raw(message.text, reading, path))?;
                            identify(identity, topic, view.key_buffer.as_bytes())?;
                            let stamp = *messages * READINGS_PER_MESSAGE_MAX as u64 + reading as u64;
                            if !devices.take(identity, number, stamp, journal) {
                                return Err(Reason::Repeated);
                            }
                        }
                        Ok(read)
                    });
                    let (at, late) = match taken {
                        Ok(read) => view.count(&read, now, tally),
                        Err(reason) => {
                            reject(tally, view.place, reason);
                            continue;
                        }
                    };
                    let key = view.key_buffer.as_bytes();
                    let place = PanePlace {
                        slice: index as u16,
                        pane: at.pane_start(slice.pane),
                        key,
                    };
                    let lifted = loop {
                        if let Ok(lifted) = panes.lift(place, slice, view.measured(at), mark) {
                            break lifted;
                        }
                        let count = panes.spill(slices, |index, section| {
                            journal.taken(index, section.pane, section.keys.iter());
                            spilled(section, tally);
                        });
                        tally.add(view.place, Counter::Spilled, count as u64);
                        closable.spilled = true;
                    };
                    if lifted.is_new {
                        journal.forget_key(lifted.key);
                    }
                    journal.reading(
                        index as u16,
                        (lifted.key, key),
                        at,
                        (&slice.fields, &view.values),
                        &view.tags,
                    );
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

    /// Closes every pane that its slice's watermark has passed and hands it to `sink`.
    pub fn close_due(&mut self, journal: &mut Journal, mut sink: impl FnMut(&Section)) {
        let Self {
            views, slices, panes, ..
        } = self;
        for (view, (_, slice)) in views.iter_mut().zip(slices.iter()) {
            view.next_close = close_after(view.watermark.value(), slice);
        }
        let is_due = |key: &PaneKey, _| {
            let index = usize::from(key.slice);
            key.pane.plus(slices[index].1.pane) <= views[index].watermark.value()
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

    /// The devices that number their messages.
    pub fn devices(&mut self) -> &mut Devices {
        &mut self.devices
    }
}

/// The bounds of an intake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes for open panes.
    pub memory_bytes: usize,
    /// Largest payload that is looked at.
    pub payload_bytes_max: usize,
    /// Sets the hashing; should be random.
    pub seed: u64,
}

/// A decoded message, as the views see it.
#[derive(Clone, Copy)]
struct Message<'m> {
    captures: Captures<'m>,
    text: &'m str,
    decoded: &'m Decoded,
}

impl View {
    /// Reads one reading: leaves its key and values in the view.
    #[inline]
    fn read(
        &mut self,
        message: &Message<'_>,
        reading: usize,
        slice: &Slice,
        now: Now,
    ) -> Result<Read, Reason> {
        let raw = |path: usize| message.decoded.raw(message.text, reading, path);
        let at = match self.time {
            Some((path, unit)) => reading::time(raw(path), unit)?,
            None => now.wall,
        };
        if at > now.wall.plus(slice.max_ahead) {
            return Err(Reason::TooEarly);
        }
        if at < now.wall.minus(slice.max_late) {
            return Err(Reason::TooLate);
        }
        self.key_buffer.clear();
        for tag in &self.key {
            let pushed = match *tag {
                TagFrom::Capture(index) => self.key_buffer.push(message.captures[index]),
                TagFrom::Path(path) => self.key_buffer.push(&reading::tag(raw(path))?),
            };
            pushed.map_err(|_| Reason::BadKey)?;
        }
        let (mut present, mut rounded) = (0, 0);
        self.values.clear();
        for &(path, resolution) in &self.fields {
            let value = reading::value(raw(path), resolution)?;
            present += u64::from(value.is_some());
            rounded += u64::from(value.is_some_and(|(_, rounded)| rounded));
            self.values.push(value.map(|(value, _)| value));
        }
        let mut absent = self.fields.len() as u64 - present;
        if present == 0 && absent > 0 {
            return Err(Reason::MissingField);
        }
        absent += tags::watch(&self.watched, message, reading, &mut self.tags);
        Ok(Read { at, rounded, absent })
    }

    /// What it has just read, for its partial.
    fn measured(&self, at: Timestamp) -> Measured<'_> {
        Measured {
            at,
            values: &self.values,
            tags: &self.tags,
        }
    }

    /// Counts a reading that is taken; returns its event time and whether it is late.
    #[inline]
    fn count(&mut self, read: &Read, now: Now, tally: &mut Tally) -> (Timestamp, bool) {
        let late = read.at < self.watermark.value();
        self.watermark.observe(read.at, now);
        tally.add(self.place, Counter::Received, 1);
        tally.add(self.place, Counter::Lifted, 1);
        tally.add(self.place, Counter::Late, u64::from(late));
        tally.add(self.place, Counter::Rounded, read.rounded);
        tally.add(self.place, Counter::Absent, read.absent);
        (read.at, late)
    }
}

/// What a view read of a reading, besides its key and values.
#[derive(Clone, Copy)]
struct Read {
    at: Timestamp,
    rounded: u64,
    absent: u64,
}

/// Puts a device's identity together: its topic and its key.
fn identify(identity: &mut Vec<u8>, topic: &str, key: &[u8]) -> Result<(), Reason> {
    if topic.len() + 1 + key.len() > IDENTITY_BYTES_MAX {
        return Err(Reason::BadKey);
    }
    identity.clear();
    identity.extend_from_slice(topic.as_bytes());
    identity.push(SEPARATOR);
    identity.extend_from_slice(key);
    Ok(())
}

fn reject(tally: &mut Tally, place: Place, reason: Reason) {
    tally.add(place, Counter::Received, 1);
    tally.add(place, Counter::Rejected(reason), 1);
}

/// The end of the pane that `watermark` lies in.
fn close_after(watermark: Timestamp, slice: &Slice) -> Timestamp {
    watermark.pane_start(slice.pane).plus(slice.pane)
}

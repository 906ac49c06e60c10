//! The journal's records, byte by byte. Integers are LEB128 varints unless a width is named; those are little-endian.
//!
//! ```text
//! KEY        := 1  number  length  bytes          a key's number within this segment
//! MESSAGE    := 2  source  id:u16  hash:u32       a QoS 1 message begins
//! READING    := 3  pipeline  key  Δtime:zigzag µs  value × fields  tag × watched tags
//! CLOSED     := 4  pipeline  watermark:i64 µs        partials of the pipeline that end by then are in the spool
//! CLOSED_ALL := 5                                 all partials are
//! TAKEN      := 6  pipeline  pane:i64 µs  count  (length  key bytes) × count
//! SESSION    := 7  source                         the broker's session is new
//! COUNTS     := 8  count  (name  code:u8  increase) × count
//! SPOOLED    := 9  number                         the spool's last record that belongs to this history; the highest
//!                                                 number of all counts
//! SNAPSHOT   := 10                                see [`super::snapshot`]
//! DEVICE     := 11 number  last  window:u64  length  bytes
//! SEQUENCE   := 12 number  sequence               of the reading that follows
//! WINDOW     := 13 number  window:zigzag ms  readings  length  bytes     the newest window of a pipeline's key
//! NEXT       := 14 number  window:zigzag ms       the key's next window
//! FLOOR      := 15 window:zigzag ms               the highest window that was forgotten
//! GONE       := 16 length  bytes                  a key whose newest window was forgotten
//! SEALED     := 17 seq                            the last seq given out in the epoch of the snapshot
//! POSITION   := 18 source  partition  offset      how far a source has been read
//! SOURCE     := 19                                SETTLED := 20 and CARRIED := 21, too: see [`super::sources`]
//! LEAPT      := 22 number  (last  window:u64) × 2  leaping:u8  length  bytes     a DEVICE of which that is not all
//!
//! name  := 0                       the agent itself
//!        | 1  id:u64 le            a pipeline
//!        | 2 + n                   the n-th pipeline of the plan, then the rungs of its ladders
//! value := 0                       absent
//!        | 1 + scale  zigzag n     n · 10^scale units of 10⁻¹⁸
//!        | 38  units:i128
//!        | 39  zigzag n            n times the field's resolution
//! tag   := 0                       absent
//!        | 1 + length  bytes
//! ```
//!
//! A segment has the version of its snapshot. In version 1 MESSAGE and SESSION name no source, counters name a pipeline
//! by its number, as a varint, and the bytes of WINDOW and GONE begin with that number in four bytes instead of with an id
//! in eight.

use std::borrow::Cow;

use catchment_common::limits::{KEY_BYTES_MAX, WINDOW_STEP_MIN};
use catchment_common::number::decimal::Value;
use catchment_common::time::Timestamp;
use catchment_common::wire::cursor::{Cursor, put_varint, unzigzag, zigzag};
use catchment_common::wire::{AgentPlan, CounterSample, WireFault};

use super::context::{Context, PipelineNames, take_ordinal, take_u32};
use super::snapshot::Snapshot;
use super::sources::{CARRIED, Kept, SESSION, SETTLED, SOURCE, take_source};
use crate::aggregate::count_windows::Window;
use crate::source::dedupe::{IDENTITY_BYTES_MAX, Numbers, Place};

pub(super) const KEY: u8 = 1;
pub(super) const MESSAGE: u8 = 2;
pub(super) const READING: u8 = 3;
pub(super) const CLOSED: u8 = 4;
pub(super) const CLOSED_ALL: u8 = 5;
pub(super) const TAKEN: u8 = 6;
pub(super) const COUNTS: u8 = 8;
pub(super) const SPOOLED: u8 = 9;
pub(super) const SNAPSHOT: u8 = 10;
pub(super) const DEVICE: u8 = 11;
pub(super) const SEQUENCE: u8 = 12;
pub(super) const WINDOW: u8 = 13;
pub(super) const NEXT: u8 = 14;
pub(super) const FLOOR: u8 = 15;
pub(super) const GONE: u8 = 16;
pub(super) const SEALED: u8 = 17;
pub(super) const POSITION: u8 = 18;
pub(super) const LEAPT: u8 = 22;

const ABSENT: u8 = 0;
const SCALE_MAX: u8 = 36;
const RAW: u8 = 38;
const STEPS: u8 = 39;
/// Most keys in one record: the largest table a gateway could hold.
const TAKEN_MAX: usize = 1 << 24;

/// One record.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "the module's page says what they are")]
pub enum Record<'b> {
    Key {
        number: u64,
        bytes: &'b [u8],
    },
    Message {
        source: u32,
        id: u16,
        hash: u32,
    },
    Reading {
        pipeline: u16,
        key: u64,
        at: Timestamp,
        values: Vec<Option<Value>>,
        tags: Vec<Option<&'b [u8]>>,
    },
    Closed {
        pipeline: u16,
        watermark: Timestamp,
    },
    ClosedAll,
    Taken {
        pipeline: u16,
        pane: Timestamp,
        keys: Vec<&'b [u8]>,
    },
    Session {
        source: u32,
    },
    Counts(Vec<CounterSample>),
    Spooled(u64),
    Snapshot(Box<Snapshot>),
    Device {
        number: u64,
        numbers: Numbers,
        bytes: &'b [u8],
    },
    Sequence {
        device: u64,
        number: u64,
    },
    Window {
        id: u64,
        window: Window,
        bytes: Cow<'b, [u8]>,
    },
    Next {
        id: u64,
        number: Timestamp,
    },
    Floor(Timestamp),
    Gone(Cow<'b, [u8]>),
    Sealed(u64),
    Position {
        source: u32,
        partition: u32,
        offset: u64,
    },
    Source {
        source: u32,
        kept: Kept,
    },
    Settled {
        source: u32,
        number: u32,
    },
    Carried {
        source: u32,
        number: u32,
        id: u16,
        hash: u32,
    },
}

/// Appends increases of counters, if there are any.
pub(super) fn put_counts(out: &mut Vec<u8>, names: &PipelineNames, samples: &[CounterSample]) {
    if !samples.is_empty() {
        out.push(COUNTS);
        names.put_samples(out, samples);
    }
}

/// Appends a window's number.
#[inline]
pub(super) fn put_number(out: &mut Vec<u8>, number: Timestamp) {
    put_varint(
        out,
        zigzag(number.as_micros().div_euclid(WINDOW_STEP_MIN.as_micros())),
    );
}

fn take_number(cursor: &mut Cursor<'_>) -> Result<Timestamp, WireFault> {
    unzigzag(cursor.varint()?)
        .checked_mul(WINDOW_STEP_MIN.as_micros())
        .and_then(Timestamp::from_micros)
        .ok_or(WireFault::Invalid("window"))
}

#[inline]
pub(super) fn put_time(out: &mut Vec<u8>, last: &mut i64, at: Timestamp) {
    put_varint(out, zigzag(at.as_micros() - *last));
    *last = at.as_micros();
}

/// Appends a value. `scale` remembers at which power of ten the field's values are whole.
#[inline]
pub(super) fn put_value(out: &mut Vec<u8>, value: Option<Value>, resolution: Option<i128>, scale: &mut u8) {
    let Some(value) = value else {
        out.push(ABSENT);
        return;
    };
    let units = value.units();
    if let Some(resolution) = resolution {
        // Values were rounded to multiples of the resolution.
        if let (Ok(steps), 0) = (i64::try_from(units / resolution), units % resolution) {
            out.push(STEPS);
            put_varint(out, zigzag(steps));
            return;
        }
    }
    // A sensor keeps its number of digits, so the last scale nearly always fits.
    let whole = |scale: u8| {
        let power = 10_i128.pow(u32::from(scale));
        let quotient = units / power;
        (quotient * power == units).then_some(quotient)
    };
    let found = whole(*scale)
        .filter(|quotient| *scale > 0 && i64::try_from(*quotient).is_ok())
        .map(|quotient| (*scale, quotient))
        .or_else(|| {
            (0..=SCALE_MAX)
                .rev()
                .find_map(|scale| Some((scale, whole(scale)?)))
        });
    let small = found.and_then(|(at, quotient)| Some((at, i64::try_from(quotient).ok()?)));
    let Some((at, quotient)) = small else {
        out.push(RAW);
        out.extend_from_slice(&units.to_le_bytes());
        return;
    };
    if units != 0 {
        *scale = at;
    }
    out.push(1 + at);
    put_varint(out, zigzag(quotient));
}

/// Appends a watched tag.
#[inline]
pub(super) fn put_tag(out: &mut Vec<u8>, tag: Option<&[u8]>) {
    put_varint(out, tag.map_or(0, |tag| tag.len() as u64 + 1));
    out.extend_from_slice(tag.unwrap_or_default());
}

fn take_tag<'b>(cursor: &mut Cursor<'b>) -> Result<Option<&'b [u8]>, WireFault> {
    match cursor.length(KEY_BYTES_MAX + 1, "tag")? {
        0 => Ok(None),
        more => cursor.take(more - 1).map(Some),
    }
}

fn take_value(cursor: &mut Cursor<'_>, resolution: Option<i128>) -> Result<Option<Value>, WireFault> {
    let code = cursor.byte()?;
    let units = match code {
        ABSENT => return Ok(None),
        RAW => i128::from_le_bytes(cursor.array()?),
        STEPS => {
            let steps = i128::from(unzigzag(cursor.varint()?));
            let resolution = resolution.ok_or(WireFault::Invalid("resolution"))?;
            steps.checked_mul(resolution).ok_or(WireFault::Invalid("value"))?
        }
        scaled if scaled <= 1 + SCALE_MAX => {
            let power = 10_i128.pow(u32::from(scaled - 1));
            let number = i128::from(unzigzag(cursor.varint()?));
            number.checked_mul(power).ok_or(WireFault::Invalid("value"))?
        }
        _ => return Err(WireFault::Invalid("value")),
    };
    // A value of a field with a resolution was rounded to it.
    if resolution.is_some_and(|resolution| units.checked_rem(resolution) != Some(0)) {
        return Err(WireFault::Invalid("value"));
    }
    Value::from_units(units)
        .map(Some)
        .ok_or(WireFault::Invalid("value"))
}

fn take_place(cursor: &mut Cursor<'_>) -> Result<Place, WireFault> {
    Ok(Place {
        last: cursor.varint()?,
        window: u64::from_le_bytes(cursor.array()?),
    })
}

fn take_device<'b>(cursor: &mut Cursor<'b>, number: u64, numbers: Numbers) -> Result<Record<'b>, WireFault> {
    let length = cursor.length(IDENTITY_BYTES_MAX, "device")?;
    Ok(Record::Device {
        number,
        numbers,
        bytes: cursor.take(length)?,
    })
}

fn take_timestamp(cursor: &mut Cursor<'_>) -> Result<Timestamp, WireFault> {
    Timestamp::from_micros(i64::from_le_bytes(cursor.array()?)).ok_or(WireFault::Invalid("time"))
}

/// Reads the records of one group.
pub struct Records<'b> {
    cursor: Cursor<'b>,
    last_time: i64,
}

impl<'b> Records<'b> {
    /// The records in a group's body.
    pub fn new(body: &'b [u8]) -> Self {
        Self {
            cursor: Cursor::new(body),
            last_time: 0,
        }
    }

    /// The next record, read as the segment's snapshot says.
    pub fn next(&mut self, context: &Context) -> Result<Option<Record<'b>>, WireFault> {
        let plan = &context.plan;
        let cursor = &mut self.cursor;
        if cursor.rest().is_empty() {
            return Ok(None);
        }
        Ok(Some(match cursor.byte()? {
            KEY => {
                let number = cursor.varint()?;
                let length = cursor.length(KEY_BYTES_MAX, "key")?;
                Record::Key {
                    number,
                    bytes: cursor.take(length)?,
                }
            }
            MESSAGE => Record::Message {
                source: context.take_source(cursor)?,
                id: u16::from_le_bytes(cursor.array()?),
                hash: u32::from_le_bytes(cursor.array()?),
            },
            READING => self.reading(plan)?,
            CLOSED => Record::Closed {
                pipeline: pipeline_index(cursor, plan)?,
                watermark: take_timestamp(cursor)?,
            },
            CLOSED_ALL => Record::ClosedAll,
            TAKEN => {
                let (pipeline, pane) = (pipeline_index(cursor, plan)?, take_timestamp(cursor)?);
                let count = cursor.length(TAKEN_MAX, "keys")?;
                let mut keys = Vec::new();
                for _ in 0..count {
                    let length = cursor.length(KEY_BYTES_MAX, "key")?;
                    keys.push(cursor.take(length)?);
                }
                Record::Taken { pipeline, pane, keys }
            }
            SESSION => Record::Session {
                source: context.take_source(cursor)?,
            },
            COUNTS => Record::Counts(context.take_samples(cursor)?),
            SPOOLED => Record::Spooled(take_ordinal(cursor)?),
            SNAPSHOT => Record::Snapshot(Box::new(Snapshot::take(cursor)?)),
            DEVICE => {
                let number = cursor.varint()?;
                let numbers = Numbers {
                    place: take_place(cursor)?,
                    ..Numbers::default()
                };
                take_device(cursor, number, numbers)?
            }
            LEAPT => {
                let number = cursor.varint()?;
                let numbers = Numbers {
                    place: take_place(cursor)?,
                    other: take_place(cursor)?,
                    is_leaping: cursor.byte()? != 0,
                };
                take_device(cursor, number, numbers)?
            }
            SEQUENCE => Record::Sequence {
                device: cursor.varint()?,
                number: cursor.varint()?,
            },
            WINDOW => {
                let (id, number) = (cursor.varint()?, take_number(cursor)?);
                let readings = take_u32(cursor)?;
                Record::Window {
                    id,
                    window: Window { number, readings },
                    bytes: context.take_identity(cursor)?,
                }
            }
            NEXT => Record::Next {
                id: cursor.varint()?,
                number: take_number(cursor)?,
            },
            FLOOR => Record::Floor(take_number(cursor)?),
            GONE => Record::Gone(context.take_identity(cursor)?),
            SEALED => Record::Sealed(take_ordinal(cursor)?),
            POSITION => Record::Position {
                source: take_u32(cursor)?,
                partition: take_u32(cursor)?,
                offset: cursor.varint()?,
            },
            SOURCE => {
                let (source, kept) = Kept::take(cursor)?;
                Record::Source { source, kept }
            }
            SETTLED => Record::Settled {
                source: take_source(cursor)?,
                number: take_u32(cursor)?,
            },
            CARRIED => Record::Carried {
                source: take_source(cursor)?,
                number: take_u32(cursor)?,
                id: u16::from_le_bytes(cursor.array()?),
                hash: u32::from_le_bytes(cursor.array()?),
            },
            other => return Err(WireFault::Kind(other)),
        }))
    }

    fn reading(&mut self, plan: &AgentPlan) -> Result<Record<'b>, WireFault> {
        let cursor = &mut self.cursor;
        let pipeline = pipeline_index(cursor, plan)?;
        let key = cursor.varint()?;
        let micros = self
            .last_time
            .checked_add(unzigzag(cursor.varint()?))
            .ok_or(WireFault::Invalid("time"))?;
        let at = Timestamp::from_micros(micros).ok_or(WireFault::Invalid("time"))?;
        self.last_time = micros;
        let running = &plan.pipelines[usize::from(pipeline)].1;
        let values = running.fields.iter();
        let values = values
            .map(|field| take_value(cursor, field.resolution))
            .collect::<Result<_, _>>()?;
        let tags = running.watched.iter();
        let tags = tags.map(|_| take_tag(cursor)).collect::<Result<_, _>>()?;
        Ok(Record::Reading {
            pipeline,
            key,
            at,
            values,
            tags,
        })
    }
}

/// The index of a pipeline in the plan.
fn pipeline_index(cursor: &mut Cursor<'_>, plan: &AgentPlan) -> Result<u16, WireFault> {
    let index = cursor.varint()?;
    u16::try_from(index)
        .ok()
        .filter(|&index| usize::from(index) < plan.pipelines.len())
        .ok_or(WireFault::Invalid("pipeline"))
}

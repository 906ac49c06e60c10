//! What an agent counts. Every reading received is lifted or rejected under a reason; of those lifted, the few whose
//! batch is lost later are counted under the reason for that. So received = merged + held + rejected at any time.
//!
//! Counters are cumulative within an epoch, per pipeline or (pipeline 0) for the agent as a whole. Their codes are on
//! the wire: they are only ever appended. Their names are columns of `catchment_counter` and labels of metrics.

use crate::limits::FIELDS_MAX;

/// Why a reading (or a message, when it could not be taken apart) does not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// The payload is not JSON, or is not an object or an array of objects.
    MalformedJson = 0,
    /// The payload is not UTF-8.
    InvalidUtf8 = 1,
    /// A tag or time is there and has another type than it must, or none of the pipeline's fields can be used and the
    /// first one has.
    WrongType = 2,
    /// None of the pipeline's fields is there, or a tag or the time is missing.
    MissingField = 3,
    /// NaN or an infinity as a time, or as the first of a pipeline's fields of which none can be used.
    NotFinite = 4,
    /// None of the pipeline's fields can be used, and the first one is 10¹⁸ or more in magnitude.
    OutOfRange = 5,
    /// No bytes at all.
    EmptyPayload = 6,
    /// More bytes than the configured limit, or more readings than fit in one message.
    OversizedPayload = 7,
    /// The topic matches no template of the plan.
    NoMatch = 8,
    /// A tag is longer than a key may be, empty, or has a NUL character.
    BadKey = 9,
    /// The event time lies further ahead of the wall clock than `max_ahead`.
    TooEarly = 10,
    /// The event time lies further back than `allowed_lateness`.
    TooLate = 11,
    /// The event time is not a time.
    BadTime = 12,
    /// The batch that held it was refused by the aggregator. It had been lifted.
    BatchRefused = 13,
    /// The disk could not take it, and the broker will not send it again (QoS 0).
    JournalFull = 14,
    /// A retained message that the broker repeated because of a subscription: an old value, not a new reading.
    Retained = 15,
    /// The device's sequence number says that it was taken before.
    Repeated = 16,
    /// The query's `where` says that it does not count.
    Filtered = 17,
    /// The query's `where` cannot be decided: a value that it needs is absent or cannot be computed.
    Undecided = 18,
    /// None of the pipeline's fields is there, and at least one of them has no value although its operands have.
    Uncomputed = 19,
    /// The payload is not of the query's format, or not of its compression.
    MalformedPayload = 20,
    /// Sparkplug data whose birth is not known here, or not yet: names of its metrics are missing.
    NoBirth = 21,
    /// The wall clock of the gateway is not set, and time is needed.
    ClockUnset = 22,
    /// The batch that held it was gathered for another database, and the aggregator refused it. It had been accepted.
    OtherDatabase = 23,
}

impl Reason {
    /// Every reason, by code.
    pub const ALL: [Self; 24] = [
        Self::MalformedJson,
        Self::InvalidUtf8,
        Self::WrongType,
        Self::MissingField,
        Self::NotFinite,
        Self::OutOfRange,
        Self::EmptyPayload,
        Self::OversizedPayload,
        Self::NoMatch,
        Self::BadKey,
        Self::TooEarly,
        Self::TooLate,
        Self::BadTime,
        Self::BatchRefused,
        Self::JournalFull,
        Self::Retained,
        Self::Repeated,
        Self::Filtered,
        Self::Undecided,
        Self::Uncomputed,
        Self::MalformedPayload,
        Self::NoBirth,
        Self::ClockUnset,
        Self::OtherDatabase,
    ];

    /// The counter's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "rejected_malformed_json",
            Self::InvalidUtf8 => "rejected_invalid_utf8",
            Self::WrongType => "rejected_wrong_type",
            Self::MissingField => "rejected_missing_field",
            Self::NotFinite => "rejected_not_finite",
            Self::OutOfRange => "rejected_out_of_range",
            Self::EmptyPayload => "rejected_empty_payload",
            Self::OversizedPayload => "rejected_oversized_payload",
            Self::NoMatch => "rejected_no_match",
            Self::BadKey => "rejected_bad_key",
            Self::TooEarly => "rejected_too_early",
            Self::TooLate => "rejected_too_late",
            Self::BadTime => "rejected_bad_time",
            Self::BatchRefused => "rejected_batch_refused",
            Self::JournalFull => "rejected_journal_full",
            Self::Retained => "rejected_retained",
            Self::Repeated => "rejected_repeated",
            Self::Filtered => "rejected_filtered",
            Self::Undecided => "rejected_undecided",
            Self::Uncomputed => "rejected_uncomputed",
            Self::MalformedPayload => "rejected_malformed_payload",
            Self::NoBirth => "rejected_no_birth",
            Self::ClockUnset => "rejected_clock_unset",
            Self::OtherDatabase => "rejected_other_database",
        }
    }
}

/// Why a value cannot be used. Its field is absent, and the reading counts with its other fields.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Unusable {
    /// It is no number.
    WrongType = 0,
    /// NaN or an infinity.
    NotFinite = 1,
    /// It is 10¹⁸ or more in magnitude.
    OutOfRange = 2,
}

impl Unusable {
    /// Every reason, by code.
    pub const ALL: [Self; 3] = [Self::WrongType, Self::NotFinite, Self::OutOfRange];

    /// The reason under which a reading is rejected that has no usable field.
    pub const fn reason(self) -> Reason {
        match self {
            Self::WrongType => Reason::WrongType,
            Self::NotFinite => Reason::NotFinite,
            Self::OutOfRange => Reason::OutOfRange,
        }
    }
}

/// The same text with each number of a field at its end.
macro_rules! of_fields {
    ($prefix:literal, $($field:literal)*) => { [$(concat!($prefix, $field)),*] };
    ($prefix:literal) => {
        of_fields!($prefix, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
}

/// The names of [`Counter::Unusable`].
const UNUSABLE: [[&str; FIELDS_MAX]; 3] = [
    of_fields!("unusable_wrong_type_"),
    of_fields!("unusable_not_finite_"),
    of_fields!("unusable_out_of_range_"),
];

/// A thing that is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Counter {
    /// Messages taken from the broker.
    Messages,
    /// Their payload bytes.
    RawBytes,
    /// Readings taken out of messages, and messages and parts of them that no reading could be taken out of.
    Received,
    /// Readings lifted into panes.
    Accepted,
    /// Of those, readings behind the watermark.
    Late,
    /// Of those, values rounded because they were finer than 10⁻¹⁸.
    Rounded,
    /// Fields, and tags that sketches watch, that a lifted reading did not have.
    Absent,
    /// Deltas that left early because the pane table was full.
    EmittedEarly,
    /// Deltas sealed in batches.
    Deltas,
    /// Batches sealed.
    Batches,
    /// Bytes of frames handed to the link, repeats and control messages included.
    UplinkBytes,
    /// Batches acknowledged.
    Acknowledged,
    /// Times that the link to the aggregator was made.
    Connects,
    /// UDP payload bytes sent on the link, with all that QUIC adds.
    LinkBytes,
    /// Messages that the broker delivered again and that were recognised.
    Redelivered,
    /// Messages that were left to the broker, unacknowledged, because the disk did not keep up.
    HeldBack,
    /// Bytes written to disk: flash wears.
    DiskBytes,
    /// Jobs that the disk failed at and that were tried again.
    DiskFaults,
    /// Readings in batches that left a full spool. The aggregator's table of losses says which of them it never had.
    Dropped,
    /// Acknowledged batches that the aggregator had lost again and that were sent once more.
    Resent,
    /// Records of journal or spool that could not be read back.
    Damaged,
    /// Devices whose sequence numbers were forgotten for want of room.
    Forgotten,
    /// Computed fields that a lifted reading lacks because of a division by zero, a result of 10¹⁸ or more, or the root
    /// of a negative number. They count as absent too.
    Uncomputed,
    /// Readings lifted under the overflow key: theirs was new, and there were too many new ones.
    Overflowed,
    /// Lifted readings that have the time of their arrival, because their own could not be read.
    Arrived,
    /// Sparkplug edge nodes that were asked for their births.
    RebirthRequests,
    /// Windows with `count` that stay short of readings: how far their keys had come was forgotten for want of room, or
    /// their query is gone.
    CutShort,
    /// Copies of messages: each came through another subscription, and was read there.
    Copies,
    /// Messages that the broker marks as sent before and that are not known, after older ones had to be forgotten without
    /// the broker's word: they may count twice.
    MaybeRepeated,
    /// Readings whose points a full spool gave up, so that no reading was lost: what is asked of their series (increase,
    /// rate, mean over time) has no answer.
    PointsGivenUp,
    /// Times that the gateway's wall clock turned out to be off, compared with the aggregator's.
    ClockOff,
    /// A reading that does not count.
    Rejected(Reason),
    /// A value of a lifted reading that cannot be used. Its field, which is counted as absent too, by its place in the
    /// pipeline, below [`FIELDS_MAX`].
    Unusable(Unusable, u8),
}

/// Codes of reasons start here; below are the plain counters.
const REASON_CODE: u8 = 64;
/// Codes of unusable values start here: [`FIELDS_MAX`] for each reason.
const UNUSABLE_CODE: u8 = 128;
const _: () = assert!(UNUSABLE_CODE as usize + Unusable::ALL.len() * FIELDS_MAX <= 256);
const _: () = assert!(REASON_CODE as usize + Reason::ALL.len() <= UNUSABLE_CODE as usize);

impl Counter {
    /// The counters that are not rejections, by code.
    pub const PLAIN: [Self; 31] = [
        Self::Messages,
        Self::RawBytes,
        Self::Received,
        Self::Accepted,
        Self::Late,
        Self::Rounded,
        Self::Absent,
        Self::EmittedEarly,
        Self::Deltas,
        Self::Batches,
        Self::UplinkBytes,
        Self::Acknowledged,
        Self::Connects,
        Self::LinkBytes,
        Self::Redelivered,
        Self::HeldBack,
        Self::DiskBytes,
        Self::DiskFaults,
        Self::Dropped,
        Self::Resent,
        Self::Damaged,
        Self::Forgotten,
        Self::Uncomputed,
        Self::Overflowed,
        Self::Arrived,
        Self::RebirthRequests,
        Self::CutShort,
        Self::Copies,
        Self::MaybeRepeated,
        Self::PointsGivenUp,
        Self::ClockOff,
    ];

    /// Every counter.
    pub fn all() -> impl Iterator<Item = Self> {
        let unusable = |why| (0..FIELDS_MAX as u8).map(move |field| Self::Unusable(why, field));
        Self::PLAIN
            .into_iter()
            .chain(Reason::ALL.into_iter().map(Self::Rejected))
            .chain(Unusable::ALL.into_iter().flat_map(unusable))
    }

    /// The code on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Rejected(reason) => REASON_CODE + reason as u8,
            Self::Unusable(why, field) => UNUSABLE_CODE + why as u8 * FIELDS_MAX as u8 + in_range(field),
            plain => Self::PLAIN
                .iter()
                .position(|&other| other == plain)
                .unwrap_or_default() as u8,
        }
    }

    /// The counter with this code, if it is known here.
    pub fn from_code(code: u8) -> Option<Self> {
        if let Some(unusable) = code.checked_sub(UNUSABLE_CODE) {
            let (why, field) = (unusable / FIELDS_MAX as u8, unusable % FIELDS_MAX as u8);
            let why = Unusable::ALL.get(usize::from(why));
            return why.map(|why| Self::Unusable(*why, field));
        }
        match code.checked_sub(REASON_CODE) {
            Some(reason) => Reason::ALL.get(usize::from(reason)).copied().map(Self::Rejected),
            None => Self::PLAIN.get(usize::from(code)).copied(),
        }
    }

    /// The name in tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::RawBytes => "raw_bytes",
            Self::Received => "received",
            Self::Accepted => "accepted",
            Self::Late => "late",
            Self::Rounded => "rounded",
            Self::Absent => "absent",
            Self::EmittedEarly => "emitted_early",
            Self::Deltas => "deltas",
            Self::Batches => "batches",
            Self::UplinkBytes => "uplink_bytes",
            Self::Acknowledged => "acknowledged",
            Self::Connects => "connects",
            Self::LinkBytes => "link_bytes",
            Self::Redelivered => "redelivered",
            Self::HeldBack => "held_back",
            Self::DiskBytes => "disk_bytes",
            Self::DiskFaults => "disk_faults",
            Self::Dropped => "dropped",
            Self::Resent => "resent",
            Self::Damaged => "damaged",
            Self::Forgotten => "forgotten",
            Self::Uncomputed => "uncomputed",
            Self::Overflowed => "overflowed",
            Self::Arrived => "arrived",
            Self::RebirthRequests => "rebirth_requests",
            Self::CutShort => "cut_short",
            Self::Copies => "copies",
            Self::MaybeRepeated => "maybe_repeated",
            Self::PointsGivenUp => "points_given_up",
            Self::ClockOff => "clock_off",
            Self::Rejected(reason) => reason.name(),
            Self::Unusable(why, field) => UNUSABLE[why as usize][usize::from(in_range(field))],
        }
    }
}

/// A field's place, which is below the most that there can be.
const fn in_range(field: u8) -> u8 {
    const LAST: u8 = FIELDS_MAX as u8 - 1;
    if field < LAST { field } else { LAST }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_counters_are_one_to_one() {
        for counter in Counter::all() {
            assert_eq!(
                Counter::from_code(counter.code()),
                Some(counter),
                "{}",
                counter.name()
            );
        }
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        assert_eq!(Counter::from_code(63), None);
        assert_eq!(Counter::from_code(255), None);
        assert_eq!(
            Counter::Unusable(Unusable::NotFinite, 31).name(),
            "unusable_not_finite_31"
        );
    }
}

//! Every bound of the language, on one page, with its reason.
//!
//! A bound that is not here is not a bound. Sizes are bytes, times are named with their unit. The compile-time
//! assertions at the end tie the numbers to each other, so that changing one cannot silently break another.

use crate::time::Span;

/// Longest encoded key in bytes: all tag values with a separator between each. Keys sit in the agent's memory budget,
/// so a device that invents long names must not be able to buy more than this.
pub const KEY_BYTES_MAX: usize = 192;
/// Most tags in a key. More is a modelling mistake; eight covers tenant/country/site/building/line/cell/device/port.
pub const TAGS_MAX: usize = 8;
/// Most measured fields of one query.
pub const FIELDS_MAX: usize = 32;
/// Most aggregates of one query: with all fields, its table stays below the 2,000 columns that SQLite takes.
pub const AGGREGATES_MAX: usize = 48;
/// Deepest dotted path into a payload.
pub const PATH_DEPTH_MAX: usize = 8;
/// Most operations of an expression. A reading costs each of them once, so this bounds what a plan can cost an agent.
pub const OPS_MAX: usize = 64;
/// Most values that an expression holds at once: they are on the stack of a microcontroller.
pub const STACK_MAX: usize = 16;
/// Most distinct values, and most distinct texts, that an expression looks at.
pub const OPERANDS_MAX: usize = 16;
/// Longest text of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 1_024;
/// Deepest nesting of an expression's text, which is read by recursion.
pub const NESTING_MAX: usize = 32;
/// Most columns of a CSV payload.
pub const COLUMNS_MAX: usize = 256;
/// Longest topic, as MQTT allows it: its length is a 16-bit number.
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// Most levels in a topic template.
pub const TOPIC_LEVELS_MAX: usize = 16;
/// Longest name of a time zone; the longest in use have 32 bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// Longest query, tag or field name: they become SQL identifiers.
pub const NAME_BYTES_MAX: usize = 48;
/// Least memory that a query may be given for its open partials: some of them.
pub const QUERY_MEMORY_MIN: u64 = 4 << 10;
/// Most queries in a plan.
pub const QUERIES_MAX: usize = 4_096;
/// Most panes that one window may be assembled from; beyond it a window costs more than it tells.
pub const PANES_PER_WINDOW_MAX: i64 = 10_000;
/// Longest plan definition on the wire and on disk.
pub const PLAN_BYTES_MAX: usize = 1 << 20;

/// Smallest window size or step. Result tables show milliseconds.
pub const WINDOW_STEP_MIN: Span = Span::from_millis(1);
/// Longest window: a leap year.
pub const WINDOW_SIZE_MAX: Span = Span::from_days(366);
/// Most readings of one window with `count`: an agent has to remember how far each key has come, and a window that
/// takes more than a million is better cut by time.
pub const COUNT_MAX: u32 = 1_000_000;
/// Longest `watermark_delay`, `allowed_lateness`, `idle`, `patience` and `retention`: one hundred years, so that sums
/// of two of them and an instant never overflow.
pub const SPAN_MAX: Span = Span::from_days(36_525);

/// Most different buckets of one histogram; with more, buckets become twice as wide. A sensor's noise takes some tens
/// of them, a thousand resolve any spread to a tenth of a percent.
pub const BUCKETS_MAX: usize = 1_024;
/// Most values that one top list counts each for itself; the rest is counted together.
pub const TOP_VALUES_MAX: usize = 1_024;
/// Most points of one field in one pane and key, of those that a series keeps: a reading a second for an hour. A pane
/// is a row of a frame, and all of a key's series must fit one.
pub const SERIES_POINTS_MAX: usize = 4_096;
/// Most bounds of one `histogram(…)`.
pub const BOUNDS_MAX: usize = 64;
/// Most rows of a `top(k, …)`: it is a cell of a table that people read.
pub const TOP_K_MAX: u16 = 100;
/// Most tags that the sketches of one pipeline watch.
pub const WATCHED_MAX: usize = 16;
/// Most sketches of one pipeline.
pub const SKETCHES_MAX: usize = 64;
/// Of these, most top lists: each may carry [`TOP_VALUES_MAX`] texts.
pub const TOPS_MAX: usize = 8;
/// Of these, most series: each may carry [`SERIES_POINTS_MAX`] points.
pub const SERIES_MAX: usize = 8;
/// Most entries (buckets, registers, counters, points) of all sketches of one section; decoders refuse more before they
/// allocate.
pub const SECTION_ENTRIES_MAX: usize = 1 << 18;
/// A section with so much sketch weight takes no more rows; see [`crate::sketch::Sketch::weight`].
pub const SECTION_WEIGHT_TARGET: usize = 1 << 14;

/// Most deltas in one batch. A batch is held whole in memory on both sides.
pub const BATCH_DELTAS_MAX: usize = 4_096;
/// Most readings of one key in one delta: more than an agent can take in a pane, and far below what a pane holds.
pub const DELTA_READINGS_MAX: u64 = 1 << 40;
/// Most readings of one key in a merged pane: what a whole fleet of a million readings a second gives in 35 years. A
/// batch with which a pane would hold more is refused, so that what is stored can be read again; and the panes of a
/// window together stay below 2⁶⁴.
pub const PANE_READINGS_MAX: u64 = 1 << 50;
/// Largest frame on a link: a batch of the largest size with room to spare. Decoders refuse longer ones unread.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Bytes at which a batch is sealed although it has room for more deltas: keeps frames small against the windows of
/// the link, so that a live batch never waits long behind another.
pub const BATCH_BYTES_TARGET: usize = 64 << 10;
/// Most sections (one per pipeline and pane) in one batch.
pub const BATCH_SECTIONS_MAX: usize = 4_096;
/// Bytes of a pipeline's id. A frame names each of its pipelines once.
pub const PIPELINE_ID_BYTES: usize = 8;
/// Most seq ranges named in a `Welcome` or `Ack`.
pub const RANGES_MAX: usize = 4_096;
/// Most epochs of which a `Hello` names the batches that an agent holds: an epoch counts as a range more.
pub const HELD_EPOCHS_MAX: usize = RANGES_MAX / 2;
/// Most counters in a heartbeat.
pub const COUNTERS_MAX: usize = 4_096;
/// Most pipelines of a plan. A pipeline is one distinct way to cut the input; queries share them.
pub const PIPELINES_MAX: usize = 1_024;
/// Most rungs of a pipeline's coarsening ladder. Each at least doubles the pane, from a millisecond up to a leap year.
pub const LADDER_MAX: usize = 35;
/// Most entries of a loss record: a batch holds no more deltas than this.
pub const LOSSES_MAX: usize = BATCH_DELTAS_MAX;
/// Most extensions at the end of a message: what a later version adds for readers that may ignore it.
pub const EXTENSIONS_MAX: usize = 32;
/// Most epochs of a lineage that a hello names: those since the last welcome, which is one for each start of an agent
/// that crashes again and again. If older ones are left out, an older copy may pass unseen; nothing is refused for it.
pub const ANCESTORS_MAX: usize = 32;
/// Most pipelines whose numbers of version 1 an agent is told: with a plan of the largest size they fit a frame.
pub const NUMBERS_MAX: usize = 1 << 15;
/// Most sources of messages of one agent.
pub const SOURCES_MAX: usize = 64;
/// Longest name of a source: it stands in plans, in journals and in heartbeats.
pub const SOURCE_NAME_BYTES_MAX: usize = 64;
/// Longest agent name.
pub const AGENT_NAME_BYTES_MAX: usize = 64;

const _: () = assert!(KEY_BYTES_MAX >= TAGS_MAX * 2);
const _: () = assert!(BATCH_BYTES_TARGET < FRAME_BYTES_MAX);
const _: () = assert!(WINDOW_STEP_MIN.as_micros() << LADDER_MAX > WINDOW_SIZE_MAX.as_micros());
const _: () = assert!(LOSSES_MAX == 4_096);
const _: () = assert!(DELTA_READINGS_MAX < PANE_READINGS_MAX);
const _: () = assert!(u64::MAX / PANE_READINGS_MAX > PANES_PER_WINDOW_MAX as u64);
// An agent's name is part of the keys of windows with `count`, and leaves room for more.
const _: () = assert!(KEY_BYTES_MAX >= 2 * (AGENT_NAME_BYTES_MAX + 1));
const _: () = assert!(SPAN_MAX.as_micros() < i64::MAX / 4);
// One delta at its widest: every column of every field at its longest form, and its key.
const DELTA_BYTES_MAX: usize = KEY_BYTES_MAX + 8 + 16 + FIELDS_MAX * (10 + 25 + 41 + 2 * 17 + 2 * 26);
// Its sketches at their widest: top lists of the longest texts, and full histograms. A unit of weight is at most 20
// bytes.
const SKETCH_BYTES_MAX: usize = 20;
const TOP_BYTES_MAX: usize = TOP_VALUES_MAX * (KEY_BYTES_MAX + SKETCH_BYTES_MAX);
// A point at its widest: ten bytes of time and 19 of value.
const POINT_BYTES_MAX: usize = 29;
const SKETCHES_BYTES_MAX: usize = TOPS_MAX * TOP_BYTES_MAX
    + SERIES_MAX * SERIES_POINTS_MAX * POINT_BYTES_MAX
    + (SKETCHES_MAX - TOPS_MAX - SERIES_MAX) * BUCKETS_MAX * SKETCH_BYTES_MAX
    + SECTION_WEIGHT_TARGET * SKETCH_BYTES_MAX;
const _: () = assert!(
    DELTA_BYTES_MAX + SKETCHES_BYTES_MAX + BATCH_BYTES_TARGET + PIPELINE_ID_BYTES * BATCH_SECTIONS_MAX
        < FRAME_BYTES_MAX
);
const _: () = assert!(
    SECTION_WEIGHT_TARGET + SKETCHES_MAX * 2 * BUCKETS_MAX + SERIES_MAX * SERIES_POINTS_MAX
        < SECTION_ENTRIES_MAX
);
const _: () = assert!(BOUNDS_MAX < BUCKETS_MAX);
const _: () = assert!(FIELDS_MAX * AGGREGATES_MAX + 2 * AGGREGATES_MAX + TAGS_MAX < 2_000 - 16);

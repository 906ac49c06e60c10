//! Pipelines: what agents run. Queries that read the same messages, take the same key and treat time alike share one.

use alloc::string::String;
use alloc::vec::Vec;

use super::{
    Components, Compression, Dedupe, FieldSource, Format, KeyPart, NewKeys, PipelineSketch, Plan, Query,
    TimeSource, is_source_name,
};
use crate::expression::{Expression, Kind, captures_exist};
use crate::limits::{
    COLUMNS_MAX, COUNT_MAX, FIELDS_MAX, PATH_DEPTH_MAX, QUERY_MEMORY_MIN, SPAN_MAX, TAGS_MAX,
    WINDOW_SIZE_MAX, WINDOW_STEP_MIN,
};
use crate::number::decimal::Value;
use crate::time::Span;
use crate::topic::TopicTemplate;

/// Which pipeline: a fingerprint of its canonical definition ([`crate::wire::fingerprint`]), which means the same in
/// every database.
///
/// Ids below [`PipelineId::NUMBERS`] are not fingerprints but numbers as version 1 gave them: they mean something in one
/// database only, and the aggregator translates them where they come in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PipelineId(pub u64);

impl PipelineId {
    /// "The agent itself", where counters are reported, and "not known", where losses are.
    pub const NONE: Self = Self(0);
    /// Ids below this are numbers of version 1.
    pub const NUMBERS: u64 = 1 << 32;

    /// The number of version 1 that this is, if it is one.
    pub const fn number(self) -> Option<u32> {
        if self.0 < Self::NUMBERS {
            Some(self.0 as u32)
        } else {
            None
        }
    }
}

impl core::fmt::Display for PipelineId {
    /// A fingerprint in hexadecimal, a number as such.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{number}"),
            None => write!(f, "{:016x}", self.0),
        }
    }
}

impl From<u32> for PipelineId {
    /// A number of version 1.
    fn from(number: u32) -> Self {
        Self(u64::from(number))
    }
}

/// The part of a plan that an agent runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pipeline {
    /// Which messages.
    pub topic: TopicTemplate,
    /// How their payloads are written.
    pub format: Format,
    /// How their payloads are packed.
    pub compression: Compression,
    /// Where the event time comes from.
    pub time: TimeSource,
    /// Where each tag of the key comes from, in the key's order.
    pub key: Vec<KeyPart>,
    /// The measured fields and what is kept of each.
    pub fields: Vec<PipelineField>,
    /// See [`Query::filter`].
    pub filter: Option<Expression>,
    /// The pane width.
    pub pane: Span,
    /// If set, windows hold a fixed number of readings of a key, and a pane is the number of a window: the instant at
    /// which the agent began it. The agent's name is then one more tag, the last of the key.
    pub count: Option<u32>,
    /// See [`Query::watermark_delay`].
    pub watermark_delay: Span,
    /// See [`Query::allowed_lateness`].
    pub allowed_lateness: Span,
    /// See [`Query::max_ahead`].
    pub max_ahead: Span,
    /// See [`Query::idle`].
    pub idle: Span,
    /// See [`Query::dedupe`].
    pub dedupe: Option<Dedupe>,
    /// See [`Query::new_keys`].
    pub new_keys: Option<NewKeys>,
    /// Bytes for the pipeline's open partials; see [`Query::memory`].
    pub memory: Option<u64>,
    /// Where the tags come from that sketches are about.
    pub watched: Vec<KeyPart>,
    /// What is kept beside the components of the fields.
    pub sketches: Vec<PipelineSketch>,
    /// See [`Query::source`].
    pub source: Option<String>,
}

/// A field as an agent keeps it. It has no name here: queries may call the same path differently.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PipelineField {
    /// Where its value comes from.
    pub source: FieldSource,
    /// See [`super::Field::resolution`].
    pub resolution: Option<i128>,
    /// What is kept of it.
    pub components: Components,
}

impl Pipeline {
    /// How many tags its keys have, an agent's name included where that is one.
    pub fn key_tags(&self) -> usize {
        self.key.len() + usize::from(self.count.is_some())
    }

    /// Checks what the rest of the code relies on, for pipelines that come over the wire. The text names what is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        let spans = [
            self.watermark_delay,
            self.allowed_lateness,
            self.max_ahead,
            self.idle,
        ];
        let paths = self.fields.iter().flat_map(|field| field.source.paths());
        let tags = self
            .key
            .iter()
            .chain(&self.watched)
            .filter_map(|part| match part {
                KeyPart::Payload(path) => Some(path),
                KeyPart::Capture(_) => None,
            });
        let captures = self.topic.captures().count();
        let paths = paths
            .chain(tags)
            .chain(self.dedupe.as_ref().map(|dedupe| &dedupe.path));
        if self.pane < WINDOW_STEP_MIN || self.pane > WINDOW_SIZE_MAX {
            Err("pane width")
        } else if self.count.is_some_and(|count| {
            count == 0 || count > COUNT_MAX || self.pane != WINDOW_STEP_MIN || self.key_tags() > TAGS_MAX
        }) {
            Err("count")
        } else if spans.iter().any(|span| *span < Span::ZERO || *span > SPAN_MAX) {
            Err("span")
        } else if self
            .new_keys
            .is_some_and(|cap| cap.every < NewKeys::EVERY_MIN || cap.every > SPAN_MAX)
        {
            Err("interval of new keys")
        } else if self.memory.is_some_and(|bytes| bytes < QUERY_MEMORY_MIN) {
            Err("memory")
        } else if self.key.len() > TAGS_MAX || self.fields.len() > FIELDS_MAX || captures > TAGS_MAX {
            Err("too many tags or fields")
        } else if self.names_other_captures(captures) {
            Err("key names a capture that does not exist")
        } else if { paths }.any(|path| path.segments.is_empty() || path.segments.len() > PATH_DEPTH_MAX) {
            Err("path")
        } else if { self.dedupe.iter() }
            .filter_map(|dedupe| dedupe.wraps_at)
            .any(|end| end < Dedupe::WRAPS_AT_MIN)
        {
            Err("end of sequence numbers")
        } else if !self.expressions_fit(captures) {
            Err("expression")
        } else if self.fields.iter().any(|field| {
            field
                .resolution
                .is_some_and(|step| step <= 0 || step >= Value::LIMIT)
        }) {
            Err("resolution")
        } else if self
            .fields
            .iter()
            .any(|field| Components::from_bits(field.components.bits()).is_none())
        {
            Err("components")
        } else if !self.format_fits() {
            Err("format")
        } else if self.source.as_deref().is_some_and(|name| !is_source_name(name)) {
            Err("name of a source")
        } else {
            self.check_sketches()
        }
    }

    /// Whether a tag is a capture that a topic with this many does not have.
    fn names_other_captures(&self, captures: usize) -> bool {
        let mut tags = self.key.iter().chain(&self.watched);
        tags.any(|part| matches!(part, KeyPart::Capture(index) if usize::from(*index) >= captures))
    }

    fn format_fits(&self) -> bool {
        let Format::Csv(csv) = &self.format else {
            return true;
        };
        csv.delimiter.is_ascii() && csv.columns.iter().all(|columns| columns.len() <= COLUMNS_MAX)
    }

    /// Whether its expressions have the type that they must have and look at captures that exist. All else about them
    /// is checked when they are read.
    fn expressions_fit(&self, captures: usize) -> bool {
        let computed = self.fields.iter().filter_map(|field| match &field.source {
            FieldSource::Expression(expression) => Some((expression, Kind::Number)),
            FieldSource::Path(_) => None,
        });
        computed
            .chain(self.filter.iter().map(|filter| (filter, Kind::Truth)))
            .all(|(expression, kind)| {
                expression.kind() == kind && captures_exist(expression.tests(), captures)
            })
    }
}

/// The pipelines of a plan and, for each query, how it reads its pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlannedPipelines {
    /// The distinct pipelines, in the order of the queries that first need them.
    pub pipelines: Vec<Pipeline>,
    /// For each query of the plan: the index of its pipeline, and for each of its fields the index within the pipeline.
    pub readers: Vec<(usize, Vec<usize>)>,
    /// For each pipeline the pane widths of its coarsening ladder, ascending, each a multiple of the one before and of
    /// the pipeline's pane; see [`Plan::pipelines`].
    pub ladders: Vec<Vec<Span>>,
}

impl Plan {
    /// Derives the pipelines of a valid plan: queries that can share one do, and each pipeline carries the union of the
    /// components and the widest pane that serves all its queries.
    ///
    /// The ladder is no part of a pipeline's identity, or queries that differ in it could not share. A shared pipeline
    /// has the rungs of all its queries that make a chain, up to the lowest of their highest ones: no query's readings
    /// are ever coarsened further than it allows, and if one forbids coarsening, nothing is coarsened.
    ///
    /// A query whose key names a tag that does not exist must have been refused by [`Plan::validate`] before.
    pub fn pipelines(&self) -> PlannedPipelines {
        let mut planned = PlannedPipelines::default();
        for query in &self.queries {
            let wanted = pipeline_of(query);
            let home = planned
                .pipelines
                .iter()
                .position(|pipeline| can_share(pipeline, &wanted));
            let index = home.unwrap_or_else(|| {
                planned.pipelines.push(Pipeline {
                    fields: Vec::new(),
                    watched: Vec::new(),
                    sketches: Vec::new(),
                    ..wanted.clone()
                });
                planned.pipelines.len() - 1
            });
            let pipeline = &mut planned.pipelines[index];
            pipeline.pane = pipeline.pane.gcd(wanted.pane);
            pipeline.memory = pipeline.memory.zip(wanted.memory).map(|(a, b)| a.max(b));
            let fields: Vec<usize> = wanted
                .fields
                .iter()
                .map(|field| place_field(pipeline, field))
                .collect();
            pipeline.place_sketches(&wanted, &fields);
            planned.readers.push((index, fields));
        }
        planned.ladders = (0..planned.pipelines.len())
            .map(|pipeline| {
                let readers = self.queries.iter().zip(&planned.readers);
                let readers = readers
                    .filter(|(_, (home, _))| *home == pipeline)
                    .map(|(query, _)| query);
                let windows = readers.clone().map(|query| query.window.pane());
                ladder(
                    planned.pipelines[pipeline].pane,
                    windows.fold(Span::ZERO, Span::gcd),
                    readers.map(|query| query.coarsen.as_slice()),
                )
            })
            .collect();
        planned
    }
}

/// One ladder for a pipeline of this pane from those of its queries. `windows` is the pane that their windows could
/// have: a rung if the pipeline's is narrower.
fn ladder<'q>(pane: Span, windows: Span, wanted: impl Iterator<Item = &'q [Span]> + Clone) -> Vec<Span> {
    let Some(top) = wanted.clone().map(|rungs| rungs.last().copied()).min().flatten() else {
        return Vec::new();
    };
    let rungs = wanted.flatten().copied().chain([windows]);
    let mut rungs: Vec<Span> = rungs.filter(|rung| *rung <= top).collect();
    rungs.sort_unstable();
    let mut below = pane;
    rungs.retain(|rung| {
        let fits = *rung > below && rung.is_multiple_of(below);
        if fits {
            below = *rung;
        }
        fits
    });
    rungs
}

impl Query {
    /// The pipeline that this query would have for itself.
    pub fn pipeline(&self) -> Pipeline {
        pipeline_of(self)
    }

    /// The tags of its rows: those of its key, and the agent's name for windows with `count`.
    pub fn row_tags(&self) -> Vec<&str> {
        let agent = self.window.count().map(|_| "agent");
        self.key.iter().map(String::as_str).chain(agent).collect()
    }
}

fn pipeline_of(query: &Query) -> Pipeline {
    let (sketches, watched) = query.sketches();
    let components = query
        .aggregates
        .iter()
        .fold(query.window.components(), |all, aggregate| {
            all | aggregate.components()
        });
    let fields = query
        .fields
        .iter()
        .map(|field| PipelineField {
            source: field.source.clone(),
            resolution: field.resolution,
            components,
        })
        .collect();
    Pipeline {
        topic: query.topic.clone(),
        format: query.format.clone(),
        compression: query.compression,
        time: query.time.clone(),
        key: query.key.iter().filter_map(|tag| key_part(query, tag)).collect(),
        fields,
        filter: query.filter.clone(),
        pane: query.pane(),
        count: query.window.count(),
        watermark_delay: query.watermark_delay,
        allowed_lateness: query.allowed_lateness,
        max_ahead: query.max_ahead,
        idle: query.idle,
        dedupe: query.dedupe.clone(),
        new_keys: query.new_keys,
        memory: query.memory,
        watched,
        sketches,
        source: query.source.clone(),
    }
}

/// Where the tag called `name` comes from in `query`, if it exists there.
pub(super) fn key_part(query: &Query, name: &str) -> Option<KeyPart> {
    if let Some(index) = query.topic.captures().position(|capture| capture == name) {
        return Some(KeyPart::Capture(index as u8));
    }
    query
        .tags
        .iter()
        .find(|tag| tag.name == name)
        .map(|tag| KeyPart::Payload(tag.path.clone()))
}

fn can_share(pipeline: &Pipeline, wanted: &Pipeline) -> bool {
    let new_fields = wanted
        .fields
        .iter()
        .filter(|field| find_field(pipeline, field).is_none())
        .count();
    // Whether a reading counts depends on which fields it has: only queries over the same set of fields agree on
    // that, except that a superset of fields is a different population of readings.
    new_fields == 0
        && wanted.fields.len() == pipeline.fields.len()
        && pipeline.fields.len() <= FIELDS_MAX
        && (pipeline.fields.is_empty() && pipeline.sketches.is_empty() || has_room(pipeline, wanted))
        && pipeline.topic.shape() == wanted.topic.shape()
        && pipeline.source == wanted.source
        && (
            &pipeline.format,
            pipeline.compression,
            &pipeline.time,
            &pipeline.key,
            &pipeline.dedupe,
            &pipeline.filter,
            pipeline.new_keys,
            pipeline.count,
        ) == (
            &wanted.format,
            wanted.compression,
            &wanted.time,
            &wanted.key,
            &wanted.dedupe,
            &wanted.filter,
            wanted.new_keys,
            wanted.count,
        )
        && (
            pipeline.watermark_delay,
            pipeline.allowed_lateness,
            pipeline.max_ahead,
            pipeline.idle,
        ) == (
            wanted.watermark_delay,
            wanted.allowed_lateness,
            wanted.max_ahead,
            wanted.idle,
        )
}

fn has_room(pipeline: &Pipeline, wanted: &Pipeline) -> bool {
    let fields: Vec<Option<usize>> = wanted
        .fields
        .iter()
        .map(|field| find_field(pipeline, field))
        .collect();
    pipeline.has_room_for(wanted, &fields)
}

fn find_field(pipeline: &Pipeline, wanted: &PipelineField) -> Option<usize> {
    pipeline
        .fields
        .iter()
        .position(|field| (&field.source, field.resolution) == (&wanted.source, wanted.resolution))
}

fn place_field(pipeline: &mut Pipeline, wanted: &PipelineField) -> usize {
    if let Some(index) = find_field(pipeline, wanted) {
        let field = &mut pipeline.fields[index];
        field.components = field.components | wanted.components;
        return index;
    }
    pipeline.fields.push(wanted.clone());
    pipeline.fields.len() - 1
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::plan::{Aggregate, Path, Window};

    pub(crate) fn query(name: &str, size: i64, coarsen: &[i64]) -> Query {
        Query {
            name: name.to_string(),
            window: Window::tumbling(Span::from_secs(size)),
            aggregates: alloc::vec![Aggregate::Count],
            allowed_lateness: Span::ZERO,
            max_ahead: Span::ZERO,
            idle: Span::ZERO,
            patience: Span::ZERO,
            coarsen: coarsen.iter().map(|&seconds| Span::from_secs(seconds)).collect(),
            ..Query::example()
        }
    }

    /// The ladder, in seconds, of the one pipeline of these queries, given as (size, ladder).
    fn ladder_of(queries: &[(i64, &[i64])]) -> Vec<i64> {
        let queries = queries
            .iter()
            .enumerate()
            .map(|(index, (size, coarsen))| query(&alloc::format!("q{index}"), *size, coarsen))
            .collect();
        let plan = Plan { version: 1, queries };
        assert_eq!(plan.validate(), []);
        let planned = plan.pipelines();
        assert_eq!((planned.pipelines.len(), planned.ladders.len()), (1, 1));
        planned.ladders[0]
            .iter()
            .map(|rung| rung.as_micros() / 1_000_000)
            .collect()
    }

    #[test]
    fn queries_with_different_ladders_share_a_pipeline_and_a_chain() {
        assert_eq!(ladder_of(&[(10, &[60, 600])]), [60, 600]);
        assert_eq!(ladder_of(&[(10, &[60, 600]), (20, &[40, 600, 3_600])]), [40, 600]);
        assert_eq!(
            ladder_of(&[(10, &[60, 600]), (20, &[])]),
            [0_i64; 0],
            "one forbids it"
        );
        assert_eq!(ladder_of(&[(10, &[30, 90]), (10, &[60, 180])]), [30, 60]);
    }

    #[test]
    fn sessions_share_panes_up_to_their_gap_and_keep_the_ends_of_all_fields() {
        let field = |name: &str| crate::plan::Field {
            name: name.to_string(),
            source: crate::plan::FieldSource::path(name),
            resolution: None,
            kind: crate::plan::FieldKind::Gauge,
        };
        let with_fields = |mut query: Query| {
            query.fields = alloc::vec![field("a"), field("b")];
            query
        };
        let mut session = with_fields(query("session", 10, &[60, 90]));
        session.window = Window::Session {
            gap: Span::from_secs(90),
        };
        session.coarsen = session.window.default_ladder();
        let queries = alloc::vec![with_fields(query("q", 60, &[90, 900])), session];
        let plan = Plan { version: 1, queries };
        assert_eq!(plan.validate().len(), 1, "60 s does not divide 90 s");
        let mut plan = plan;
        plan.queries[0].coarsen = alloc::vec![Span::from_secs(120)];
        assert_eq!(plan.validate(), []);
        let planned = plan.pipelines();
        assert_eq!(planned.pipelines.len(), 1);
        assert_eq!(planned.pipelines[0].pane, Span::from_secs(30));
        let kept = planned.pipelines[0].fields.iter().map(|field| field.components);
        assert!({ kept }.all(|kept| kept.contains(Components::ENDS)));
        assert_eq!(
            planned.ladders[0],
            [Span::from_secs(90)],
            "nothing may hide a pause"
        );
    }

    #[test]
    fn another_sequence_path_is_another_pipeline() {
        let (mut a, b) = (query("a", 10, &[]), query("b", 10, &[]));
        a.dedupe = Some(Dedupe::rising(Path::parse("seq")));
        let plan = Plan {
            version: 1,
            queries: alloc::vec![a, b],
        };
        assert_eq!(plan.pipelines().pipelines.len(), 2);
    }

    #[test]
    fn the_default_ladder_stays_within_the_longest_window() {
        let ladder = |size| {
            let rungs = query("q", size, &[]).window.default_ladder();
            rungs
                .iter()
                .map(|rung| rung.as_micros() / 1_000_000)
                .collect::<Vec<_>>()
        };
        assert_eq!(ladder(10), [60, 600, 3_600, 86_400]);
        assert_eq!(ladder(86_400), [518_400, 5_184_000, 31_104_000]);
        assert_eq!(ladder(366 * 86_400), [0_i64; 0]);
    }
}

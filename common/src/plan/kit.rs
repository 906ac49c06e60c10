//! Queries and pipelines for tests: sound ones, of which a test states only the fields that it is about.
//!
//! A field that is added to [`Query`] or [`Pipeline`] gets its value for all tests here.

use alloc::vec::Vec;

use super::{
    Aggregate, Components, Compression, FieldSource, Format, Pipeline, PipelineField, Query, TimeSource,
    Window,
};
use crate::time::Span;
use crate::topic::TopicTemplate;

impl Query {
    /// Counts the readings of each device, by their arrival, in windows of ten seconds; for tests.
    pub fn example() -> Self {
        Self {
            name: "example".into(),
            topic: topic(),
            format: Format::Json,
            compression: Compression::None,
            time: TimeSource::Arrival,
            tags: Vec::new(),
            key: Vec::new(),
            fields: Vec::new(),
            filter: None,
            window: Window::tumbling(Span::from_secs(10)),
            aggregates: alloc::vec![Aggregate::Count],
            watermark_delay: Span::ZERO,
            allowed_lateness: Span::from_days(1),
            max_ahead: Span::from_secs(300),
            idle: Span::from_secs(30),
            patience: Span::from_secs(10),
            lookback: None,
            retention: None,
            coarsen: Vec::new(),
            dedupe: None,
            new_keys: None,
            memory: None,
            source: None,
        }
    }
}

impl Pipeline {
    /// Panes of ten seconds over all devices, by arrival, without fields; for tests.
    pub fn example() -> Self {
        Self {
            topic: topic(),
            format: Format::Json,
            compression: Compression::None,
            time: TimeSource::Arrival,
            key: Vec::new(),
            fields: Vec::new(),
            filter: None,
            pane: Span::from_secs(10),
            count: None,
            watermark_delay: Span::ZERO,
            allowed_lateness: Span::from_days(1),
            max_ahead: Span::from_secs(300),
            idle: Span::from_secs(30),
            dedupe: None,
            new_keys: None,
            memory: None,
            watched: Vec::new(),
            sketches: Vec::new(),
            source: None,
        }
    }
}

impl PipelineField {
    /// The value at `path` with all components of statistics; for tests.
    pub fn example(path: &str) -> Self {
        Self {
            source: FieldSource::path(path),
            resolution: None,
            components: Components::STATS,
        }
    }
}

fn topic() -> TopicTemplate {
    TopicTemplate::parse("s/{device}").expect("it is a topic template")
}

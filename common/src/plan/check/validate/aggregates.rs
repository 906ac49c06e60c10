//! The rules about aggregates: what they name exists, what they are about is there, and they fit a pipeline.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Check, Part, quoted};
use crate::limits::{AGGREGATES_MAX, SERIES_MAX, SKETCHES_MAX, TOPS_MAX, WATCHED_MAX};
use crate::plan::sketch::Named;
use crate::plan::{Aggregate, PipelineSketch, Query};

impl Check<'_> {
    pub(super) fn aggregates(&mut self, query: &Query) {
        for (index, aggregate) in query.aggregates.iter().enumerate() {
            let part = Part::Aggregate(index);
            match aggregate {
                Aggregate::Distinct(name) => self.named(part, query, aggregate, name),
                Aggregate::Top { tag, .. } => self.named(part, query, aggregate, tag),
                // How many readings there are is told of every query.
                Aggregate::Count | Aggregate::Rate => {}
                _ if query.fields.is_empty() => self.fault(
                    part,
                    format!("`{aggregate}` is about fields, and the query has none"),
                    "name what is measured under `fields`",
                ),
                Aggregate::Increase => self.increase(part, query),
                _ => {}
            }
        }
        if query.aggregates.len() > AGGREGATES_MAX {
            self.fault(
                Part::Aggregate(AGGREGATES_MAX),
                format!("more than {AGGREGATES_MAX} aggregates"),
                "split the query",
            );
        }
        let (sketches, watched) = query.sketches();
        let tops = sketches
            .iter()
            .filter(|sketch| matches!(sketch, PipelineSketch::Top(_)))
            .count();
        let series = sketches
            .iter()
            .filter(|sketch| matches!(sketch, PipelineSketch::Series(_)))
            .count();
        for (what, count, most) in [
            (
                "sketches (quantiles, histograms, distinct, top) over its fields",
                sketches.len(),
                SKETCHES_MAX,
            ),
            ("`top(…)`", tops, TOPS_MAX),
            (
                "fields of which every point is kept (`increase`, `time_weighted_mean`, `rate` of counters)",
                series,
                SERIES_MAX,
            ),
            ("tags in `distinct(…)` and `top(…)`", watched.len(), WATCHED_MAX),
        ] {
            if count > most {
                self.fault(
                    Part::Query,
                    format!("the query needs {count} {what}, more than {most}"),
                    "split it into several queries",
                );
            }
        }
    }

    fn increase(&mut self, part: Part, query: &Query) {
        let gauge = query.fields.iter().find(|field| !field.kind.is_counter());
        if let Some(gauge) = gauge {
            let name = &gauge.name;
            self.fault(
                part,
                format!("`increase` is of counters, and field `{name}` is a gauge"),
                format!(
                    "if it only falls when it begins again at 0, give it `kind = \"counter\"`; if not, ask for counters \
                     in a query of their own, and of `{name}` for \"delta\""
                ),
            );
        }
    }

    fn named(&mut self, part: Part, query: &Query, aggregate: &Aggregate, name: &str) {
        let is_top = matches!(aggregate, Aggregate::Top { .. });
        let is_field = query.fields.iter().any(|field| field.name == name);
        match query.named(name) {
            Some(Named::Tag(_)) if is_field && !is_top => self.fault(
                part,
                format!("`{name}` is a tag and a field: `{aggregate}` could mean either"),
                "rename one of them",
            ),
            Some(Named::Field(_)) if is_top => self.fault(
                part,
                format!("`{aggregate}` names a field, and lists are made of tags"),
                "read it as a tag too, under `tags`; or use a histogram",
            ),
            Some(_) => {}
            None => {
                let tags = query
                    .topic
                    .captures()
                    .chain(query.tags.iter().map(|tag| tag.name.as_str()));
                let fields = query.fields.iter().map(|field| field.name.as_str());
                let known: Vec<&str> = if is_top {
                    tags.collect()
                } else {
                    tags.chain(fields).collect()
                };
                let (what, hint) = if known.is_empty() {
                    (
                        "a tag",
                        format!("capture it in the topic as `{{{name}}}` or define it under `tags`"),
                    )
                } else if is_top {
                    (
                        "a tag",
                        format!("known tags are {}; or define it under `tags`", quoted(&known)),
                    )
                } else {
                    (
                        "a tag or field",
                        format!("known are {}; or define it under `tags`", quoted(&known)),
                    )
                };
                let message: String = format!("`{aggregate}` names {what} that does not exist");
                self.fault(part, message, hint);
            }
        }
    }
}

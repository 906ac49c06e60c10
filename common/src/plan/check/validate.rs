//! The rules of a plan. Every fault is found in one pass, and says which query and which part of it is wrong, so that
//! the rim can point at the line and column.

mod aggregates;

mod spans;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::expression::Kind;
use crate::limits::{
    FIELDS_MAX, NAME_BYTES_MAX, PATH_DEPTH_MAX, PIPELINES_MAX, QUERIES_MAX, QUERY_MEMORY_MIN, SPAN_MAX,
    TAGS_MAX,
};
use crate::number::decimal::Value;
use crate::plan::pipeline::key_part;
use crate::plan::{
    Aggregate, CounterRules, Dedupe, Field, FieldSource, NewKeys, Path, Plan, Query, TimeSource,
    is_source_name,
};
use crate::topic::is_name;

/// The columns that every result table has; tags and values must not take their names.
pub(crate) const FIXED_COLUMNS: [&str; 7] = [
    "window_start",
    "window_end",
    "coarse",
    "revision",
    "status",
    "coverage",
    "readings",
];

/// The columns that windows with `count` have besides.
pub(crate) const COUNT_COLUMNS: [&str; 2] = ["agent", "window_number"];

/// One thing that is wrong with a plan, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanFault {
    /// The query's index in the plan.
    pub query: usize,
    /// The part of the query at fault.
    pub part: Part,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A part of a query, for pointing at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The query as a whole.
    Query,
    /// `name`.
    Name,
    /// `topic`.
    Topic,
    /// `time`.
    Time,
    /// The n-th of `tags`.
    Tag(usize),
    /// The n-th of `key`.
    Key(usize),
    /// The n-th of `fields`.
    Field(usize),
    /// `where`.
    Where,
    /// `window`.
    Window,
    /// The n-th of `aggregates`.
    Aggregate(usize),
    /// `watermark_delay`.
    WatermarkDelay,
    /// `allowed_lateness`.
    AllowedLateness,
    /// `max_ahead`.
    MaxAhead,
    /// `idle`.
    Idle,
    /// `patience`.
    Patience,
    /// `lookback`.
    Lookback,
    /// `retention`.
    Retention,
    /// `coarsen` as a whole, or its n-th rung.
    Coarsen(Option<usize>),
    /// `dedupe`.
    Dedupe,
    /// `new_keys`.
    NewKeys,
    /// `memory`.
    Memory,
    /// `source`.
    Source,
}

/// What is wrong, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl Plan {
    /// Checks every rule and returns all faults; an empty list means that the plan can run.
    pub fn validate(&self) -> Vec<PlanFault> {
        let mut faults = Vec::new();
        if self.queries.len() > QUERIES_MAX {
            let message = format!("the plan has more than {QUERIES_MAX} queries");
            faults.push(PlanFault {
                query: QUERIES_MAX,
                part: Part::Query,
                problem: Problem {
                    message,
                    hint: String::new(),
                },
            });
            return faults;
        }
        for (index, query) in self.queries.iter().enumerate() {
            let mut check = Check {
                query: index,
                faults: &mut faults,
            };
            if self.queries[..index].iter().any(|other| other.name == query.name) {
                let message = format!("two queries are named `{}`", query.name);
                check.fault(Part::Name, message, "each query has its own table: rename one");
            }
            check.query(query);
        }
        if faults.is_empty() && self.pipelines().pipelines.len() > PIPELINES_MAX {
            let message = format!("the plan needs more than {PIPELINES_MAX} pipelines");
            let hint = "let queries share topic, key, fields, time and watermark_delay".to_string();
            faults.push(PlanFault {
                query: 0,
                part: Part::Query,
                problem: Problem { message, hint },
            });
        }
        faults
    }
}

struct Check<'f> {
    query: usize,
    faults: &'f mut Vec<PlanFault>,
}

impl Check<'_> {
    fn fault(&mut self, part: Part, message: impl Into<String>, hint: impl Into<String>) {
        let problem = Problem {
            message: message.into(),
            hint: hint.into(),
        };
        self.faults.push(PlanFault {
            query: self.query,
            part,
            problem,
        });
    }

    fn query(&mut self, query: &Query) {
        self.name(Part::Name, "query", &query.name);
        for prefix in ["catchment_", "sqlite_"] {
            if query.name.starts_with(prefix) {
                self.fault(
                    Part::Name,
                    format!("names that start with `{prefix}` are taken by the store"),
                    "rename the query",
                );
            }
        }
        if let TimeSource::Payload { path, .. } = &query.time {
            self.path(Part::Time, path);
        }
        self.tags(query);
        self.key(query);
        self.fields(query);
        self.aggregates(query);
        self.filter(query);
        self.window(query);
        self.coarsen(query);
        if let Some(dedupe) = &query.dedupe {
            self.path(Part::Dedupe, &dedupe.path);
            if dedupe.wraps_at.is_some_and(|end| end < Dedupe::WRAPS_AT_MIN) {
                self.fault(
                    Part::Dedupe,
                    format!("`wraps_at` of `dedupe` must be at least {}", Dedupe::WRAPS_AT_MIN),
                    "give the number that is never reached, such as 65536 for 16 bits",
                );
            }
        }
        self.new_keys(query);
        if query.memory.is_some_and(|bytes| bytes < QUERY_MEMORY_MIN) {
            self.fault(
                Part::Memory,
                "`memory` must be at least 4 KiB",
                "write \"256 KiB\", or leave it out: the query then takes what it needs",
            );
        }
        self.source(query);
        self.columns(query);
        self.spans(query);
    }

    fn source(&mut self, query: &Query) {
        let name = query.source.as_deref();
        if let Some(name) = name.filter(|name| !is_source_name(name)) {
            self.fault(
                Part::Source,
                format!("`{}` is not the name of a source", name.escape_debug()),
                "write the `name` of a `[[source]]` of agents: 1 to 64 letters, digits, `_`, `-` and `.`",
            );
        }
    }

    fn new_keys(&mut self, query: &Query) {
        let Some(cap) = query.new_keys else { return };
        if query.key.is_empty() {
            self.fault(
                Part::NewKeys,
                "`new_keys` caps the keys of a query whose key is empty",
                "leave it out: there is one key only",
            );
        }
        if cap.every < NewKeys::EVERY_MIN || cap.every > SPAN_MAX {
            self.fault(
                Part::NewKeys,
                "the interval of `new_keys` must be between 1 s and 100 years",
                "write { max = 1000, every = \"1m\" }",
            );
        }
    }

    fn name(&mut self, part: Part, what: &str, name: &str) {
        if !is_name(name) {
            self.fault(
                part,
                format!("{what} name `{name}` is not a name"),
                "use lower-case letters, digits and `_`, not starting with a digit",
            );
        } else if name.len() > NAME_BYTES_MAX {
            self.fault(
                part,
                format!("{what} name `{name}` is longer than {NAME_BYTES_MAX} bytes"),
                "",
            );
        }
    }

    fn path(&mut self, part: Part, path: &Path) {
        if path.segments.iter().any(String::is_empty) {
            self.fault(
                part,
                format!("path `{path}` has an empty segment"),
                "write `outer.inner`",
            );
        }
        if path.segments.len() > PATH_DEPTH_MAX {
            self.fault(
                part,
                format!("path `{path}` is deeper than {PATH_DEPTH_MAX} levels"),
                "",
            );
        }
    }

    fn tags(&mut self, query: &Query) {
        for (index, tag) in query.tags.iter().enumerate() {
            self.name(Part::Tag(index), "tag", &tag.name);
            self.path(Part::Tag(index), &tag.path);
            if query.topic.captures().any(|capture| capture == tag.name) {
                self.fault(
                    Part::Tag(index),
                    format!("the topic already captures `{{{}}}`", tag.name),
                    "rename the tag or write `+` in the topic",
                );
            }
        }
    }

    fn key(&mut self, query: &Query) {
        if query.key.len() > TAGS_MAX {
            self.fault(
                Part::Key(TAGS_MAX),
                format!("the key has more than {TAGS_MAX} tags"),
                "",
            );
        }
        for (index, name) in query.key.iter().enumerate() {
            if query.key[..index].contains(name) {
                self.fault(
                    Part::Key(index),
                    format!("tag `{name}` stands twice in the key"),
                    "",
                );
            }
            if key_part(query, name).is_none() {
                let known: Vec<&str> = query
                    .topic
                    .captures()
                    .chain(query.tags.iter().map(|tag| tag.name.as_str()))
                    .collect();
                let hint = if known.is_empty() {
                    format!("capture it in the topic as `{{{name}}}` or define it under `tags`")
                } else {
                    format!("known tags are {}; or define it under `tags`", quoted(&known))
                };
                self.fault(
                    Part::Key(index),
                    format!("the key names tag `{name}`, which does not exist"),
                    hint,
                );
            }
        }
    }

    fn fields(&mut self, query: &Query) {
        if query.fields.len() > FIELDS_MAX {
            self.fault(
                Part::Field(FIELDS_MAX),
                format!("more than {FIELDS_MAX} fields"),
                "",
            );
        }
        if !query.fields.is_empty() && query.aggregates.is_empty() {
            self.fault(
                Part::Query,
                "`aggregates` is empty",
                "name at least one, such as \"mean\"",
            );
        }
        for (index, field) in query.fields.iter().enumerate() {
            self.name(Part::Field(index), "field", &field.name);
            for path in field.source.paths() {
                self.path(Part::Field(index), path);
            }
            if let FieldSource::Expression(expression) = &field.source
                && expression.kind() != Kind::Number
            {
                self.fault(
                    Part::Field(index),
                    format!("field `{}` is a condition and no number", field.name),
                    "write `if(condition, 1, 0)`",
                );
            }
            let same = |other: &Field| (&other.source, other.resolution) == (&field.source, field.resolution);
            if query.fields[..index].iter().any(same) {
                self.fault(
                    Part::Field(index),
                    format!("field `{}` reads the same as another", field.name),
                    "drop one",
                );
            }
            if field
                .resolution
                .is_some_and(|step| step <= 0 || step >= Value::LIMIT)
            {
                self.fault(
                    Part::Field(index),
                    format!(
                        "the resolution of `{}` must be above 0 and below 10^18",
                        field.name
                    ),
                    "give the sensor's step, such as 0.01",
                );
            }
            self.counter(index, field);
        }
    }

    fn counter(&mut self, index: usize, field: &Field) {
        let CounterRules { wraps_at, tolerance } = field.kind.rules();
        if wraps_at.is_some_and(|end| end <= 0 || end >= Value::LIMIT) {
            self.fault(
                Part::Field(index),
                format!("`wraps_at` of `{}` must be above 0 and below 10^18", field.name),
                "give the value that the counter never shows, such as 65536 for 16 bits",
            );
        } else if tolerance < 0 || tolerance >= wraps_at.map_or(Value::LIMIT, |end| end / 4) {
            self.fault(
                Part::Field(index),
                format!(
                    "the tolerance of `{}` must not be below 0, and must be below 10^18 and a quarter of `wraps_at`",
                    field.name
                ),
                "give what its readings tremble by, such as 0.1",
            );
        }
    }

    fn filter(&mut self, query: &Query) {
        let Some(filter) = &query.filter else { return };
        for path in filter.operands() {
            self.path(Part::Where, path);
        }
        if filter.kind() != Kind::Truth {
            self.fault(
                Part::Where,
                "`where` is a number and no condition",
                "compare it: `temp > 0`",
            );
        }
    }

    fn columns(&mut self, query: &Query) {
        let mut repeated = false;
        for (index, aggregate) in query.aggregates.iter().enumerate() {
            if query.aggregates[..index].contains(aggregate) {
                repeated = true;
                self.fault(
                    Part::Aggregate(index),
                    format!("aggregate `{aggregate}` stands twice"),
                    "drop one",
                );
            }
        }
        let counted: &[&str] = if query.window.count().is_some() {
            &COUNT_COLUMNS
        } else {
            &[]
        };
        let mut columns: Vec<String> = FIXED_COLUMNS
            .iter()
            .chain(counted)
            .map(ToString::to_string)
            .collect();
        for (index, name) in query.key.iter().enumerate() {
            if columns.contains(name) && !query.key[..index].contains(name) {
                self.fault(
                    Part::Key(index),
                    format!("tag `{name}` takes the name of a fixed column"),
                    "rename it",
                );
            }
            columns.push(name.clone());
        }
        if repeated {
            // Their columns collide for that reason alone.
            return;
        }
        for column in query.columns() {
            if columns.contains(&column.name) {
                let (part, hint) = match column.field {
                    Some(field) if !matches!(query.aggregates[column.aggregate], Aggregate::Histogram(_)) => {
                        (Part::Field(field), "rename the field")
                    }
                    _ => (
                        Part::Aggregate(column.aggregate),
                        "drop one, or put it into a separate query",
                    ),
                };
                self.fault(part, format!("two columns are named `{}`", column.name), hint);
            }
            columns.push(column.name);
        }
    }
}

fn quoted(names: &[&str]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push('`');
        text.push_str(name);
        text.push('`');
    }
    text
}

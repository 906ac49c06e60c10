//! The plan as people write it: TOML in, a checked [`Plan`] or errors with file, line and column out.
//!
//! Parsing keeps the place of every value, so that a rule broken deep in [`Plan::validate`] is shown where it was
//! written. All faults are reported at once, each in one line with a hint.

mod duration;
mod expression;
mod format;
mod path;
mod raw;

mod window;

use std::fmt;

use bytesize::ByteSize;
use catchment_common::limits::PLAN_BYTES_MAX;
use catchment_common::plan::{
    Aggregate, AggregateFault, Dedupe, Format, NewKeys, Part, Path, PayloadTag, Plan, PlanFault, Query,
    TimeSource, TimeUnit,
};
use catchment_common::time::Span;
use catchment_common::topic::TopicTemplate;
use catchment_common::wire::{self, Message};
use toml::Spanned;

use self::duration::{duration, of_window};
use self::path::path;
use self::raw::{RawDedupe, RawPlan, RawQuery};
use crate::catalog::Catalog;
use crate::io::config::{nearest, position, unknown_key_hint};

/// Keys of a query that had another name in version 1 of the formats, and their names now.
const OLD_NAMES: [(&str, &str); 2] = [("lateness", "watermark_delay"), ("max_late", "allowed_lateness")];
const WATERMARK_DELAY_DEFAULT: Span = Span::from_secs(5);
const ALLOWED_LATENESS_DEFAULT: Span = Span::from_days(1);
const MAX_AHEAD_DEFAULT: Span = Span::from_secs(300);
const IDLE_DEFAULT: Span = Span::from_secs(30);
const PATIENCE_DEFAULT: Span = Span::from_secs(10);

/// Everything that is wrong with a plan's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanErrors(Vec<String>);

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for PlanErrors {}

/// Reads the text of a file called `name`.
pub fn parse(text: &str, name: &str) -> Result<Plan, PlanErrors> {
    parse_within(text, name, None).map(|(plan, _)| plan)
}

/// What agents have for a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// An agent's memory for open panes, in bytes: its `limits.memory`.
    pub memory_bytes: u64,
    /// Keys that must fit.
    pub keys: u64,
}

/// Reads the text of a file called `name` for agents with this budget, if it matters; besides the plan, a line for each
/// thing that it would better do otherwise.
pub fn parse_within(
    text: &str,
    name: &str,
    budget: Option<Budget>,
) -> Result<(Plan, Vec<String>), PlanErrors> {
    let raw: RawPlan = toml::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        // Old names are read, and not advertised.
        let message = OLD_NAMES
            .iter()
            .fold(error.message().to_owned(), |message, (old, _)| {
                message.replace(&format!("`{old}`, "), "")
            });
        PlanErrors(vec![format!(
            "{name}:{line}:{column}: {message}{}",
            unknown_key_hint(&message)
        )])
    })?;
    let mut faults: Vec<(usize, String)> = Vec::new();
    let queries: Vec<Query> = raw
        .query
        .iter()
        .map(|query| convert(query, text, &mut faults))
        .collect();
    let plan = Plan { version: 0, queries };
    let placed = |fault: PlanFault| {
        let query = raw.query.get(fault.query);
        let place = query.map_or(0, |query| place_of(query, fault.part));
        (place, fault.problem.to_string())
    };
    let show = |(place, message): (usize, String)| {
        let (line, column) = position(text, place);
        format!("{name}:{line}:{column}: {message}")
    };
    if faults.is_empty() {
        faults.extend(plan.validate().into_iter().map(placed));
    }
    if faults.is_empty() {
        faults.extend(
            too_long(&plan).map(|(query, message)| (place_of(&raw.query[query], Part::Query), message)),
        );
    }
    if let Some(budget) = budget.filter(|_| faults.is_empty()) {
        faults.extend(plan.over_budget(budget.memory_bytes, budget.keys).map(placed));
    }
    if faults.is_empty() {
        let old_names = raw.query.iter().flat_map(|query| old_names(query, text));
        let mut warnings: Faults = plan.warnings().into_iter().map(placed).chain(old_names).collect();
        warnings.sort();
        let warnings = warnings.into_iter().map(show).collect();
        return Ok((plan, warnings));
    }
    faults.sort();
    Err(PlanErrors(faults.into_iter().map(show).collect()))
}

type Faults = Vec<(usize, String)>;

/// A plan that is too long to be sent to agents or stored: the query that takes most of it, and what is wrong.
fn too_long(plan: &Plan) -> Option<(usize, String)> {
    let sent = Message::Plan(Catalog::first(plan.clone()).agent_plan())
        .emit()
        .len();
    let bytes = sent.max(wire::emit_plan(plan).len());
    if bytes <= PLAN_BYTES_MAX {
        return None;
    }
    let alone = |query: &Query| {
        let queries = vec![query.clone()];
        wire::emit_plan(&Plan { version: 0, queries }).len()
    };
    let sizes = plan.queries.iter().map(alone).enumerate();
    let (longest, own) = sizes.max_by_key(|&(_, bytes)| bytes)?;
    let message = format!(
        "the plan takes {bytes} bytes where it is sent and stored, and {PLAN_BYTES_MAX} are the most; this query has the \
         largest part, {own} bytes: use shorter names and conditions, or fewer queries"
    );
    Some((longest, message))
}

/// A warning for each key of a query that stands under its old name.
fn old_names(raw: &RawQuery, file: &str) -> Faults {
    let values = [&raw.watermark_delay, &raw.allowed_lateness];
    let old = values
        .into_iter()
        .zip(OLD_NAMES)
        .filter_map(|(value, (old, new))| {
            let before = file.get(..value.as_ref()?.span().start)?;
            let key = before.trim_end().strip_suffix('=')?.trim_end();
            let name = key.rsplit(|c: char| c != '_' && !c.is_alphanumeric()).next()?;
            let message = format!(
                "`{old}` is called `{new}` now; the old name is read by this version and not by the next"
            );
            (name == old).then(|| (key.len() - old.len(), message))
        });
    old.collect()
}

fn convert(raw: &RawQuery, file: &str, faults: &mut Faults) -> Query {
    let topic = TopicTemplate::parse(raw.topic.get_ref()).unwrap_or_else(|fault| {
        faults.push((raw.topic.span().start, fault.to_string()));
        TopicTemplate::parse("#").expect("the widest template is one")
    });
    let span = |text: &Option<Spanned<String>>, default, faults: &mut Faults| {
        text.as_ref().map_or(default, |text| duration(text, faults))
    };
    let window = window::convert(&raw.window, faults);
    let coarsen = match &raw.coarsen {
        Some(rungs) => rungs
            .get_ref()
            .iter()
            .map(|rung| of_window(rung, faults))
            .collect(),
        // A step of zero is a fault of its own, and has no pane.
        None if window.longest() <= Span::ZERO || window.step() <= Span::ZERO => Vec::new(),
        None => window.default_ladder(),
    };
    let captures: Vec<String> = topic.captures().map(String::from).collect();
    let format = format::format(raw.format.as_ref(), faults);
    let fields = expression::fields(raw, &captures, (&format, file), faults);
    let filter = expression::filter(raw, &captures, &fields, file, faults);
    Query {
        name: raw.name.get_ref().clone(),
        topic,
        compression: format::compression(raw.compression.as_ref(), faults),
        time: time(raw, &format, faults),
        tags: raw
            .tags
            .0
            .iter()
            .map(|(name, text)| PayloadTag {
                name: name.clone(),
                path: path(text, &format, faults),
            })
            .collect(),
        key: raw
            .key
            .get_ref()
            .iter()
            .map(|tag| tag.get_ref().clone())
            .collect(),
        fields,
        filter,
        window,
        aggregates: raw
            .aggregates
            .iter()
            .filter_map(|text| aggregate(text, faults))
            .collect(),
        watermark_delay: span(&raw.watermark_delay, WATERMARK_DELAY_DEFAULT, faults),
        allowed_lateness: span(&raw.allowed_lateness, ALLOWED_LATENESS_DEFAULT, faults),
        max_ahead: span(&raw.max_ahead, MAX_AHEAD_DEFAULT, faults),
        idle: span(&raw.idle, IDLE_DEFAULT, faults),
        patience: span(&raw.patience, PATIENCE_DEFAULT, faults),
        lookback: raw.lookback.as_ref().map(|text| duration(text, faults)),
        retention: raw.retention.as_ref().map(|text| duration(text, faults)),
        coarsen,
        dedupe: raw.dedupe.as_ref().map(|raw| dedupe(raw, &format, faults)),
        new_keys: raw.new_keys.as_ref().map(|cap| NewKeys {
            max: cap.get_ref().max,
            every: duration(&cap.get_ref().every, faults),
        }),
        memory: raw.memory.as_ref().and_then(|text| size(text, faults)),
        source: raw.source.as_ref().map(|name| name.get_ref().clone()),
        format,
    }
}

/// A size in bytes.
fn size(text: &Spanned<String>, faults: &mut Faults) -> Option<u64> {
    let size = text.get_ref().parse::<ByteSize>();
    if size.is_err() {
        let message = format!(
            "`{}` is not a size; write \"256 KiB\" or \"2 MiB\"",
            text.get_ref()
        );
        faults.push((text.span().start, message));
    }
    size.ok().map(|size| size.as_u64())
}

fn dedupe(raw: &Spanned<RawDedupe>, format: &Format, faults: &mut Faults) -> Dedupe {
    let RawDedupe {
        path,
        wraps_at,
        restart,
    } = raw.get_ref();
    path::check(path, raw.span().start, format, faults);
    Dedupe {
        path: Path::parse(path),
        wraps_at: *wraps_at,
        restart: *restart,
    }
}

fn time(raw: &RawQuery, format: &Format, faults: &mut Faults) -> TimeSource {
    let Some(time) = &raw.time else {
        return TimeSource::Arrival;
    };
    let time = time.get_ref();
    let unit = match time.unit.get_ref().as_str() {
        "s" => TimeUnit::Seconds,
        "ms" => TimeUnit::Millis,
        "us" => TimeUnit::Micros,
        "ns" => TimeUnit::Nanos,
        "rfc3339" => TimeUnit::Rfc3339,
        other => {
            faults.push((
                time.unit.span().start,
                format!("time unit `{other}` is none of s, ms, us, ns, rfc3339"),
            ));
            TimeUnit::Millis
        }
    };
    let fallback = time.fallback.as_ref().is_some_and(|fallback| {
        if fallback.get_ref() != "arrival" {
            let message = format!(
                "fallback `{}` is not known; write \"arrival\", or leave it out to refuse such readings",
                fallback.get_ref()
            );
            faults.push((fallback.span().start, message));
        }
        true
    });
    TimeSource::Payload {
        path: path(&time.path, format, faults),
        unit,
        fallback,
    }
}

fn aggregate(text: &Spanned<String>, faults: &mut Faults) -> Option<Aggregate> {
    let message = match Aggregate::parse(text.get_ref()) {
        Ok(aggregate) => return Some(aggregate),
        Err(AggregateFault::Arguments(problem)) => problem.to_string(),
        Err(AggregateFault::Unknown(name)) => {
            let hint = nearest(&name, Aggregate::words()).map_or_else(
                || {
                    let known: Vec<&str> = Aggregate::forms().collect();
                    format!("known are {}", known.join(", "))
                },
                |near| format!("did you mean `{near}`?"),
            );
            format!("there is no aggregate `{name}`; {hint}")
        }
    };
    faults.push((text.span().start, message));
    None
}

/// Where a part of a query was written; the query's name if the part was left out.
fn place_of(query: &RawQuery, part: Part) -> usize {
    let start = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.span().start);
    let place = match part {
        Part::Query | Part::Name => None,
        Part::Topic => Some(query.topic.span().start),
        Part::Time => query.time.as_ref().map(|time| time.span().start),
        Part::Tag(index) => query.tags.0.get(index).map(|(_, path)| path.span().start),
        Part::Key(index) => query.key.get_ref().get(index).map(|tag| tag.span().start),
        Part::Field(index) => query.fields.0.get(index).map(|(_, field)| field.span().start),
        Part::Where => start(&query.filter),
        Part::Window => Some(query.window.span().start),
        Part::Aggregate(index) => query.aggregates.get(index).map(|name| name.span().start),
        Part::WatermarkDelay => start(&query.watermark_delay),
        Part::AllowedLateness => start(&query.allowed_lateness),
        Part::MaxAhead => start(&query.max_ahead),
        Part::Idle => start(&query.idle),
        Part::Patience => start(&query.patience),
        Part::Lookback => start(&query.lookback),
        Part::Retention => start(&query.retention),
        Part::Coarsen(rung) => query.coarsen.as_ref().map(|rungs| {
            let place = rung.and_then(|index| rungs.get_ref().get(index));
            place.map_or(rungs.span().start, |rung| rung.span().start)
        }),
        Part::Dedupe => query.dedupe.as_ref().map(|dedupe| dedupe.span().start),
        Part::NewKeys => query.new_keys.as_ref().map(|cap| cap.span().start),
        Part::Memory => query.memory.as_ref().map(|size| size.span().start),
        Part::Source => start(&query.source),
    };
    place.unwrap_or_else(|| query.name.span().start)
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::{Period, Window};

    use super::*;

    const GOOD: &str = r#"[[query]]
name = "room_climate"
topic = "sensors/{site}/{device}/env"
format = "json"
time = { path = "ts", unit = "ms" }
key = ["site", "device"]
fields = { temp = "temp", hum = { path = "data.hum", resolution = 0.01 } }
window = { size = "60s", every = "10s" }
aggregates = ["count", "mean", "min", "max", "stddev"]
watermark_delay = "30s"
patience = "10s"
retention = "30d"
"#;

    /// Its wire form is above a mebibyte: agents could not keep it, and above four could not connect.
    #[test]
    fn a_plan_that_is_too_long_to_be_sent_is_refused() {
        let plan = |queries: usize, bytes: usize| -> String {
            let query = |number: usize| {
                let paths = (0..32).map(|field| format!("f{field} = \"{}{field}\"", "p".repeat(bytes)));
                let fields = paths.collect::<Vec<_>>().join(", ");
                format!(
                    "[[query]]\nname = \"q{number}\"\ntopic = \"s{number}/{{device}}\"\nkey = [\"device\"]\n\
                     fields = {{ {fields} }}\nwindow = {{ size = \"60s\" }}\naggregates = [\"count\"]\n"
                )
            };
            (0..queries).map(query).collect()
        };
        let error = parse(&plan(60, 1_000), "plan.toml").unwrap_err().to_string();
        assert!(error.contains(":8: the plan takes "), "{error}");
        assert!(error.contains("1048576 are the most"), "{error}");
        assert!(parse(&plan(30, 1_000), "plan.toml").is_ok());
    }

    #[test]
    fn the_plan_of_the_design_is_read() {
        let plan = parse(GOOD, "plan.toml").unwrap();
        let query = &plan.queries[0];
        assert_eq!(query.name, "room_climate");
        assert_eq!(query.fields[1].resolution, Some(10_i128.pow(16)));
        assert_eq!(query.window.pane(), Span::from_secs(10));
        assert_eq!(query.watermark_delay, Span::from_secs(30));
        assert_eq!(query.retention, Some(Span::from_days(30)));
        let columns: Vec<String> = query.value_columns().collect();
        assert_eq!(columns[..3], ["temp_count", "temp_mean", "temp_min"]);
        assert_eq!(query.coarsen, query.window.default_ladder());
        assert_eq!(query.dedupe, None);
        assert_eq!(plan.pipelines().pipelines.len(), 1);
    }

    #[test]
    fn a_ladder_and_a_sequence_are_read() {
        let text = format!("{GOOD}coarsen = [\"1m\", \"10m\"]\ndedupe = \"meta.seq\"\n");
        let query = &parse(&text, "plan.toml").unwrap().queries[0];
        assert_eq!(query.coarsen, [Span::from_secs(60), Span::from_secs(600)]);
        assert_eq!(query.dedupe, Some(Dedupe::rising(Path::parse("meta.seq"))));
        let text = format!("{GOOD}dedupe = {{ path = \"fCnt\", wraps_at = 65536, restart = true }}\n");
        let dedupe = Dedupe {
            path: Path::parse("fCnt"),
            wraps_at: Some(65_536),
            restart: true,
        };
        assert_eq!(parse(&text, "p").unwrap().queries[0].dedupe, Some(dedupe));
        let text = format!("{GOOD}lookback = \"2h\"\n");
        let lookback = parse(&text, "p").unwrap().queries[0].lookback;
        assert_eq!(lookback, Some(Span::from_secs(7_200)));
        let text = format!("{GOOD}coarsen = []\n");
        assert!(parse(&text, "plan.toml").unwrap().queries[0].coarsen.is_empty());
    }

    #[test]
    fn what_cannot_look_back_so_far_is_refused() {
        let fault = |text: &str| parse(text, "p").unwrap_err().to_string();
        assert_eq!(
            fault(&format!("{GOOD}lookback = \"99950s\"\n")),
            "p:13:12: `lookback` and a window together take more than 10000 panes; look back for less, or use wider windows"
        );
        let session = GOOD.replace("{ size = \"60s\", every = \"10s\" }", "{ session = \"60s\" }");
        assert_eq!(
            fault(&format!("{session}lookback = \"60s\"\n")),
            "p:13:12: sessions and windows with `count` do not go on from the window before; leave `lookback` out"
        );
    }

    #[test]
    fn each_fault_of_a_ladder_has_its_place() {
        let faults = |line: &str| parse(&format!("{GOOD}{line}\n"), "p").unwrap_err().to_string();
        assert_eq!(
            faults("coarsen = [\"1m\", \"90s\"]"),
            "p:13:18: a coarser pane must be a multiple of the one before; write ascending widths such as \
             [\"1m\", \"10m\", \"1h\"]"
        );
        assert!(faults("coarsen = [\"15s\"]").starts_with(
            "p:13:12: a coarser pane must be a multiple of the windows' pane, the greatest common divisor"
        ));
        assert_eq!(
            faults("coarsen = [\"10000h\"]"),
            "p:13:12: a coarser pane is longer than 366 days"
        );
        assert_eq!(
            faults("coarsen = [\"soon\"]"),
            "p:13:12: `soon` is not a duration: expected number at 0; write 10s, 5m or 1h"
        );
        assert_eq!(
            faults("dedupe = { path = \"seq\", wraps_at = 100 }"),
            "p:13:10: `wraps_at` of `dedupe` must be at least 256; give the number that is never reached, such as 65536 for \
             16 bits"
        );
        assert_eq!(
            faults("dedupe = \"a..b\""),
            "p:13:10: path `a..b` has an empty segment; write `outer.inner`"
        );
    }

    #[test]
    fn a_cap_on_new_keys_is_read_and_each_fault_has_its_place() {
        let read = |line: &str| parse(&format!("{GOOD}{line}\n"), "p");
        let plan = read("new_keys = { max = 1000, every = \"1m\" }").unwrap();
        let every = Span::from_secs(60);
        assert_eq!(plan.queries[0].new_keys, Some(NewKeys { max: 1_000, every }));
        let faults = |line: &str| read(line).unwrap_err().to_string();
        assert_eq!(
            faults("new_keys = { max = 1, every = \"10ms\" }"),
            "p:13:12: the interval of `new_keys` must be between 1 s and 100 years; write { max = 1000, every = \"1m\" }"
        );
        assert!(faults("new_keys = { max = -1, every = \"1m\" }").starts_with("p:13:20: "));
        assert!(faults("new_keys = { max = 1 }").contains("missing field `every`"));
        let keyless =
            GOOD.replace("[\"site\", \"device\"]", "[]") + "new_keys = { max = 1, every = \"1m\" }\n";
        assert_eq!(
            parse(&keyless, "p").unwrap_err().to_string(),
            "p:13:12: `new_keys` caps the keys of a query whose key is empty; leave it out: there is one key only"
        );
    }

    #[test]
    fn a_budget_of_memory_is_read_and_each_fault_has_its_place() {
        let read = |line: &str| parse(&format!("{GOOD}{line}\n"), "p");
        let plan = read("memory = \"256 KiB\"").unwrap();
        assert_eq!(plan.queries[0].memory, Some(256 << 10));
        let faults = |line: &str| read(line).unwrap_err().to_string();
        assert_eq!(
            faults("memory = \"1 KiB\""),
            "p:13:10: `memory` must be at least 4 KiB; write \"256 KiB\", or leave it out: the query then takes what it needs"
        );
        assert_eq!(
            faults("memory = \"much\""),
            "p:13:10: `much` is not a size; write \"256 KiB\" or \"2 MiB\""
        );
        assert_eq!(
            faults("memory = 65536"),
            "p:13:10: invalid type: integer `65536`, expected a string"
        );
    }

    #[test]
    fn a_source_is_read_and_its_faults_have_their_place() {
        let read = |line: &str| parse(&format!("{GOOD}{line}\n"), "p");
        let plan = read("source = \"line-1\"").unwrap();
        assert_eq!(plan.queries[0].source.as_deref(), Some("line-1"));
        assert_eq!(parse(GOOD, "p").unwrap().queries[0].source, None);
        assert_eq!(
            read("source = \"line 1\"").unwrap_err().to_string(),
            "p:13:10: `line 1` is not the name of a source; write the `name` of a `[[source]]` of agents: 1 to 64 letters, \
            digits, `_`, `-` and `.`"
        );
    }

    /// With 3.1.1 nobody can tell a copy for the group from one for the agent alone.
    #[test]
    fn a_shared_topic_that_overlaps_another_is_warned_of() {
        let two = |first: &str, second: &str| {
            let query = |name: &str, lines: &str| {
                let moved = format!("name = \"{name}\"\n{lines}");
                GOOD.replacen(
                    "name = \"room_climate\"\ntopic = \"sensors/{site}/{device}/env\"",
                    &moved,
                    1,
                )
            };
            let text = query("a", first) + &query("b", second);
            parse_within(&text, "p", None).unwrap().1
        };
        let shared = "topic = \"$share/g/sensors/{site}/{device}/env\"";
        let plain = "topic = \"sensors/{site}/{device}/+\"";
        assert_eq!(
            two(shared, plain),
            [
                "p:3:9: agents that speak MQTT 3.1.1 (`protocol = 4`) cannot tell which messages come through \
              `$share/g/sensors/+/+/env` and which through `sensors/+/+/+`, and count some of them twice; let such agents \
              speak MQTT 5, or give the two queries topics without a message in common"
            ]
        );
        assert!(two(shared, &plain.replace("/+\"", "/state\"")).is_empty());
        assert!(two(shared, shared).is_empty(), "one subscription");
        let of = |topic: &str, source: &str| format!("{topic}\nsource = \"{source}\"");
        assert!(two(&of(shared, "a"), &of(plain, "b")).is_empty());
        assert_eq!(two(&of(shared, "a"), plain).len(), 1);
    }

    fn check(from: &str, to: &str, expected: &str) {
        assert!(GOOD.contains(from), "{from}");
        let errors = parse(&GOOD.replacen(from, to, 1), "plan.toml").unwrap_err();
        assert_eq!(errors.to_string(), expected);
    }

    #[test]
    fn each_fault_has_its_place_and_a_hint() {
        check(
            "watermark_delay =",
            "watermark_dely =",
            "plan.toml:10:1: unknown field `watermark_dely`, expected one of `name`, `topic`, \
            `format`, `compression`, `time`, `tags`, `key`, `fields`, `where`, `window`, `aggregates`, `watermark_delay`, `allowed_lateness`, `max_ahead`, \
             `idle`, `patience`, `lookback`, `retention`, `coarsen`, `dedupe`, `new_keys`, `memory`, `source`; did you mean `watermark_delay`?",
        );
        check(
            "\"site\", \"device\"",
            "\"site\", \"devise\"",
            "plan.toml:6:16: the key names tag `devise`, which does \
            not exist; known tags are `site`, `device`; or define it under `tags`",
        );
        check(
            "\"mean\"",
            "\"men\"",
            "plan.toml:9:24: there is no aggregate `men`; did you mean `mean`?",
        );
        check(
            "\"mean\"",
            "\"count\"",
            "plan.toml:9:24: aggregate `count` stands twice; drop one",
        );
        check(
            "size = \"60s\", every = \"10s\"",
            "count = 0",
            "plan.toml:8:20: a window has 1 to 1000000 readings, not 0; write window = { count = 100 }, or cut by time with \
             `size`",
        );
        check(
            "\"60s\"",
            "\"sixty\"",
            "plan.toml:8:19: `sixty` is not a duration: expected number at 0; write 10s, 5m or 1h",
        );
        check(
            "\"10s\"",
            "\"90s\"",
            "plan.toml:8:10: `every` is longer than `size`: readings between windows would be \
            counted in none; make `every` at most `size`",
        );
        check(
            "\"60s\"",
            "\"0s\"",
            "plan.toml:8:10: a window's size and step must be at least 1 ms",
        );
        check(
            "{device}",
            "{device",
            "plan.toml:3:9: level `{device` mixes a wildcard or capture with text; it must \
            stand alone between slashes",
        );
        check(
            "room_climate",
            "room climate",
            "plan.toml:2:8: query name `room climate` is not a name; use lower-case \
            letters, digits and `_`, not starting with a digit",
        );
        check(
            "room_climate",
            "catchment_x",
            "plan.toml:2:8: names that start with `catchment_` are taken by the \
            store; rename the query",
        );
        check(
            "0.01",
            "-1",
            "plan.toml:7:33: the resolution of `hum` must be above 0 and below 10^18; give the \
            sensor's step, such as 0.01",
        );
        check(
            "resolution = 0.01",
            "kind = \"count\"",
            "plan.toml:7:61: kind `count` is not known; write \"gauge\" or \"counter\"",
        );
        check(
            "\"mean\", ",
            "\"increase\", ",
            "plan.toml:9:24: `increase` is of counters, and field `temp` is a gauge; if it only falls when it begins \
             again at 0, give it `kind = \"counter\"`; if not, ask for counters in a query of their own, and of `temp` \
             for \"delta\"",
        );
        check(
            "\"30d\"",
            "\"10s\"",
            "plan.toml:12:13: `retention` is shorter than one window; keep at least one \
            window, or leave it out to keep all",
        );
        check(
            "\"ms\"",
            "\"min\"",
            "plan.toml:5:30: time unit `min` is none of s, ms, us, ns, rfc3339",
        );
        check(
            "topic = \"sensors/{site}/{device}/env\"\n",
            "",
            "plan.toml:1:1: missing field `topic`",
        );
    }

    #[test]
    fn an_offset_shifts_the_windows_and_must_be_less_than_a_step() {
        let with = |offset: &str| {
            let text = GOOD.replace(
                "every = \"10s\"",
                &format!("every = \"10s\", offset = \"{offset}\""),
            );
            parse(&text, "plan.toml")
        };
        let window = with("2s").unwrap().queries[0].window.clone();
        assert_eq!(window.pane(), Span::from_secs(2));
        assert_eq!(
            with("10s").unwrap_err().to_string(),
            "plan.toml:8:10: `offset` must be less than the step: windows start at every multiple of `every`, shifted \
             by it; take off whole steps, which change nothing"
        );
        assert_eq!(
            with("1us").unwrap_err().to_string(),
            "plan.toml:8:10: a window's size, step and offset must be whole milliseconds\nplan.toml:8:10: one window \
             would be made of 60000000 panes, more than 10000; choose `every` and `offset` so that they divide `size` \
             into fewer steps"
        );
    }

    #[test]
    fn a_session_has_a_gap_and_nothing_else() {
        let with = |window: &str, more: &str| {
            let text = GOOD.replace("size = \"60s\", every = \"10s\"", window);
            parse(&format!("{text}{more}\n"), "p")
        };
        let fault = |window: &str, more: &str| with(window, more).unwrap_err().to_string();
        let gap = Span::from_secs(300);
        let query = with("session = \"5m\"", "").unwrap().queries.remove(0);
        assert_eq!(
            (query.window, query.coarsen),
            (Window::Session { gap }, vec![gap])
        );
        assert_eq!(
            fault("session = \"5m\", every = \"10s\"", ""),
            "p:8:36: a session has no `every`: it lasts from one pause to the next; drop it"
        );
        assert_eq!(
            fault("session = \"0s\"", ""),
            "p:8:10: a session's gap must be at least 1 ms, in whole milliseconds"
        );
        assert_eq!(
            fault("session = \"5m\"", "coarsen = [\"1m\", \"10m\"]"),
            "p:13:18: a coarser pane that is longer than the session's gap would hide pauses; coarsen up to the gap, or \
             to nothing: []"
        );
        let without_fields = GOOD
            .replace("fields =", "tags =")
            .replace(", resolution = 0.01", "")
            .replace(", \"mean\", \"min\", \"max\", \"stddev\"", "");
        let text = without_fields.replace("size = \"60s\", every = \"10s\"", "session = \"5m\"");
        let text = text.replace("{ path = \"data.hum\" }", "\"data.hum\"");
        assert_eq!(
            parse(&text, "p").unwrap_err().to_string(),
            "p:8:10: a session needs at least one field: the times of its values tell where sessions begin and end; \
             name one under `fields`; `seen = { expr = \"1\" }` will do"
        );
        let zero = with("size = \"60s\", every = \"0s\"", "coarsen = []").unwrap_err();
        assert_eq!(
            zero.to_string(),
            "p:8:10: a window's size and step must be at least 1 ms"
        );
    }

    #[test]
    fn a_count_stands_alone_and_has_bounds() {
        let with = |window: &str, more: &str| {
            let text = GOOD.replace("size = \"60s\", every = \"10s\"", window);
            parse(&format!("{text}{more}\n"), "p")
        };
        let fault = |window: &str, more: &str| with(window, more).unwrap_err().to_string();
        let query = with("count = 100", "").unwrap().queries.remove(0);
        assert_eq!(
            (query.window.clone(), query.coarsen.clone()),
            (Window::Count { readings: 100 }, Vec::new())
        );
        assert_eq!(query.row_tags(), ["site", "device", "agent"]);
        for (count, text) in [
            ("-7", "-7"),
            ("1_000_001", "1000001"),
            ("99999999999", "99999999999"),
        ] {
            assert_eq!(
                fault(&format!("count = {count}"), ""),
                format!(
                    "p:8:20: a window has 1 to 1000000 readings, not {text}; write window = {{ count = 100 }}, or cut by time \
                     with `size`"
                )
            );
        }
        assert!(with("count = 1", "").is_ok() && with("count = 1000000", "").is_ok());
        for (other, at) in [
            ("size = \"10s\"", "size"),
            ("every = \"10s\"", "every"),
            ("offset = \"1s\"", "offset"),
            ("session = \"10s\"", "session"),
            ("timezone = \"UTC\"", "timezone"),
        ] {
            assert_eq!(
                fault(&format!("count = 5, {other}"), ""),
                format!(
                    "p:8:{}: a window with `count` has no `{at}`: it ends when it has so many readings; drop it",
                    26 + at.len()
                )
            );
        }
        assert_eq!(
            fault("count = 5", "coarsen = [\"1m\"]"),
            "p:13:11: windows with `count` cannot be coarsened: two of them in one would be no window; leave it out"
        );
        let text = GOOD
            .replace("size = \"60s\", every = \"10s\"", "count = 5")
            .replace("{device}", "{agent}")
            .replace("\"device\"", "\"agent\"");
        assert!(
            parse(&text, "p")
                .unwrap_err()
                .to_string()
                .contains("tag `agent` takes the name of a fixed column"),
        );
        let fields = GOOD.split_once("fields = ").unwrap().1.lines().next().unwrap();
        let text = GOOD
            .replace(&format!("fields = {fields}"), "fields = {}")
            .replace("size = \"60s\", every = \"10s\"", "count = 5");
        assert!(
            parse(&text, "p").unwrap_err().to_string().contains(
                "p:8:10: a window with `count` needs at least one field: the times of its values are its start and end"
            ),
        );
    }

    #[test]
    fn a_calendar_has_a_zone_that_exists_and_a_period() {
        let with = |window: &str| {
            let text = GOOD.replace("size = \"60s\", every = \"10s\"", window);
            parse(&text, "p").map(|mut plan| plan.queries.remove(0).window)
        };
        let fault = |window: &str| with(window).unwrap_err().to_string();
        assert_eq!(
            with("size = \"1w\", timezone = \"asia/kolkata\"").unwrap(),
            Window::Calendar {
                period: Period::Week,
                zone: "Asia/Kolkata".into(),
                pane: Span::from_secs(1_800),
            }
        );
        assert_eq!(
            fault("size = \"1d\", timezone = \"Europe/Berln\""),
            "p:8:36: there is no time zone `Europe/Berln`; did you mean `Europe/Berlin`?"
        );
        assert_eq!(
            fault("size = \"12h\", timezone = \"UTC\", every = \"1h\""),
            "p:8:19: `12h` is no period of a calendar; with a time zone write 1d, 1w (from Monday) or 1mo\np:8:52: \
             windows in a time zone have no `every`: they are days, weeks or months; drop it"
        );
        assert_eq!(
            fault("session = \"5m\", timezone = \"UTC\""),
            "p:8:39: a session has no `timezone`: it lasts from one pause to the next; drop it"
        );
    }

    #[test]
    fn old_names_are_read_with_a_warning() {
        let old = GOOD.replace("watermark_delay =", "lateness =");
        let (plan, warnings) = parse_within(&old, "plan.toml", None).unwrap();
        assert_eq!(plan, parse(GOOD, "plan.toml").unwrap());
        assert_eq!(
            warnings,
            [
                "plan.toml:10:1: `lateness` is called `watermark_delay` now; the old name is read by this version and not \
                by the next"
            ]
        );
        let both = GOOD.replace("watermark_delay =", "lateness = \"1s\"\nwatermark_delay =");
        let fault = parse(&both, "plan.toml").unwrap_err().to_string();
        assert!(fault.contains("duplicate"), "{fault}");
    }

    #[test]
    fn a_plan_that_agents_have_no_room_for_is_refused_where_it_says_so() {
        let budget = Budget {
            memory_bytes: 65_536,
            keys: 1,
        };
        let within = |text: &str| {
            parse_within(text, "p", Some(budget))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(within(GOOD), Ok(()));
        let fault =
            within(&GOOD.replace("watermark_delay = \"30s\"", "watermark_delay = \"1d\"")).unwrap_err();
        assert!(
            fault.starts_with("p:10:19: an agent has 65536 bytes for open panes: 0 keys of ")
                && fault.contains("8641 panes of 10s open at once"),
            "{fault}"
        );
    }

    #[test]
    fn panes_narrower_than_the_windows_are_warned_of_where_they_are_written() {
        let (_, warnings) = parse_within(&GOOD.replace("\"10s\" }", "\"7s\" }"), "plan.toml", None).unwrap();
        assert_eq!(
            warnings,
            [
                "plan.toml:8:10: windows are made of panes of 1s: 3600 deltas an hour for each key, more than the 514 \
              windows; an `every` of 7500ms would divide `size`"
            ]
        );
    }

    #[test]
    fn each_fault_of_an_aggregate_has_its_place_and_a_hint() {
        check(
            "\"mean\"",
            "\"p101\"",
            "plan.toml:9:24: `p101` is no percentile; write p0 to p100 with at most four decimals, such as \"p99.9\"",
        );
        check(
            "\"mean\"",
            "\"distint(device)\"",
            "plan.toml:9:24: there is no aggregate `distint`; did you mean `distinct`?",
        );
        check(
            "\"mean\"",
            "\"distinct(devise)\"",
            "plan.toml:9:24: `distinct(devise)` names a tag or field that does not exist; known are `site`, `device`, \
            `temp`, `hum`; or define it under `tags`",
        );
        check(
            "\"mean\"",
            "\"top(3, temp)\"",
            "plan.toml:9:24: `top(3, temp)` names a field, and lists are made of tags; read it as a tag too, under \
            `tags`; or use a histogram",
        );
        check(
            "\"mean\"",
            "\"top(0, device)\"",
            "plan.toml:9:24: `0` is no number of rows from 1 to 100; write \"top(3, device)\"",
        );
        check(
            "\"mean\"",
            "\"top(device)\"",
            "plan.toml:9:24: `top(device)` does not give a number and one tag; write \"top(3, device)\"",
        );
        check(
            "\"mean\"",
            "\"histogram(0, 10, 10)\"",
            "plan.toml:9:24: bound `10` is not above the one before; write ascending bounds, such as \
            \"histogram(0, 10, 20)\"",
        );
        check(
            "\"mean\"",
            "\"histogram(0, ten)\"",
            "plan.toml:9:24: bound `ten` is not a decimal number in range; write ascending bounds, such as \
            \"histogram(0, 10, 20)\"",
        );
        check(
            "\"mean\"",
            "\"median(temp)\"",
            "plan.toml:9:24: `median` takes no arguments; write \"median\"",
        );
        check(
            "\"mean\"",
            "\"histogram(0), histogram(1)\"",
            "plan.toml:9:24: bound `0)` is not a decimal number in range; write ascending bounds, such as \
            \"histogram(0, 10, 20)\"",
        );
        check(
            "\"mean\", \"min\"",
            "\"histogram(0)\", \"histogram(1)\"",
            "plan.toml:9:40: two columns are named `hum_histogram`; drop one, or put it into a separate query\n\
            plan.toml:9:40: two columns are named `temp_histogram`; drop one, or put it into a separate query",
        );
        check(
            "fields = { temp = \"temp\", hum = { path = \"data.hum\", resolution = 0.01 } }\n",
            "",
            "plan.toml:8:24: `mean` is about fields, and the query has none; name what is measured under `fields`\n\
            plan.toml:8:32: `min` is about fields, and the query has none; name what is measured under `fields`\n\
            plan.toml:8:39: `max` is about fields, and the query has none; name what is measured under `fields`\n\
            plan.toml:8:46: `stddev` is about fields, and the query has none; name what is measured under `fields`",
        );
    }

    #[test]
    fn duplicate_names_and_several_faults_are_all_reported() {
        let twice = format!("{GOOD}\n{GOOD}");
        let errors = parse(&twice, "p").unwrap_err().to_string();
        assert_eq!(
            errors,
            "p:15:8: two queries are named `room_climate`; each query has its own table: rename one"
        );
        let broken = GOOD.replace("\"mean\"", "\"men\"").replace("\"ms\"", "\"min\"");
        assert_eq!(parse(&broken, "p").unwrap_err().to_string().lines().count(), 2);
    }
}

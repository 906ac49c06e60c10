//! Expressions in a plan: what their names stand for, and where in the file a fault in the middle of one is.

use std::fmt::Write as _;
use std::ops::Range;

use catchment_common::expression::{Expression, ExpressionFault, Hint, Kind, Scope, is_expression};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{CounterRules, Field, FieldKind, FieldSource, Format, KeyPart, Path};

use super::raw::{RawField, RawQuery, RawSource};
use super::{Faults, path};
use crate::io::config::nearest;
use toml::Spanned;

/// The tags of a query that expressions can compare: what the topic captures, and `tags`.
fn tags<'q>(raw: &'q RawQuery, captures: &'q [String]) -> Vec<(&'q str, KeyPart)> {
    let captured = captures.iter().enumerate();
    let captured = captured.map(|(index, name)| (name.as_str(), KeyPart::Capture(index as u8)));
    let paid = raw.tags.0.iter();
    captured
        .chain(paid.map(|(name, path)| (name.as_str(), KeyPart::Payload(Path::parse(path.get_ref())))))
        .collect()
}

/// The fields of a query. Fields with a path may be named in every expression, computed ones in those below them.
pub(super) fn fields(
    raw: &RawQuery,
    captures: &[String],
    (format, file): (&Format, &str),
    faults: &mut Faults,
) -> Vec<Field> {
    let tags = tags(raw, captures);
    let is_computed = |field: &RawField| match &field.source {
        RawSource::Path(_) => false,
        RawSource::Expression(..) => true,
        RawSource::Either(text) => is_expression(text),
    };
    let mut known = Vec::new();
    let mut below: Vec<&str> = Vec::new();
    for (name, field) in &raw.fields.0 {
        let inner = field.get_ref();
        match &inner.source {
            RawSource::Path(path) | RawSource::Either(path) if !is_computed(inner) => {
                path::check(path, field.span().start, format, faults);
                known.push(Field {
                    name: name.clone(),
                    source: FieldSource::path(path),
                    resolution: resolution(inner, faults),
                    kind: kind(inner, faults),
                });
            }
            _ => below.push(name),
        }
    }
    for (name, field) in &raw.fields.0 {
        let inner = field.get_ref();
        let (text, place) = match &inner.source {
            RawSource::Expression(text, place) => (text, place.clone()),
            RawSource::Either(text) if is_computed(inner) => (text, field.span()),
            _ => continue,
        };
        below.retain(|other| other != name);
        let scope = Scope {
            own: Some(name),
            fields: &known,
            below: &below,
            tags: &tags,
        };
        let source = match Expression::parse(text, &scope, Kind::Number) {
            Ok(expression) => expression.into(),
            Err(fault) => {
                let mut message = show(&fault);
                if matches!(inner.source, RawSource::Either(_)) && may_be_path(text) {
                    let _ = write!(message, "; if it is a path, write {{ path = \"{text}\" }}");
                }
                faults.push((place_in(file, place, fault.at), message));
                FieldSource::path(name)
            }
        };
        known.push(Field {
            name: name.clone(),
            source,
            resolution: resolution(inner, faults),
            kind: kind(inner, faults),
        });
    }
    let place = |field: &Field| raw.fields.0.iter().position(|(name, _)| *name == field.name);
    known.sort_by_key(place);
    known
}

/// The condition of a query.
pub(super) fn filter(
    raw: &RawQuery,
    captures: &[String],
    fields: &[Field],
    file: &str,
    faults: &mut Faults,
) -> Option<Expression> {
    let text = raw.filter.as_ref()?;
    let scope = Scope {
        own: None,
        fields,
        below: &[],
        tags: &tags(raw, captures),
    };
    match Expression::parse(text.get_ref(), &scope, Kind::Truth) {
        Ok(expression) => Some(expression),
        Err(fault) => {
            faults.push((place_in(file, text.span(), fault.at), show(&fault)));
            None
        }
    }
}

fn resolution(raw: &RawField, faults: &mut Faults) -> Option<i128> {
    decimal("resolution", raw.resolution.as_ref(), faults)
}

/// A number of a field, in units of 10⁻¹⁸.
fn decimal(name: &str, number: Option<&Spanned<f64>>, faults: &mut Faults) -> Option<i128> {
    let number = number?;
    let parsed = Value::from_f64(*number.get_ref());
    if parsed.is_err() {
        let message = format!("{name} {} is not a number in range", number.get_ref());
        faults.push((number.span().start, message));
    }
    parsed.ok().map(|parsed| parsed.value.units())
}

fn kind(raw: &RawField, faults: &mut Faults) -> FieldKind {
    let kind = match raw.kind.as_ref().map(|word| (word, word.get_ref().as_str())) {
        None | Some((_, "gauge")) => FieldKind::Gauge,
        Some((_, "counter")) => {
            return FieldKind::Counter(CounterRules {
                wraps_at: decimal("wraps_at", raw.wraps_at.as_ref(), faults),
                tolerance: decimal("tolerance", raw.tolerance.as_ref(), faults).unwrap_or(0),
            });
        }
        Some((word, other)) => {
            let message = format!("kind `{other}` is not known; write \"gauge\" or \"counter\"");
            faults.push((word.span().start, message));
            return FieldKind::Gauge;
        }
    };
    for (name, number) in [("wraps_at", &raw.wraps_at), ("tolerance", &raw.tolerance)] {
        if let Some(number) = number {
            let message = format!("`{name}` is of counters; add `kind = \"counter\"`, or drop it");
            faults.push((number.span().start, message));
        }
    }
    kind
}

fn show(fault: &ExpressionFault) -> String {
    let hint = match &fault.hint {
        Hint::Say(hint) => (*hint).to_owned(),
        Hint::Nearest {
            wanted,
            known,
            otherwise,
        } => nearest(wanted, known.iter().map(String::as_str))
            .map_or_else(|| otherwise.clone(), |near| format!("did you mean `{near}`?")),
    };
    if hint.is_empty() {
        fault.message.clone()
    } else {
        format!("{}; {hint}", fault.message)
    }
}

/// Whether a text has only what paths usually have.
fn may_be_path(text: &str) -> bool {
    text.chars()
        .all(|character| character.is_alphanumeric() || "._-/".contains(character))
}

/// The place in the file of the n-th byte of a string that is written at `span`, quotes included.
fn place_in(file: &str, span: Range<usize>, nth: usize) -> usize {
    let Some(written) = file.get(span.clone()) else {
        return span.start;
    };
    let quotes = ["\"\"\"", "'''", "\"", "'"];
    let Some(quote) = quotes.into_iter().find(|quote| written.starts_with(quote)) else {
        return span.start;
    };
    let mut at = quote.len();
    if quote.len() == 3 {
        // A line feed right behind three quotes is not part of the string.
        let rest = &written[at..];
        at += rest.len()
            - rest
                .strip_prefix("\r\n")
                .or(rest.strip_prefix('\n'))
                .unwrap_or(rest)
                .len();
    }
    let has_escapes = quote.starts_with('"');
    let mut read = 0;
    let mut rest = written[at..].chars();
    while read < nth {
        let Some(character) = rest.next() else { break };
        at += character.len_utf8();
        if character != '\\' || !has_escapes {
            read += character.len_utf8();
            continue;
        }
        // Of the escapes those with digits are the only ones that stand for more than themselves.
        let Some(kind) = rest.next() else { break };
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let code: String = rest.by_ref().take(digits).collect();
        at += kind.len_utf8() + code.len();
        let decoded = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
        read += decoded.map_or(1, char::len_utf8);
    }
    span.start + at
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::Plan;

    use super::super::{PlanErrors, parse};
    use super::*;

    fn plan(fields: &str, rest: &str) -> Result<Plan, PlanErrors> {
        parse(
            &format!(
                "[[query]]\nname = \"climate\"\ntopic = \"s/{{site}}/{{device}}\"\nkey = [\"site\"]\n\
                 tags = {{ line = \"meta.line\" }}\nfields = {{ {fields} }}\n{rest}\nwindow = {{ size = \"60s\" }}\n\
                 aggregates = [\"mean\"]\n"
            ),
            "p",
        )
    }

    const FIELDS: &str = "temp = \"temp\", hum = { path = \"data.hum\", resolution = 0.1 }";

    fn fault(fields: &str, rest: &str) -> String {
        plan(fields, rest).unwrap_err().to_string()
    }

    #[test]
    fn fields_are_paths_or_expressions() {
        let text = format!(
            "dew = \"temp - (100 - hum) / 5\", {FIELDS}, twice = {{ expr = \"dew * 2\", resolution = 0.5 }}, \
             flow = {{ path = \"flow-rate\" }}, raw = \"$.raw\""
        );
        let plan = plan(&text, "where = \"site == 'a' && twice > 1\"").unwrap();
        let query = &plan.queries[0];
        let names: Vec<&str> = query.fields.iter().map(|field| &*field.name).collect();
        assert_eq!(
            names,
            ["dew", "temp", "hum", "twice", "flow", "raw"],
            "in the order of the file"
        );
        let is_computed = |field: &Field| matches!(field.source, FieldSource::Expression(_));
        let computed: Vec<bool> = query.fields.iter().map(is_computed).collect();
        assert_eq!(computed, [true, false, false, true, false, false]);
        assert_eq!(query.fields[4].source, FieldSource::path("flow-rate"));
        assert_eq!(
            query.fields[5].source,
            FieldSource::path("raw"),
            "nothing but a path"
        );
        assert_eq!(query.fields[3].resolution, Some(5 * 10_i128.pow(17)));
        assert_eq!(query.filter.as_ref().unwrap().tests().len(), 1);
        let pipeline = &plan.pipelines().pipelines[0];
        assert_eq!(
            (pipeline.filter.as_ref(), pipeline.check()),
            (query.filter.as_ref(), Ok(()))
        );
    }

    #[test]
    fn queries_share_a_pipeline_when_their_conditions_mean_the_same() {
        let pipelines = |one: &str, other: &str| {
            let mut plan = plan(FIELDS, one).unwrap();
            plan.queries
                .extend(super::tests::plan(FIELDS, other).unwrap().queries);
            plan.pipelines().pipelines.len()
        };
        assert_eq!(pipelines("where = \"temp>1\"", "where = '( temp > 1.0 )'"), 1);
        assert_eq!(pipelines("where = \"temp > 1\"", "where = \"temp > 2\""), 2);
        assert_eq!(pipelines("where = \"temp > 1\"", ""), 2);
    }

    #[test]
    fn rules_of_counters_are_read_and_each_fault_has_its_place() {
        let kind = |field: &str| {
            let plan = plan(&format!("kwh = {{ path = \"kwh\", {field} }}"), "");
            plan.map(|plan| plan.queries[0].fields[0].kind)
                .map_err(|errors| errors.to_string())
        };
        const ONE: i128 = catchment_common::number::decimal::ONE;
        let rules = CounterRules {
            wraps_at: Some(65_536 * ONE),
            tolerance: ONE / 2,
        };
        assert_eq!(
            kind("kind = \"counter\", wraps_at = 65536, tolerance = 0.5"),
            Ok(FieldKind::Counter(rules))
        );
        assert_eq!(kind("kind = \"counter\""), Ok(FieldKind::COUNTER));
        assert_eq!(
            kind("tolerance = 0.5").unwrap_err(),
            "p:6:46: `tolerance` is of counters; add `kind = \"counter\"`, or drop it"
        );
        assert!(
            kind("kind = \"counter\", wraps_at = 0")
                .unwrap_err()
                .contains("`wraps_at` of `kwh` must be")
        );
        assert!(
            kind("kind = \"counter\", wraps_at = 256, tolerance = 64")
                .unwrap_err()
                .contains("a quarter of `wraps_at`")
        );
        assert!(
            kind("kind = \"counter\", wraps_at = 1e18")
                .unwrap_err()
                .contains("not a number in range")
        );
    }

    #[test]
    fn faults_are_shown_inside_the_text() {
        assert_eq!(
            fault(FIELDS, "where = \"temp > 1 && hun < 2\""),
            "p:7:22: there is no field or tag `hun`; did you mean `hum`?"
        );
        assert_eq!(
            fault(FIELDS, "where = 'temp > 1 and hum < 2'"),
            "p:7:19: `and` cannot stand here; write `&&`"
        );
        assert_eq!(
            fault(FIELDS, "where = \"\"\"\n  temp > 1 &&\n  abss(hum) < 2\"\"\""),
            "p:9:3: there is no function `abss`; did you mean `abs`?"
        );
        assert_eq!(
            fault(FIELDS, "where = \"$.\\\"\\u00e9\\\" > true\""),
            "p:7:25: this is a condition, where a number is needed; write `if(condition, 1, 0)` to make a number of it"
        );
        assert_eq!(
            fault(FIELDS, "where = \"temp\""),
            "p:7:10: this is a number, where a condition is needed; compare it: `temp > 0`"
        );
        assert_eq!(
            fault("dew = { expr = \"temp >\" }", ""),
            "p:6:28: there is no field or tag `temp`; write `$.temp` for a value of the payload that is no field"
        );
        assert_eq!(
            fault("v = \"values[0].temp\"", ""),
            "p:6:16: path `values[0].temp` is written as in another language and would match nothing; write `values.0.temp`: names \
             and numbers with dots between them, and the first item of a list is 0"
        );
        assert_eq!(
            fault("v = \"$.values[0]\"", ""),
            "p:6:25: `[` means nothing in an expression; write `$.values.0`: an item of a list is a number between dots"
        );
        assert_eq!(
            fault("v = \"$.Außen * 2\"", ""),
            "p:6:21: `ß` means nothing in an expression; quote a name that is no plain word: `$.'Außen.°C'`"
        );
        assert_eq!(
            fault("flow = \"flow-xyz9\"", ""),
            "p:6:25: there is no field or tag `xyz9`; write `$.xyz9` for a value of the payload that is no field; \
             if it is a path, write { path = \"flow-xyz9\" }"
        );
        assert_eq!(
            fault("a = \"b * 2\", b = \"$.b * 2\"", ""),
            "p:6:17: field `b` is computed further down; move it above this one"
        );
        assert_eq!(
            fault("a = { path = \"a\", expr = \"b\" }", ""),
            "p:6:16: a field has either `path` or `expr`; write { path = \"temp\" } or { expr = \"temp * 2\" }"
        );
        assert_eq!(
            fault(
                &format!("{FIELDS}, a = \"temp * 2\", b = \"2 * temp\", c = \"temp*2\""),
                ""
            ),
            "p:6:110: field `c` reads the same as another; drop one"
        );
    }
}

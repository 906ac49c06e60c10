//! Paths into payloads, and what other languages would write in their place.
//!
//! Any text is a path, and one that is written as JSONPath, gjson or a JSON pointer writes it can match nothing in most
//! payloads: every reading would lack its field. So these are refused, with the path that was meant.

use catchment_common::plan::{Format, Path};
use toml::Spanned;

use super::Faults;

/// A path of a query whose payloads have this format.
pub(super) fn path(text: &Spanned<String>, format: &Format, faults: &mut Faults) -> Path {
    check(text.get_ref(), text.span().start, format, faults);
    Path::parse(text.get_ref())
}

/// Looks whether a path that is written at `place` is one of another language. The names of other formats have no
/// structure, and may have any character.
pub(super) fn check(text: &str, place: usize, format: &Format, faults: &mut Faults) {
    if !matches!(format, Format::Json | Format::Cbor | Format::Msgpack) {
        return;
    }
    let is_quoted = |segment: &str| segment.starts_with(['\'', '"']) || segment.ends_with(['\'', '"']);
    if text.split('.').any(is_quoted) {
        let message =
            format!("path `{text}` has quotes, which only expressions read; write {{ expr = \"$.{text}\" }}");
        faults.push((place, message));
        return;
    }
    let meant = translated(text);
    if meant == text {
        return;
    }
    let message = format!(
        "path `{text}` is written as in another language and would match nothing; write `{meant}`: names and numbers \
         with dots between them, and the first item of a list is 0"
    );
    faults.push((place, message));
}

/// A path of another language as it is written here; ours stay as they are.
fn translated(text: &str) -> String {
    let unmarked = text
        .strip_prefix("$.")
        .or(text.strip_prefix("$[").map(|_| &text[1..]));
    let text = unmarked.unwrap_or(text);
    let pointer = text.strip_prefix('/').map(|rest| rest.replace('/', "."));
    let text = pointer.as_deref().unwrap_or(text);
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split('.') {
        let (name, indexes) = match segment.split_once('[') {
            Some((name, rest)) if rest.ends_with(']') => (name, Some(rest)),
            _ => (segment, None),
        };
        let is_any = |index: &str| matches!(index, "#" | "*" | "");
        match name {
            "#" | "*" => segments.push("0".into()),
            "" if indexes.is_some() => {}
            name => segments.push(name.into()),
        }
        for index in indexes
            .unwrap_or_default()
            .split('[')
            .filter(|_| indexes.is_some())
        {
            let index = index.trim_end_matches(']').trim_matches(['\'', '"']);
            segments.push(if is_any(index) { "0".into() } else { index.into() });
        }
    }
    segments.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_other_languages_are_translated() {
        for (text, meant) in [
            ("values[0].temp", "values.0.temp"),
            ("values[0][1]", "values.0.1"),
            ("readings.#.v", "readings.0.v"),
            ("readings[*].v", "readings.0.v"),
            ("readings[].v", "readings.0.v"),
            ("$.temp", "temp"),
            ("$[0].temp", "0.temp"),
            ("/values/0/temp", "values.0.temp"),
            ("data['temp']", "data.temp"),
        ] {
            assert_eq!(translated(text), meant, "{text}");
        }
        for ours in [
            "temp",
            "values.0.temp",
            "flow-rate",
            "a b",
            "switch:0.apower",
            "$x",
            "a[b",
            "°C",
        ] {
            assert_eq!(translated(ours), ours);
        }
    }

    #[test]
    fn only_payloads_with_structure_are_checked() {
        let faults = |text: &str, format: Format| {
            let mut faults = Vec::new();
            check(text, 7, &format, &mut faults);
            faults
        };
        assert_eq!(faults("fields.temp[0]", Format::Influx), []);
        assert_eq!(faults("metrics.a/#", Format::Sparkplug), []);
        assert_eq!(
            faults("'temp.c'", Format::Json),
            [(
                7,
                "path `'temp.c'` has quotes, which only expressions read; write { expr = \"$.'temp.c'\" }"
                    .into()
            )]
        );
        assert_eq!(faults("v[0]", Format::Cbor).len(), 1);
    }
}

//! How an agent's sources are, as it stands in the database: JSON, so that a tool may read it.

use catchment_common::time::Timestamp;
use catchment_common::wire::SourceState;
use serde_json::{Value, json};

use crate::store::text::time_text;

/// As it is stored.
pub(super) fn to_text(sources: &[SourceState]) -> String {
    let one = |source: &SourceState| {
        json!({
            "name": source.name,
            "connected": source.is_connected,
            "since_us": source.since.as_micros(),
        })
    };
    let all: Value = sources.iter().map(one).collect();
    all.to_string()
}

/// What was stored. Nothing is decided by it, so what cannot be read is left out.
pub(super) fn from_text(text: &str) -> Vec<SourceState> {
    let stored: Value = serde_json::from_str(text).unwrap_or_default();
    let one = |source: &Value| {
        Some(SourceState {
            name: source["name"].as_str()?.into(),
            is_connected: source["connected"].as_bool()?,
            since: Timestamp::clamped(source["since_us"].as_i64()?),
        })
    };
    stored
        .as_array()
        .map(|all| all.iter().filter_map(one).collect())
        .unwrap_or_default()
}

/// For people, with the sources that are missing. Names are texts of somebody else: control characters do not reach a
/// terminal.
pub(in crate::io) fn shown(sources: &[SourceState], missing: &[String]) -> String {
    let one = |source: &SourceState| {
        let state = if source.is_connected { "connected" } else { "away" };
        let name = source.name.escape_debug();
        format!("{name} {state} since {}", time_text(source.since))
    };
    let missing = { missing.iter() }.map(|name| format!("{} missing", name.escape_debug()));
    let all: Vec<String> = sources.iter().map(one).chain(missing).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_shown() {
        let state = |name: &str, is_connected| SourceState {
            name: name.into(),
            is_connected,
            since: Timestamp::clamped(1_800_000_000_000_000),
        };
        let sources = vec![state("broker", false), state("a\u{1b}\"b", true)];
        assert_eq!(from_text(&to_text(&sources)), sources);
        let since = time_text(Timestamp::clamped(1_800_000_000_000_000));
        assert_eq!(
            shown(&sources, &["plant".into()]),
            format!("broker away since {since}, a\\u{{1b}}\\\"b connected since {since}, plant missing")
        );
        assert_eq!((from_text(""), from_text("{")), (Vec::new(), Vec::new()));
        assert_eq!(shown(&[], &[]), "");
    }
}

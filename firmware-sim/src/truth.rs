//! The truth: one line of JSON for each message published, in the order of publishing.
//!
//! `{"topic":"…","payload":"…"}` is a good message, its payload as the exact text. `{"topic":"…","bad":"<reason>"}` is
//! a message that the agent must refuse under that reason. Truth files may be put together with `cat`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::fault::Bad;

/// One published message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry<'l> {
    /// A message whose readings must be in the results.
    Good {
        /// Where it was published.
        topic: Cow<'l, str>,
        /// Its exact text.
        payload: Cow<'l, str>,
    },
    /// A message that must be refused.
    Bad {
        /// Where it was published.
        topic: Cow<'l, str>,
        /// Why it must be refused.
        bad: Bad,
    },
}

/// The line as the file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'l> {
    #[serde(borrow)]
    topic: Cow<'l, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'l, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    bad: Option<Cow<'l, str>>,
}

/// Why a line is not an entry.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is not JSON of the right form.
    #[error("not a line of truth: {0}")]
    Json(#[from] serde_json::Error),
    /// It has both a payload and a reason, or neither.
    #[error("a line has either `payload` or `bad`")]
    Form,
    /// The reason is not known.
    #[error("unknown reason `{0}`")]
    Reason(String),
}

impl<'l> Entry<'l> {
    /// Reads a line, without its line feed.
    pub fn parse(line: &'l str) -> Result<Self, BadLine> {
        let Line { topic, payload, bad } = serde_json::from_str(line)?;
        match (payload, bad) {
            (Some(payload), None) => Ok(Self::Good { topic, payload }),
            (None, Some(name)) => match Bad::from_name(&name) {
                Some(bad) => Ok(Self::Bad { topic, bad }),
                None => Err(BadLine::Reason(name.into_owned())),
            },
            _ => Err(BadLine::Form),
        }
    }

    /// The line of this entry, without a line feed.
    pub fn emit(&self) -> String {
        let line = match self {
            Self::Good { topic, payload } => Line {
                topic: topic.as_ref().into(),
                payload: Some(payload.as_ref().into()),
                bad: None,
            },
            Self::Bad { topic, bad } => Line {
                topic: topic.as_ref().into(),
                payload: None,
                bad: Some(bad.name().into()),
            },
        };
        serde_json::to_string(&line).expect("strings are always JSON")
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        match self {
            Self::Good { topic, .. } | Self::Bad { topic, .. } => topic,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_have_this_form() {
        let good = Entry::Good {
            topic: "a/b".into(),
            payload: r#"{"temp":21.30}"#.into(),
        };
        assert_eq!(good.emit(), r#"{"topic":"a/b","payload":"{\"temp\":21.30}"}"#);
        let bad = Entry::Bad {
            topic: "a/b".into(),
            bad: Bad::TooLate,
        };
        assert_eq!(bad.emit(), r#"{"topic":"a/b","bad":"too_late"}"#);
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "x",
            "{}",
            r#"{"topic":"a"}"#,
            r#"{"topic":"a","payload":"","bad":"too_late"}"#,
            r#"{"topic":"a","bad":"because"}"#,
            r#"{"topic":"a","payload":1}"#,
            r#"{"topic":"a","payload":"","more":1}"#,
        ] {
            assert!(Entry::parse(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_line_read_back_is_the_same(topic: String, payload: String, kind in 0..=Bad::ALL.len()) {
            let entry = match Bad::ALL.get(kind) {
                Some(&bad) => Entry::Bad { topic: topic.into(), bad },
                None => Entry::Good { topic: topic.into(), payload: payload.into() },
            };
            let line = entry.emit();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Entry::parse(&line).unwrap(), entry);
        }
    }
}

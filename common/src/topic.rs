//! Topic templates: which messages a query reads, and which tags their topics give.
//!
//! `sensors/{site}/{device}/env` matches four levels and captures two of them as tags; `+` matches one level and `#`,
//! last, any number. Matching allocates nothing: it is done for every message. Wildcards at the first level do not
//! match topics that begin with `$`, as MQTT 5 section 4.7.2 demands. `$share/group/` before the rest is not matched: it
//! asks the broker to share the messages among the agents that are subscribed.

pub mod filter;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::limits::{TAGS_MAX, TOPIC_LEVELS_MAX};

/// A parsed topic template.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicTemplate {
    levels: Vec<Level>,
    /// How many of them say how the broker hands messages out, and are in no topic: 2 of a shared subscription.
    aside: usize,
}

/// One level of a template.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// This text and no other.
    Literal(String),
    /// `{name}`: any one level, captured as a tag.
    Capture(String),
    /// `+`: any one level.
    Any,
    /// `#`: whatever follows, the parent level included.
    Rest,
}

/// What is wrong with a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopicFault {
    /// The template is empty.
    Empty,
    /// More levels than [`TOPIC_LEVELS_MAX`].
    TooManyLevels,
    /// More captures than a key can hold ([`TAGS_MAX`]).
    TooManyCaptures,
    /// `#` stands before the last level.
    RestNotLast,
    /// `+`, `#`, `{` or `}` is mixed with other text in this level.
    MixedLevel(String),
    /// A capture's name is not a name (`[a-z_][a-z0-9_]*`).
    CaptureName(String),
    /// Two captures have this name.
    DuplicateCapture(String),
    /// The template has a NUL character.
    Nul,
    /// `$share` stands first, and no group and filter follow.
    Share,
}

impl fmt::Display for TopicFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the topic is empty"),
            Self::TooManyLevels => write!(f, "the topic has more than {TOPIC_LEVELS_MAX} levels"),
            Self::TooManyCaptures => write!(f, "the topic has more than {TAGS_MAX} captures"),
            Self::RestNotLast => write!(f, "`#` must be the last level"),
            Self::MixedLevel(level) => {
                write!(
                    f,
                    "level `{level}` mixes a wildcard or capture with text; it must stand alone between slashes"
                )
            }
            Self::CaptureName(name) => {
                write!(
                    f,
                    "capture `{{{name}}}` is not a name; use lower-case letters, digits and `_`"
                )
            }
            Self::DuplicateCapture(name) => write!(f, "capture `{{{name}}}` stands twice"),
            Self::Nul => write!(f, "the topic has a NUL character"),
            Self::Share => write!(
                f,
                "a shared subscription is `$share/group/topic`, its group a text without wildcards and captures"
            ),
        }
    }
}

/// The captured levels of one topic, in the template's order.
pub type Captures<'t> = [&'t str; TAGS_MAX];

impl TopicTemplate {
    /// Parses a template. Errors name the level at fault.
    pub fn parse(text: &str) -> Result<Self, TopicFault> {
        if text.is_empty() {
            return Err(TopicFault::Empty);
        }
        if text.split('/').count() > TOPIC_LEVELS_MAX {
            return Err(TopicFault::TooManyLevels);
        }
        let template = Self::new(text.split('/').map(parse_level).collect::<Result<_, _>>()?)?;
        if template.levels[0] == Level::Literal(filter::SHARE.into()) && template.group().is_none() {
            return Err(TopicFault::Share);
        }
        Ok(template)
    }

    /// A template of these levels. Errors name the level at fault.
    pub fn new(levels: Vec<Level>) -> Result<Self, TopicFault> {
        let is_empty = |level: &Level| matches!(level, Level::Literal(text) if text.is_empty());
        if levels.is_empty() || (levels.len() == 1 && is_empty(&levels[0])) {
            return Err(TopicFault::Empty);
        }
        if levels.len() > TOPIC_LEVELS_MAX {
            return Err(TopicFault::TooManyLevels);
        }
        for (index, level) in levels.iter().enumerate() {
            match level {
                Level::Literal(text) if text.contains('\0') => return Err(TopicFault::Nul),
                Level::Literal(text) if text.contains(['+', '#', '{', '}', '/']) => {
                    return Err(TopicFault::MixedLevel(text.clone()));
                }
                Level::Capture(name) if !is_name(name) => {
                    return Err(TopicFault::CaptureName(name.clone()));
                }
                Level::Capture(name) if levels[..index].contains(level) => {
                    return Err(TopicFault::DuplicateCapture(name.clone()));
                }
                Level::Rest if index + 1 != levels.len() => return Err(TopicFault::RestNotLast),
                _ => {}
            }
        }
        let is_shared = match &levels[..] {
            [Level::Literal(share), Level::Literal(group), body @ ..] => {
                let has_body = !body.is_empty() && (body.len() > 1 || !is_empty(&body[0]));
                share == filter::SHARE && !group.is_empty() && has_body
            }
            _ => false,
        };
        let aside = if is_shared { 2 } else { 0 };
        let template = Self { levels, aside };
        if template.captures().count() > TAGS_MAX {
            return Err(TopicFault::TooManyCaptures);
        }
        Ok(template)
    }

    /// Its levels, from the first on.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The group of a shared subscription (`$share/group/…`): the broker gives each message to one of those who
    /// subscribe to it. Topics are matched with what follows.
    pub fn group(&self) -> Option<&str> {
        match &self.levels[..self.aside] {
            [_, Level::Literal(group)] => Some(group),
            _ => None,
        }
    }

    /// Whether it has levels that are neither text nor captured.
    pub fn has_wildcard(&self) -> bool {
        self.levels
            .iter()
            .any(|level| matches!(level, Level::Any | Level::Rest))
    }

    /// The names of the captures, in order.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().filter_map(|level| match level {
            Level::Capture(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The MQTT filter that subscribes to exactly what this template can match.
    pub fn filter(&self) -> String {
        let mut filter = String::new();
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                filter.push('/');
            }
            match level {
                Level::Literal(text) => filter.push_str(text),
                Level::Capture(_) | Level::Any => filter.push('+'),
                Level::Rest => filter.push('#'),
            }
        }
        filter
    }

    /// The template with its captures' names left out: templates of one shape match the same topics and capture the
    /// same levels.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                shape.push('/');
            }
            match level {
                Level::Literal(text) => shape.push_str(text),
                Level::Capture(_) => shape.push_str("{}"),
                Level::Any => shape.push('+'),
                Level::Rest => shape.push('#'),
            }
        }
        shape
    }

    /// Matches a topic. Returns the captured levels, of which the first `captures().count()` are meaningful.
    #[inline]
    pub fn matches<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut captures = [""; TAGS_MAX];
        let mut captured = 0;
        let mut rest = Some(topic);
        let hidden = topic.starts_with('$');
        for (index, level) in self.levels[self.aside..].iter().enumerate() {
            if hidden && index == 0 && !matches!(level, Level::Literal(_)) {
                return None;
            }
            if matches!(level, Level::Rest) {
                return Some(captures);
            }
            let current = rest?;
            let (part, tail) = match find_slash(current) {
                Some(at) => (&current[..at], Some(&current[at + 1..])),
                None => (current, None),
            };
            rest = tail;
            match level {
                Level::Literal(text) if text.as_str() != part => return None,
                Level::Capture(_) => {
                    captures[captured] = part;
                    captured += 1;
                }
                _ => {}
            }
        }
        rest.is_none().then_some(captures)
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            match level {
                Level::Literal(text) => f.write_str(text)?,
                Level::Capture(name) => write!(f, "{{{name}}}")?,
                Level::Any => f.write_str("+")?,
                Level::Rest => f.write_str("#")?,
            }
        }
        Ok(())
    }
}

/// Levels are short: a plain scan beats a general search here.
#[inline]
fn find_slash(text: &str) -> Option<usize> {
    text.as_bytes().iter().position(|&byte| byte == b'/')
}

fn parse_level(part: &str) -> Result<Level, TopicFault> {
    let capture = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    Ok(match (part, capture) {
        ("+", _) => Level::Any,
        ("#", _) => Level::Rest,
        (_, Some(name)) if is_name(name) => Level::Capture(String::from(name)),
        (_, Some(name)) => return Err(TopicFault::CaptureName(String::from(name))),
        (text, None) => Level::Literal(String::from(text)),
    })
}

/// Whether `text` is a name: `[a-z_][a-z0-9_]*`. Names become SQL identifiers and need no quoting.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn check(template: &str, topic: &str, expected: Option<&[&str]>) {
        let template = TopicTemplate::parse(template).unwrap();
        let count = template.captures().count();
        let captures = template.matches(topic);
        assert_eq!(
            captures.as_ref().map(|all| &all[..count]),
            expected,
            "{template} on {topic}"
        );
    }

    #[test]
    fn captures_and_wildcards() {
        check(
            "sensors/{site}/{device}/env",
            "sensors/berlin/dev-1/env",
            Some(&["berlin", "dev-1"]),
        );
        check("sensors/{site}/{device}/env", "sensors/berlin/dev-1/air", None);
        check("sensors/{site}/{device}/env", "sensors/berlin/dev-1/env/x", None);
        check("sensors/{site}/{device}/env", "sensors/berlin/dev-1", None);
        check("a/+/{x}", "a/b/c", Some(&["c"]));
        check("a/{x}/#", "a/b/c/d", Some(&["b"]));
        check("a/{x}/#", "a/b", Some(&["b"]));
        check("a/{x}/#", "a", None);
        check("#", "any/thing", Some(&[]));
        check("a/{x}/", "a/b/", Some(&["b"]));
        check("a/{x}", "a/", Some(&[""]));
    }

    #[test]
    fn a_shared_subscription_is_matched_without_its_group() {
        check("$share/g/s/{d}", "s/x", Some(&["x"]));
        check("$share/g/s/{d}", "$share/g/s/x", None);
        check("$share/g/#", "s/x", Some(&[]));
        check("$share/g/#", "$SYS/broker", None);
        let parse = |text: &str| TopicTemplate::parse(text);
        let template = parse("$share/g/s/{d}").unwrap();
        assert_eq!(
            (template.group(), template.filter().as_str()),
            (Some("g"), "$share/g/s/+")
        );
        assert_eq!(template.to_string(), "$share/g/s/{d}");
        assert_ne!(template.shape(), parse("s/{d}").unwrap().shape());
        for bad in [
            "$share",
            "$share/g",
            "$share/g/",
            "$share//s",
            "$share/{g}/s",
            "$share/+/s",
        ] {
            assert_eq!(parse(bad), Err(TopicFault::Share), "{bad}");
        }
        assert_eq!(parse("$shared/g").unwrap().group(), None);
    }

    #[test]
    fn wildcards_do_not_match_hidden_topics() {
        check("#", "$SYS/broker", None);
        check("{x}/broker", "$SYS/broker", None);
        check("$SYS/{x}", "$SYS/broker", Some(&["broker"]));
    }

    #[test]
    fn the_filter_covers_the_template() {
        let filter = |text: &str| TopicTemplate::parse(text).unwrap().filter();
        assert_eq!(filter("sensors/{site}/+/env"), "sensors/+/+/env");
        assert_eq!(filter("a/{b}/#"), "a/+/#");
    }

    #[test]
    fn faults_name_the_level() {
        let fault = |text: &str| TopicTemplate::parse(text).unwrap_err();
        assert_eq!(fault(""), TopicFault::Empty);
        assert_eq!(fault("a/#/b"), TopicFault::RestNotLast);
        assert_eq!(fault("a/x{b}"), TopicFault::MixedLevel("x{b}".into()));
        assert_eq!(fault("a/b+"), TopicFault::MixedLevel("b+".into()));
        assert_eq!(fault("a/{B}"), TopicFault::CaptureName("B".into()));
        assert_eq!(fault("{a}/{a}"), TopicFault::DuplicateCapture("a".into()));
        assert_eq!(fault("a/b\0"), TopicFault::Nul);
        assert_eq!(fault(&"a/".repeat(20)), TopicFault::TooManyLevels);
    }
}

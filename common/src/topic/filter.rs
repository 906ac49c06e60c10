//! Topic filters, as MQTT brokers know them, and how two of them lie to each other.
//!
//! A broker may send a message once for each subscription that matches it. So it matters which filters *cover* others
//! (every topic of the one is a topic of the other) and which merely *overlap*. [`widest`] drops the covered ones: what
//! they ask for comes through their cover. [`disjoint`] goes further and puts a common cover in the place of filters
//! that overlap, so that no topic matches two of the result.
//!
//! A *shared subscription* (`$share/group/filter`) gives each message to one member of its group. It is a queue of its
//! own: it neither covers nor overlaps any other, because what reaches it need not reach the other.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What a shared subscription begins with.
pub const SHARE: &str = "$share";

/// A filter that a broker accepts: `sensors/+/#`, or `$share/group/sensors/+/#`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Filter(String);

impl Filter {
    /// The filter with this text: none if it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let filter = Self(text.to_owned());
        let body = filter.body();
        let levels = body.split('/').count();
        let is_valid = |(index, level): (usize, &str)| match level {
            "#" => index + 1 == levels,
            "+" => true,
            text => !text.contains(['+', '#', '\0']),
        };
        let is_shared = text == SHARE || text.starts_with("$share/");
        let group_is_valid = !is_shared || filter.group().is_some_and(|group| !group.contains(['+', '#']));
        (!body.is_empty() && group_is_valid && body.split('/').enumerate().all(is_valid)).then_some(filter)
    }

    /// As it stands in a SUBSCRIBE.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group of a shared subscription.
    pub fn group(&self) -> Option<&str> {
        let (group, body) = self.0.strip_prefix("$share/")?.split_once('/')?;
        (!group.is_empty() && !body.is_empty()).then_some(group)
    }

    /// The filter without its group: what topics are compared with.
    pub fn body(&self) -> &str {
        match self.group() {
            Some(group) => &self.0[SHARE.len() + group.len() + 2..],
            None => &self.0,
        }
    }

    /// Whether a message on this topic is among those that the filter asks for.
    pub fn matches(&self, topic: &str) -> bool {
        !is_hidden(self.body(), topic) && covers(self.body(), topic)
    }

    /// Whether each message that `other` asks for comes through this filter too.
    pub fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let are_plain = self.group().is_none() && other.group().is_none();
        are_plain && !is_hidden(&self.0, &other.0) && covers(&self.0, &other.0)
    }

    /// Whether a message may come through both.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let are_plain = self.group().is_none() && other.group().is_none();
        are_plain && self.meets(other)
    }

    /// Whether a topic exists that both match, whoever the messages on it are given to.
    pub fn meets(&self, other: &Self) -> bool {
        let (one, two) = (self.body(), other.body());
        !is_hidden(one, two) && !is_hidden(two, one) && overlap(one, two)
    }

    /// A filter that covers both: level by level what they have in common.
    fn join(&self, other: &Self) -> Self {
        let (mut one, mut two) = (self.0.split('/'), other.0.split('/'));
        let mut levels: Vec<&str> = Vec::new();
        loop {
            match (one.next(), two.next()) {
                (None, None) => break,
                (Some("#") | None, _) | (_, Some("#") | None) => {
                    levels.push("#");
                    break;
                }
                (Some(level), Some(same)) if level == same => levels.push(level),
                _ => levels.push("+"),
            }
        }
        Self(levels.join("/"))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The filters that no other of them covers, in their order and each once: together they bring every message that the
/// whole list asks for.
pub fn widest(filters: impl IntoIterator<Item = Filter>) -> Vec<Filter> {
    let mut kept: Vec<Filter> = Vec::new();
    for filter in filters {
        if !kept.iter().any(|held| held.covers(&filter)) {
            kept.retain(|held| !filter.covers(held));
            kept.push(filter);
        }
    }
    kept
}

/// Filters that bring every message that the list asks for, and none of them twice: those that overlap are joined, at
/// the price of messages that nobody asked for.
pub fn disjoint(filters: impl IntoIterator<Item = Filter>) -> Vec<Filter> {
    let mut kept: Vec<Filter> = Vec::new();
    for mut filter in filters {
        // Each step takes one filter out, so all of them together are as many as there are filters.
        while let Some(other) = kept.iter().position(|held| held.overlaps(&filter)) {
            let other = kept.remove(other);
            filter = if other == filter {
                filter
            } else {
                other.join(&filter)
            };
        }
        kept.push(filter);
    }
    kept
}

/// Wildcards at the first level do not match topics that begin with `$` (MQTT 5, section 4.7.2).
fn is_hidden(filter: &str, topic: &str) -> bool {
    topic.starts_with('$') && filter.starts_with(['+', '#'])
}

/// Whether `filter` matches every topic that `other`, a filter or a topic, stands for.
fn covers(filter: &str, other: &str) -> bool {
    let (mut filter, mut other) = (filter.split('/'), other.split('/'));
    loop {
        match (filter.next(), other.next()) {
            // `#` stands for its parent level too.
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(same)) if level == same => {}
            _ => return false,
        }
    }
}

fn overlap(one: &str, two: &str) -> bool {
    let (mut one, mut two) = (one.split('/'), two.split('/'));
    loop {
        match (one.next(), two.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(level), Some(same)) if level == same => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn all(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| filter(text)).collect()
    }

    fn texts(filters: &[Filter]) -> Vec<&str> {
        filters.iter().map(Filter::as_str).collect()
    }

    #[test]
    fn covers_and_overlaps_of_neighbours() {
        let check = |one: &str, two: &str, covers: bool, overlaps: bool| {
            let (one, two) = (filter(one), filter(two));
            assert_eq!(
                (one.covers(&two), one.overlaps(&two)),
                (covers, overlaps),
                "{one} {two}"
            );
            assert_eq!(two.overlaps(&one), overlaps, "{two} {one}");
        };
        check("s/#", "s/+/t", true, true);
        check("s/+/t", "s/#", false, true);
        check("s/#", "s", true, true);
        check("s/+", "s/#", false, true);
        check("s/+/#", "s", false, false);
        check("s/+/env", "s/x/#", false, true);
        check("s/+/env", "t/+/env", false, false);
        check("+/x", "s/+", false, true);
        check("#", "$SYS/#", false, false);
        check("+/broker", "$SYS/broker", false, false);
        check("$SYS/#", "$SYS/broker", true, true);
        check("a//b", "a/+/b", false, true);
        check("$share/g/s/#", "s/x", false, false);
        check("$share/g/s/#", "$share/g/s/x", false, false);
    }

    #[test]
    fn a_shared_filter_is_compared_without_its_group() {
        let shared = filter("$share/g/s/+");
        assert_eq!((shared.group(), shared.body()), (Some("g"), "s/+"));
        assert!(shared.matches("s/x") && !shared.matches("$share/g/s/x"));
        assert!(shared.meets(&filter("s/#")) && !shared.overlaps(&filter("s/#")));
        for bad in [
            "$share/g",
            "$share/g/",
            "$share//s",
            "$share",
            "$share/+/s",
            "",
            "a/#/b",
            "a+/b",
        ] {
            assert_eq!(Filter::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_covered_are_dropped_and_the_crossing_joined() {
        let filters = ["s/+/env", "s/#", "t/+", "s/x", "s/#"];
        assert_eq!(texts(&widest(all(&filters))), ["s/#", "t/+"]);
        assert_eq!(texts(&widest(all(&["s/+/env", "s/x/#"]))), ["s/+/env", "s/x/#"]);
        assert_eq!(texts(&disjoint(all(&["s/+/env", "s/x/#"]))), ["s/+/#"]);
        assert_eq!(texts(&disjoint(all(&["s/+", "+/x", "u/+/y"]))), ["+/+", "u/+/y"]);
        assert_eq!(texts(&disjoint(all(&["+/env", "s/#", "t/a/b"]))), ["+/#"]);
    }

    fn any_filter() -> impl Strategy<Value = Filter> {
        let level = prop::sample::select(vec!["a", "b", "+", "$c", ""]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map("empty", |(levels, rest)| {
            let text = levels.join("/") + if rest { "/#" } else { "" };
            Filter::parse(&text)
        })
    }

    /// Every topic of up to four levels over the alphabet of [`any_filter`].
    fn topics() -> Vec<String> {
        let mut all: Vec<String> = ["a", "b", "$c", ""].map(String::from).to_vec();
        let mut last = all.clone();
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|topic| ["a", "b", "$c", ""].map(|level| alloc::format!("{topic}/{level}")))
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    proptest! {
        #[test]
        fn relations_say_what_topics_say(one in any_filter(), two in any_filter()) {
            let topics = topics();
            let covers = topics.iter().all(|topic| one.matches(topic) || !two.matches(topic));
            let overlaps = topics.iter().any(|topic| one.matches(topic) && two.matches(topic));
            prop_assert_eq!(one.covers(&two), covers, "{} covers {}", one, two);
            prop_assert_eq!(one.overlaps(&two), overlaps, "{} overlaps {}", one, two);
        }

        #[test]
        fn each_message_that_is_asked_for_comes_and_through_one_disjoint_filter_alone(
            filters in prop::collection::vec(any_filter(), 1..6)
        ) {
            let (wide, apart) = (widest(filters.clone()), disjoint(filters.clone()));
            for topic in topics() {
                let count = |of: &[Filter]| of.iter().filter(|filter| filter.matches(&topic)).count();
                let is_asked = count(&filters) > 0;
                prop_assert_eq!(count(&wide) > 0, is_asked, "{}", &topic);
                prop_assert!(count(&apart) <= 1, "{}", &topic);
                prop_assert!(count(&apart) == 1 || !is_asked, "{}", &topic);
            }
        }
    }
}

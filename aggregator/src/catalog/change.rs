//! Whether a query may be defined otherwise under the name that it has.
//!
//! A result table outlives the definition that filled it, and so do the panes that its rows are made of. Another
//! function, field, resolution or time of waiting leaves old rows what they were. Another window or key would give
//! rows other names: that is always another query. Another *meaning* (topic, format, time, condition, or where a tag
//! of the key comes from, or which source is read) lets other readings count. An operator who revises a topic wants just that, and rows that
//! hold readings of both meanings say so. But a query that was taken out of the plan and comes back with another
//! meaning is a new one under an old name: nobody expects its table to hold rows of the former, and late data of the
//! former to come in.

use catchment_common::plan::{Pipeline, Query};

/// Which part of two definitions differs, of those that decide which readings count and where they belong.
fn turned(last: &Pipeline, next: &Pipeline) -> Option<&'static str> {
    if last.topic.shape() != next.topic.shape() {
        Some("topic")
    } else if (&last.format, last.compression) != (&next.format, next.compression) {
        Some("format")
    } else if last.time != next.time {
        Some("time")
    } else if last.filter != next.filter {
        Some("condition (`where`)")
    } else if last.key != next.key {
        Some("source of a tag of its key")
    } else if last.source != next.source {
        Some("source")
    } else {
        None
    }
}

/// Whether two pipelines of one query let the same readings count.
pub fn mean_the_same(one: &Pipeline, other: &Pipeline) -> bool {
    turned(one, other).is_none()
}

/// Why `next` must have another name than `last`, the newest query of its name: what is wrong and what to do.
/// `was_away` says that it is not in the plan in force.
pub fn refusal(last: &Query, next: &Query, was_away: bool) -> Option<String> {
    let since = if was_away {
        " when it was last in the plan"
    } else {
        ""
    };
    if last.window != next.window {
        return Some(format!(
            "its windows were of another kind, size or step{since}; give the query a new name"
        ));
    }
    if last.key != next.key {
        return Some(format!("it had another key{since}; give the query a new name"));
    }
    let turned = turned(&last.pipeline(), &next.pipeline()).filter(|_| was_away)?;
    Some(format!(
        "it had another {turned} when it was last in the plan, so its table holds rows of other readings; give the query a \
         new name. To go on with that table all the same, apply the plan with the query as it was, then this one"
    ))
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::{Path, TimeSource, TimeUnit, Window};
    use catchment_common::time::Span;
    use catchment_common::topic::TopicTemplate;

    use super::*;
    use crate::testing::query;

    fn other(change: impl Fn(&mut Query)) -> Query {
        let mut other = query("q", 10, 10);
        change(&mut other);
        other
    }

    #[test]
    fn another_window_or_key_is_another_query_whether_it_was_away_or_not() {
        let last = query("q", 10, 10);
        for was_away in [false, true] {
            let wider = other(|query| query.window = Window::tumbling(Span::from_secs(60)));
            assert!(refusal(&last, &wider, was_away).is_some());
            let unkeyed = other(|query| query.key.clear());
            assert!(refusal(&last, &unkeyed, was_away).is_some());
            let slower = other(|query| query.watermark_delay = Span::from_secs(9));
            assert_eq!(refusal(&last, &slower, was_away), None);
        }
    }

    #[test]
    fn another_meaning_needs_another_name_after_an_absence_only() {
        let last = query("q", 10, 10);
        let topic = other(|query| query.topic = TopicTemplate::parse("t/{device}/x").unwrap());
        let time = other(|query| {
            query.time = TimeSource::Payload {
                path: Path::parse("ts"),
                unit: TimeUnit::Millis,
                fallback: false,
            };
        });
        for (turned, what) in [(topic, "topic"), (time, "time")] {
            assert_eq!(refusal(&last, &turned, false), None);
            let problem = refusal(&last, &turned, true).unwrap();
            assert!(
                problem.contains(&format!("another {what} when it was last")),
                "{problem}"
            );
        }
    }
}

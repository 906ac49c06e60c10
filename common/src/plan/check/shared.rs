//! Shared subscriptions beside others that overlap them: with MQTT 3.1.1 copies do not say what they come through.

use alloc::format;
use alloc::vec::Vec;

use super::validate::{Part, PlanFault, Problem};
use crate::plan::{Plan, Query};
use crate::topic::filter::Filter;

/// A warning for each query with a shared subscription that another query's topic overlaps, at the first such topic.
pub(super) fn crossings(plan: &Plan) -> impl Iterator<Item = PlanFault> {
    let filters: Vec<(&Query, Filter)> = { plan.queries.iter() }
        .filter_map(|query| Some((query, Filter::parse(&query.topic.filter())?)))
        .collect();
    let shared = plan.queries.iter().enumerate().filter_map(|(index, query)| {
        let filter = Filter::parse(&query.topic.filter())?;
        filter.group().is_some().then_some((index, query, filter))
    });
    shared.filter_map(move |(index, query, filter)| {
        let share_a_source = |other: &Query| match (&query.source, &other.source) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        let crosses = |(other, held): &&(&Query, Filter)| {
            *held != filter && held.meets(&filter) && share_a_source(other)
        };
        let (_, other) = filters.iter().find(crosses)?;
        let message = format!(
            "agents that speak MQTT 3.1.1 (`protocol = 4`) cannot tell which messages come through `{filter}` and which \
             through `{other}`, and count some of them twice"
        );
        let hint = "let such agents speak MQTT 5, or give the two queries topics without a message in common";
        Some(PlanFault {
            query: index,
            part: Part::Topic,
            problem: Problem {
                message,
                hint: hint.into(),
            },
        })
    })
}

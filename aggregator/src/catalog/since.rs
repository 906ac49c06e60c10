//! Since when the readings of a query are taken: before it came into the plan, agents took readings that it would have
//! counted, and nobody kept them. A window that had begun by then does not have all of its readings, however many agents
//! have passed its end, and its rows say so.
//!
//! The first plan of a database is another matter. Before it agents took nothing, so nothing that was taken is lacking,
//! and old readings that are published now are all there. The same holds for a query that comes to share the pipeline of
//! another: what that has kept, it reads.

use std::collections::BTreeMap;

use catchment_common::plan::PipelineId;
use catchment_common::time::Timestamp;

use crate::limits::PLAN_ROLLOUT;

/// How long a query has been in plans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The pipeline that it is on.
    pub pipeline: PipelineId,
    /// Since when what that keeps is kept.
    pub on_it: Timestamp,
    /// Since when the query's readings are taken, by this pipeline or those before it.
    pub since: Timestamp,
}

/// The standing of a query that is put on `pipeline` at `now`. `before` are the queries of the plan in force until now,
/// by name; none if this is the first plan.
pub fn standing(
    name: &str,
    pipeline: PipelineId,
    before: Option<&BTreeMap<String, Standing>>,
    now: Timestamp,
) -> Standing {
    let Some(before) = before else {
        let (on_it, since) = (Timestamp::MIN, Timestamp::MIN);
        return Standing {
            pipeline,
            on_it,
            since,
        };
    };
    let shared = before.values().filter(|other| other.pipeline == pipeline);
    let on_it = shared.map(|other| other.on_it).min();
    let on_it = on_it.unwrap_or_else(|| now.plus(PLAN_ROLLOUT));
    let since = before.get(name).map_or(on_it, |query| query.since.min(on_it));
    Standing {
        pipeline,
        on_it,
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn a_query_that_comes_later_lacks_what_its_pipeline_has_not_kept() {
        let later = at(100).plus(PLAN_ROLLOUT);
        let first = standing("old", PipelineId(1), None, at(1));
        let of = |name, pipeline, before: &[(&str, Standing)]| {
            let before = before
                .iter()
                .map(|(name, standing)| ((*name).to_owned(), *standing));
            let standing = standing(name, PipelineId(pipeline), Some(&before.collect()), at(100));
            (standing.on_it, standing.since)
        };
        assert_eq!((first.on_it, first.since), (Timestamp::MIN, Timestamp::MIN));
        assert_eq!(of("old", 1, &[("old", first)]), (Timestamp::MIN, Timestamp::MIN));
        assert_eq!(of("new", 1, &[("old", first)]), (Timestamp::MIN, Timestamp::MIN));
        assert_eq!(of("new", 2, &[("old", first)]), (later, later));
        assert_eq!(
            of("old", 2, &[("old", first)]),
            (later, Timestamp::MIN),
            "it reads both"
        );
        let moved = Standing {
            pipeline: PipelineId(2),
            on_it: at(50),
            since: Timestamp::MIN,
        };
        assert_eq!(
            of("new", 2, &[("old", moved)]),
            (at(50), at(50)),
            "it reads the second alone"
        );
    }
}

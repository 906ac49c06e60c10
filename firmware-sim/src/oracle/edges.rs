//! What was before a window, for answers that go on from there.
//!
//! All readings of a key are kept, field by field and in the order of their times; those before a window are looked up
//! when it is asked for.

use std::collections::BTreeSet;

use catchment_common::plan::Query;
use num_bigint::BigInt;

use super::series::Points;

/// The edges of one window, and for each field the points before it, as far back as its query looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edges {
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    pub(super) before: Vec<Points>,
}

/// All readings of a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    times: BTreeSet<i64>,
    fields: Vec<Points>,
}

impl Past {
    /// Adds a reading.
    pub fn add(&mut self, at_us: i64, values: &[Option<BigInt>]) {
        self.times.insert(at_us);
        let fields = values.len().max(self.fields.len());
        self.fields.resize(fields, Points::new());
        for (points, value) in self.fields.iter_mut().zip(values) {
            points.extend(value.as_ref().map(|value| (at_us, value.clone())));
        }
    }

    /// Whether there are readings from one instant until before another.
    pub fn has(&self, from_us: i64, until_us: i64) -> bool {
        self.times.range(from_us..until_us).next().is_some()
    }

    /// The points of a field from one instant until before another.
    pub fn points(&self, field: usize, from_us: i64, until_us: i64) -> Points {
        let least = |at_us| (at_us, BigInt::from(i128::MIN));
        let points = self.fields.get(field).into_iter();
        { points.flat_map(|points| points.range(least(from_us)..least(until_us))) }
            .cloned()
            .collect()
    }

    /// The edges of a window, as a query looks beyond them; none for one that does not.
    pub fn edges(&self, query: &Query, (start_us, end_us): (i64, i64)) -> Option<Edges> {
        let lookback = query.lookback().as_micros();
        (lookback > 0).then(|| Edges {
            start_us,
            end_us,
            before: (0..query.fields.len())
                .map(|field| self.points(field, start_us - lookback, start_us))
                .collect(),
        })
    }
}

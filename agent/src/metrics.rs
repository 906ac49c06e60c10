//! Counting, so that every reading is accounted for.
//!
//! One array of numbers for each pipeline and one for the agent itself. Counting is an addition; reporting gives only
//! what has changed since the last report, so that an idle agent's heartbeats stay small.

use std::collections::BTreeMap;

use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::wire::CounterSample;

/// Counters that concern the agent and no pipeline.
pub const AGENT: PipelineId = PipelineId(0);

/// Codes are bytes.
const CODES: usize = 256;

/// The counters of one pipeline.
#[derive(Clone, Debug)]
struct Row {
    values: [u64; CODES],
    reported: [u64; CODES],
    /// As of the journal's last group.
    journalled: [u64; CODES],
    /// As of the start.
    recovered: [u64; CODES],
}

/// All counters of an agent, cumulative over its restarts as long as its journal is kept. Pipelines that a plan no
/// longer has keep theirs.
#[derive(Debug, Default)]
pub struct Metrics {
    rows: Vec<Row>,
    places: BTreeMap<PipelineId, usize>,
}

/// Where a pipeline's counters are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(usize);

impl Metrics {
    /// The place of a pipeline's counters, made if need be.
    pub fn place(&mut self, pipeline: PipelineId) -> Place {
        let next = self.rows.len();
        let place = *self.places.entry(pipeline).or_insert(next);
        if place == next {
            self.rows.push(Row {
                values: [0; CODES],
                reported: [0; CODES],
                journalled: [0; CODES],
                recovered: [0; CODES],
            });
        }
        Place(place)
    }

    /// Counts `more` of something.
    #[inline]
    pub fn add(&mut self, place: Place, counter: Counter, more: u64) {
        let value = &mut self.rows[place.0].values[usize::from(counter.code())];
        *value = value.saturating_add(more);
    }

    /// Sets a counter that is counted elsewhere.
    pub fn set(&mut self, place: Place, counter: Counter, value: u64) {
        self.rows[place.0].values[usize::from(counter.code())] = value;
    }

    /// The value of a counter; 0 for a pipeline that never counted.
    pub fn value(&self, pipeline: PipelineId, counter: Counter) -> u64 {
        self.places
            .get(&pipeline)
            .map_or(0, |&place| self.rows[place].values[usize::from(counter.code())])
    }

    /// A counter over all pipelines.
    pub fn sum(&self, counter: Counter) -> u64 {
        let code = usize::from(counter.code());
        let values = self.rows.iter().map(|row| row.values[code]);
        values.fold(0, u64::saturating_add)
    }

    /// Rejected readings of all pipelines and reasons.
    pub fn rejected(&self) -> u64 {
        self.reasons().iter().map(|(_, count)| count).sum()
    }

    /// Rejected readings by reason, over all pipelines; only reasons that occurred.
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        self.over_all(|counter| matches!(counter, Counter::Rejected(_)))
    }

    /// Values that could not be used, by reason and place of their field, over all pipelines; only those that occurred.
    pub fn unusable(&self) -> Vec<(&'static str, u64)> {
        self.over_all(|counter| matches!(counter, Counter::Unusable(..)))
    }

    fn over_all(&self, of: impl Fn(&Counter) -> bool) -> Vec<(&'static str, u64)> {
        let count = |counter: Counter| {
            let code = usize::from(counter.code());
            let values = self.rows.iter().map(|row| row.values[code]);
            (counter.name(), values.fold(0, u64::saturating_add))
        };
        let all = Counter::all().filter(of).map(count);
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// What has changed since the last report, at most `limit` samples; the rest follows with the next.
    pub fn report(&mut self, limit: usize) -> Vec<CounterSample> {
        let mut samples = Vec::new();
        for (&pipeline, &place) in &self.places {
            let Row { values, reported, .. } = &mut self.rows[place];
            for (code, (&value, reported)) in values.iter().zip(reported).enumerate() {
                if value != *reported && samples.len() < limit {
                    *reported = value;
                    samples.push(CounterSample {
                        pipeline,
                        counter: code as u8,
                        value,
                    });
                }
            }
        }
        samples
    }

    /// By how much each of these counters has grown since the last call, and no more than once.
    pub fn increases(&mut self, of: impl Fn(u8) -> bool) -> Vec<CounterSample> {
        let mut samples = Vec::new();
        for (&pipeline, &place) in &self.places {
            let Row {
                values, journalled, ..
            } = &mut self.rows[place];
            if values == journalled {
                continue;
            }
            for (code, (&value, before)) in values.iter().zip(journalled).enumerate() {
                if !of(code as u8) {
                    continue;
                }
                // Counters that are set and not added to may fall; such are not of the journal.
                let increase = value.saturating_sub(*before);
                *before = value;
                if increase > 0 {
                    let counter = code as u8;
                    samples.push(CounterSample {
                        pipeline,
                        counter,
                        value: increase,
                    });
                }
            }
        }
        samples
    }

    /// All counters that are not zero.
    pub fn all(&self) -> Vec<CounterSample> {
        let mut samples = Vec::new();
        for (&pipeline, &place) in &self.places {
            let values = self.rows[place].values.iter().enumerate();
            samples.extend(
                values
                    .filter(|(_, value)| **value > 0)
                    .map(|(code, &value)| CounterSample {
                        pipeline,
                        counter: code as u8,
                        value,
                    }),
            );
        }
        samples
    }

    /// Adds what a journal has: all counters of a snapshot, or the increases since.
    pub fn restore(&mut self, samples: &[CounterSample]) {
        for sample in samples {
            let place = self.place(sample.pipeline);
            let code = usize::from(sample.counter).min(CODES - 1);
            let row = &mut self.rows[place.0];
            row.values[code] = row.values[code].saturating_add(sample.value);
            row.journalled[code] = row.values[code];
        }
    }

    /// Puts the counters of a snapshot in the place of all that was counted.
    pub fn replace(&mut self, samples: &[CounterSample]) {
        for row in &mut self.rows {
            row.values = [0; CODES];
            row.journalled = [0; CODES];
        }
        self.restore(samples);
    }

    /// All that is counted so far comes from before the start.
    pub fn note_recovered(&mut self) {
        for row in &mut self.rows {
            row.recovered = row.values;
        }
    }

    /// Forgets what was counted before the start: another era begins.
    pub fn forget_recovered(&mut self) {
        for row in &mut self.rows {
            for (value, before) in row.values.iter_mut().zip(row.recovered) {
                *value = value.saturating_sub(before);
            }
            row.recovered = [0; CODES];
            row.journalled = row.values;
        }
        self.report_all();
    }

    /// Forgets all that was counted: another era begins.
    pub fn forget_all(&mut self) {
        self.note_recovered();
        self.forget_recovered();
    }

    /// Pipelines are called otherwise from now on.
    pub fn rename(&mut self, ids: &BTreeMap<PipelineId, PipelineId>) {
        for (before, &after) in ids {
            let Some(from) = self.places.remove(before) else {
                continue;
            };
            let Some(&into) = self.places.get(&after) else {
                self.places.insert(after, from);
                continue;
            };
            let values = self.rows[from].values;
            for (value, more) in self.rows[into].values.iter_mut().zip(values) {
                *value = value.saturating_add(more);
            }
        }
    }

    /// Forgets what was reported, so that the next report is complete: a new link may lead to another aggregator.
    pub fn report_all(&mut self) {
        for row in &mut self.rows {
            row.reported = [0; CODES];
        }
    }
}

#[cfg(test)]
mod tests {
    use catchment_common::metrics::Reason;

    use super::*;

    #[test]
    fn codes_fit_the_rows() {
        assert!(Counter::all().all(|counter| usize::from(counter.code()) < CODES));
    }

    #[test]
    fn reports_give_what_changed_and_lose_nothing() {
        let mut metrics = Metrics::default();
        let (agent, pipeline) = (metrics.place(AGENT), metrics.place(PipelineId(3)));
        metrics.add(agent, Counter::Messages, 2);
        metrics.add(pipeline, Counter::Rejected(Reason::TooLate), 1);
        assert_eq!(metrics.report(1).len(), 1);
        let rest = metrics.report(9);
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].pipeline, PipelineId(3));
        assert!(metrics.report(9).is_empty());
        metrics.report_all();
        assert_eq!(metrics.report(9).len(), 2);
        assert_eq!(
            metrics.value(PipelineId(3), Counter::Rejected(Reason::TooLate)),
            1
        );
    }
}

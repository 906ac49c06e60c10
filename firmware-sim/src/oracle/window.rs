//! What is in one window of one key, and the exact answer to each aggregate.

use std::collections::BTreeMap;

use catchment_common::plan::{Aggregate, Column, Field, FieldKind, FieldSource, Query, Shown, Window};
use catchment_common::time::Span;
use num_bigint::BigInt;

use super::answer::Answer;
use super::decimal::power_of_ten;
use super::edges::Edges;
use super::reading::Reading;
use super::series::{self, Points};
use super::sketch::{self, Multiset};

/// The starts and ends of the windows that cover an event time, in microseconds: window k is
/// `[offset + k·every, offset + k·every + size)`.
pub fn covering(window: &Window, at_us: i64) -> Vec<(i64, i64)> {
    match window {
        Window::Hopping(hopping) => {
            let [size, every, offset] = [hopping.size, hopping.every, hopping.offset].map(Span::as_micros);
            let last = (at_us - offset).div_euclid(every);
            let first = (at_us - offset - size).div_euclid(every) + 1;
            let start = |number| number * every + offset;
            (first..=last)
                .map(|number| (start(number), start(number) + size))
                .collect()
        }
        Window::Calendar { period, zone, pane } => {
            vec![super::calendar::around(*period, zone, pane.as_micros(), at_us)]
        }
        // One reading alone; what overlaps is joined when all are known.
        Window::Session { gap } => vec![(at_us, at_us + gap.as_micros())],
        // In one, but its bounds are not known from the time.
        Window::Count { .. } => vec![(at_us, at_us)],
    }
}

/// Joins sessions of one key that overlap, given by their starts: each `[first, last + gap)`.
pub fn join_sessions(parts: BTreeMap<i64, (i64, Contents)>) -> BTreeMap<i64, (i64, Contents)> {
    let mut joined: BTreeMap<i64, (i64, Contents)> = BTreeMap::new();
    for (start, (end, contents)) in parts {
        match joined.last_entry() {
            Some(mut before) if start < before.get().0 => {
                let (last_end, all) = before.get_mut();
                *last_end = end;
                all.merge(&contents);
            }
            _ => {
                joined.insert(start, (end, contents));
            }
        }
    }
    joined
}

/// Everything that the truth puts into one window of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// How many readings.
    pub readings: u64,
    fields: Vec<Option<Values>>,
    /// For each aggregate that names a tag, the tag's values.
    watched: Vec<Multiset<String>>,
    keeps_values: bool,
    keeps_points: bool,
    /// What lies beyond its edges, if that matters.
    pub edges: Option<Edges>,
}

/// The values of one field, in units of 10⁻¹⁸.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Values {
    count: u64,
    sum: BigInt,
    squares: BigInt,
    min: BigInt,
    max: BigInt,
    /// Event time and value; of several at one time, the smallest.
    first: (i64, BigInt),
    /// Event time and value; of several at one time, the largest.
    last: (i64, BigInt),
    /// All of them, if an aggregate cannot do with less.
    all: Option<Multiset<BigInt>>,
    /// All of them with their times, if an aggregate needs those.
    points: Option<Points>,
}

impl Contents {
    /// An empty window of this query.
    pub fn new(query: &Query) -> Self {
        let needs_values = |aggregate: &Aggregate| {
            let of_values = matches!(aggregate, Aggregate::Histogram(_) | Aggregate::Distinct(_));
            of_values || aggregate.quantile().is_some()
        };
        let has_counter = query.fields.iter().any(|field| field.kind.is_counter());
        let needs_points = |aggregate: &Aggregate| match aggregate {
            Aggregate::Increase | Aggregate::TimeWeightedMean => true,
            Aggregate::Rate => has_counter,
            _ => false,
        };
        Self {
            readings: 0,
            fields: vec![None; query.fields.len()],
            watched: vec![Multiset::new(); query.aggregates.len()],
            keeps_values: query.aggregates.iter().any(needs_values),
            keeps_points: query.aggregates.iter().any(needs_points),
            edges: None,
        }
    }

    /// Adds a reading.
    pub fn add(&mut self, reading: &Reading) {
        self.readings += 1;
        for (field, value) in self.fields.iter_mut().zip(&reading.values) {
            let Some(value) = value else { continue };
            if let Some(values) = field {
                values.add(reading.at_us, value);
            } else {
                let (values, points) = (self.keeps_values, self.keeps_points);
                *field = Some(Values::new(reading.at_us, value, values, points));
            }
        }
        for (held, value) in self.watched.iter_mut().zip(&reading.watched) {
            if let Some(value) = value {
                *held.entry(value.clone()).or_default() += 1;
            }
        }
    }

    /// Adds all that another window has. Windows that overlap must not be put together.
    pub fn merge(&mut self, other: &Self) {
        self.edges = None;
        self.readings += other.readings;
        for (field, more) in self.fields.iter_mut().zip(&other.fields) {
            match (field, more) {
                (Some(values), Some(more)) => values.merge(more),
                (field @ None, Some(more)) => *field = Some(more.clone()),
                (_, None) => {}
            }
        }
        for (held, more) in self.watched.iter_mut().zip(&other.watched) {
            sketch::add(held, more);
        }
    }

    /// Adds what a window of this query would have of another one's contents: of the fields that both have, at the same
    /// resolution, and of the functions that both ask for.
    pub fn adopt(&mut self, query: &Query, other: &Self, of: &Query) {
        self.readings += other.readings;
        for (field, held) in query.fields.iter().zip(&mut self.fields) {
            let same = |(theirs, _): &(&Field, _)| {
                (&theirs.source, theirs.resolution) == (&field.source, field.resolution)
            };
            let more = of.fields.iter().zip(&other.fields).find(same);
            match (held, more.and_then(|(_, values)| values.as_ref())) {
                (Some(values), Some(more)) => values.merge(more),
                (held @ None, Some(more)) => *held = Some(more.clone()),
                (_, None) => {}
            }
        }
        for (aggregate, held) in query.aggregates.iter().zip(&mut self.watched) {
            let theirs = of.aggregates.iter().position(|theirs| theirs == aggregate);
            if let Some(more) = theirs.and_then(|place| other.watched.get(place)) {
                sketch::add(held, more);
            }
        }
    }

    /// How many values from this source it has, at whatever resolution; `of` is the query whose contents it is.
    pub fn values_from(&self, of: &Query, source: &FieldSource) -> u64 {
        let field = of.fields.iter().position(|field| field.source == *source);
        let values = field.and_then(|field| self.fields[field].as_ref());
        values.map_or(0, |values| values.count)
    }

    /// The answer to `count` or `rate`, of so many values over so much time.
    pub fn of_count(aggregate: &Aggregate, count: u64, size: Span) -> Answer {
        match aggregate {
            Aggregate::Rate if size == Span::ZERO => Answer::None,
            Aggregate::Rate => Answer::Fraction(BigInt::from(count) * 1_000_000, size.as_micros().into()),
            _ => Answer::Count(count),
        }
    }

    /// The answer to a column of the query.
    pub fn column(&self, query: &Query, column: &Column, size: Span) -> Answer {
        let aggregate = &query.aggregates[column.aggregate];
        if let Some(field) = column.field {
            let resolution = query.fields[field].resolution.map(BigInt::from);
            let kind = query.fields[field].kind;
            return self.of_field(field, aggregate, size, (resolution.as_ref(), kind));
        }
        match (aggregate, column.shown) {
            (Aggregate::Top { k, .. }, shown) => {
                let (text, others) = sketch::top(&self.watched[column.aggregate], usize::from(*k));
                match shown {
                    Shown::Answer => Answer::Text(text),
                    Shown::Error => Answer::Count(others),
                }
            }
            (Aggregate::Distinct(name), shown) => {
                let (estimate, error) = self.distinct(query, column.aggregate, name);
                match shown {
                    Shown::Answer => Answer::Count(estimate),
                    Shown::Error => Answer::Double(error),
                }
            }
            _ => Answer::None,
        }
    }

    fn distinct(&self, query: &Query, aggregate: usize, name: &str) -> (u64, f64) {
        let is_tag = query.topic.captures().any(|capture| capture == name)
            || query.tags.iter().any(|tag| tag.name == name);
        if is_tag {
            return sketch::distinct(
                self.watched[aggregate]
                    .keys()
                    .map(|value| sketch::tag_hash(value)),
            );
        }
        let field = query.fields.iter().position(|field| field.name == name);
        let values = field.and_then(|field| self.fields[field].as_ref()?.all.as_ref());
        sketch::distinct(
            values
                .into_iter()
                .flat_map(Multiset::keys)
                .map(sketch::value_hash),
        )
    }

    fn of_field(
        &self,
        field: usize,
        aggregate: &Aggregate,
        size: Span,
        (resolution, kind): (Option<&BigInt>, FieldKind),
    ) -> Answer {
        let no_points = Points::new();
        let points = self.fields[field].as_ref();
        let points = points
            .and_then(|values| values.points.as_ref())
            .unwrap_or(&no_points);
        let edges = self.edges.as_ref();
        let before = edges.map_or(&no_points, |edges| &edges.before[field]);
        match (aggregate, kind) {
            (Aggregate::Increase, _) => return series::increase(before, points, kind.rules()),
            (Aggregate::Rate, FieldKind::Counter(rules)) => return series::rate(before, points, rules),
            (Aggregate::TimeWeightedMean, _) => {
                let bounds = edges.map(|edges| (edges.start_us, edges.end_us));
                return series::time_weighted_mean(before.last(), points, bounds);
            }
            _ => {}
        }
        let nothing = Multiset::new();
        let all = self.fields[field]
            .as_ref()
            .and_then(|values| values.all.as_ref())
            .unwrap_or(&nothing);
        match (aggregate, aggregate.quantile()) {
            (Aggregate::Histogram(bounds), _) => Answer::Text(sketch::histogram(all, bounds)),
            (_, Some(quantile)) => sketch::quantile(all, quantile.0, resolution)
                .map_or(Answer::None, |units| Answer::Fraction(units, power_of_ten(18))),
            _ => self.answer(field, aggregate, size),
        }
    }

    /// The exact answer to an aggregate of a field that needs no sketch, by its index, over a window of this size.
    pub fn answer(&self, field: usize, aggregate: &Aggregate, size: Span) -> Answer {
        let values = self.fields.get(field).and_then(Option::as_ref);
        let count = values.map_or(0, |values| values.count);
        match (aggregate, values) {
            // All at one instant.
            (Aggregate::Count | Aggregate::Rate, _) => Self::of_count(aggregate, count, size),
            (_, None) => Answer::None,
            (_, Some(values)) => values.answer(aggregate),
        }
    }
}

impl Values {
    fn new(at_us: i64, value: &BigInt, keeps_all: bool, keeps_points: bool) -> Self {
        Self {
            points: keeps_points.then(|| Points::from([(at_us, value.clone())])),
            all: keeps_all.then(|| Multiset::from([(value.clone(), 1)])),
            count: 1,
            sum: value.clone(),
            squares: value * value,
            min: value.clone(),
            max: value.clone(),
            first: (at_us, value.clone()),
            last: (at_us, value.clone()),
        }
    }

    fn add(&mut self, at_us: i64, value: &BigInt) {
        self.count += 1;
        if let Some(all) = &mut self.all {
            *all.entry(value.clone()).or_default() += 1;
        }
        if let Some(points) = &mut self.points {
            points.insert((at_us, value.clone()));
        }
        self.sum += value;
        self.squares += value * value;
        if *value < self.min {
            self.min.clone_from(value);
        }
        if *value > self.max {
            self.max.clone_from(value);
        }
        if (at_us, value) < (self.first.0, &self.first.1) {
            self.first = (at_us, value.clone());
        }
        if (at_us, value) > (self.last.0, &self.last.1) {
            self.last = (at_us, value.clone());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        if let (Some(all), Some(more)) = (&mut self.all, &other.all) {
            sketch::add(all, more);
        }
        if let (Some(points), Some(more)) = (&mut self.points, &other.points) {
            points.extend(more.iter().cloned());
        }
        self.sum += &other.sum;
        self.squares += &other.squares;
        self.min = (&self.min).min(&other.min).clone();
        self.max = (&self.max).max(&other.max).clone();
        self.first = (&self.first).min(&other.first).clone();
        self.last = (&self.last).max(&other.last).clone();
    }

    fn answer(&self, aggregate: &Aggregate) -> Answer {
        let units = |units: BigInt| Answer::Fraction(units, power_of_ten(18));
        match aggregate {
            Aggregate::Count | Aggregate::Rate => Answer::Count(self.count),
            Aggregate::Sum => units(self.sum.clone()),
            Aggregate::Mean => Answer::Fraction(self.sum.clone(), power_of_ten(18) * self.count),
            Aggregate::Min => units(self.min.clone()),
            Aggregate::Max => units(self.max.clone()),
            Aggregate::Range => units(&self.max - &self.min),
            Aggregate::First => units(self.first.1.clone()),
            Aggregate::Last => units(self.last.1.clone()),
            Aggregate::Delta => units(&self.last.1 - &self.first.1),
            Aggregate::Variance => self
                .variance()
                .map_or(Answer::None, |(top, bottom)| Answer::Fraction(top, bottom)),
            Aggregate::Stddev => self
                .variance()
                .map_or(Answer::None, |(top, bottom)| Answer::Root(top, bottom)),
            Aggregate::Median
            | Aggregate::Quantile(_)
            | Aggregate::Histogram(_)
            | Aggregate::Distinct(_)
            | Aggregate::Top { .. }
            | Aggregate::Increase
            | Aggregate::TimeWeightedMean => Answer::None,
        }
    }

    /// (n·Σx² − (Σx)²) / (n·(n − 1)) as a fraction.
    fn variance(&self) -> Option<(BigInt, BigInt)> {
        if self.count < 2 {
            return None;
        }
        let count = BigInt::from(self.count);
        let top = &count * &self.squares - &self.sum * &self.sum;
        Some((top, &count * (&count - 1_u8) * power_of_ten(36)))
    }
}

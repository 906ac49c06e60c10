//! What must hold of count windows: laid along the readings in the order in which a gateway took them, each
//! row is what the next of them make.

use std::collections::BTreeMap;

use catchment_aggregator::catalog::RunningQuery;
use catchment_aggregator::commit::CountedRow;
use catchment_common::key::tags_of;
use catchment_common::metrics::Counter;
use catchment_common::plan::Query;
use catchment_common::time::Timestamp;
use catchment_firmware_sim::oracle::history::History;
use catchment_firmware_sim::oracle::reading::Reading;

use super::rows::differences;
use super::world::World;

/// The rows of one gateway and key, by number, and how its query was defined when each was last written.
type Rows<'r> = BTreeMap<Timestamp, (&'r CountedRow, &'r Query)>;

impl World<'_> {
    pub(super) fn check_counted(&mut self, running: &RunningQuery) -> Result<(), String> {
        let query = &running.query;
        let told = self.told(running);
        let accepted = told.accepted();
        let table = &self.centre.store.tables[&query.name];
        let family = self.centre.store.family(&query.name);
        let of_family = self
            .centre
            .store
            .losses
            .iter()
            .filter(|((_, _, _, pipeline, _), _)| family.contains(pipeline));
        let lost: u64 = of_family.map(|(_, (_, readings))| readings).sum();
        self.figures.counted_rows += table.counted.len() as u64;
        self.figures.readings += accepted;
        self.figures.lost += lost;
        if self.centre.removed.contains(&query.name) {
            // What was shown while a query was away is not promised.
            return Ok(());
        }
        let mut rows: BTreeMap<(String, String), Rows<'_>> = BTreeMap::new();
        for ((key, number), (row, _, shown)) in &table.counted {
            let tags: Vec<&str> = tags_of(key, query.row_tags().len())
                .into_iter()
                .flatten()
                .collect();
            let Some((agent, tags)) = tags.split_last() else {
                return Err(format!("{}: a row has no agent", query.name));
            };
            let of = rows.entry(((*agent).to_owned(), tags.join("\0"))).or_default();
            of.insert(*number, (row, &**shown));
        }
        let came_later = self.centre.added.contains_key(&query.name);
        let shown: u64 = table.counted.values().map(|(row, ..)| row.row.readings).sum();
        if shown + lost != accepted && !came_later {
            return Err(format!(
                "{}: {shown} readings are shown, {lost} reported lost, of {}",
                query.name, accepted
            ));
        }
        if lost > 0 {
            return Ok(());
        }
        let mut short = BTreeMap::<&str, u64>::new();
        let sequences: BTreeMap<_, _> = told.sequences().collect();
        for ((agent, key), rows) in &rows {
            let name = (agent.clone(), key.clone());
            let mut readings = sequences.get(&name).copied().unwrap_or_default();
            if came_later {
                // On a pipeline that others had: it shows what has come since.
                let shown: u64 = rows.values().map(|(row, _)| row.row.readings).sum();
                readings = &readings[readings.len().saturating_sub(shown as usize)..];
            }
            let cut = lay(&told, query, rows, readings)
                .map_err(|fault| format!("{} {key:?} of {agent}: {fault}", query.name))?;
            *short.entry(agent).or_default() += cut;
        }
        self.figures.cut_short += short.values().sum::<u64>();
        for gateway in &self.gateways {
            let Some(agent) = &gateway.agent else { continue };
            let told: u64 = { family.iter() }
                .map(|&pipeline| agent.metrics().value(pipeline, Counter::CutShort))
                .sum();
            let found = short.get(gateway.name()).copied().unwrap_or(0);
            if found > told {
                return Err(format!(
                    "{}: {} cut {found} windows short and tells of {told}",
                    query.name,
                    gateway.name()
                ));
            }
        }
        Ok(())
    }
}

/// Lays rows along readings; returns how many stay short of readings although others follow.
fn lay(told: &History, query: &Query, rows: &Rows<'_>, readings: &[(usize, Reading)]) -> Result<u64, String> {
    let limit = query.window.count().map_or(0, u64::from);
    let (mut rest, mut short) = (readings, 0);
    let last = rows.keys().next_back();
    for (number, (row, shown)) in rows {
        let count = row.row.readings;
        let Some((these, after)) = rest.split_at_checked(count as usize).filter(|_| count > 0) else {
            return Err(format!("{number:?} has {count} readings of {}", rest.len()));
        };
        rest = after;
        let window = told.counted(these);
        let size = (row.end.since(row.start), false);
        let mut faults = differences(told, shown, &row.row, (("", 0), &window), size);
        let start_us = these.iter().map(|(_, reading)| reading.at_us).min();
        if (Some(row.start.as_micros()), row.end.as_micros()) != (start_us, window.end_us) {
            faults.push(format!("from {:?} to {:?}", row.start, row.end));
        }
        if count > limit || row.is_final != (count == limit) {
            faults.push(format!("{count} readings of {limit}, final: {}", row.is_final));
        }
        short += u64::from(count < limit && Some(number) != last);
        if !faults.is_empty() {
            return Err(format!("{number:?}: {}", faults.join("; ")));
        }
    }
    if rest.is_empty() {
        Ok(short)
    } else {
        Err(format!("{} readings are in no row", rest.len()))
    }
}

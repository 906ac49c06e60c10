//! Deltas as agents send them: sections of one pane, and batches of sections.

use catchment_common::plan::PipelineId;
use catchment_common::stats::Stats;
use catchment_common::table::pane::kept;
use catchment_common::wire::{BatchWriter, Section};

use super::fleet::{self, Dice};
use super::{pipeline, timestamp};

/// So many keys of the plan's two tags, in order.
pub fn keys(count: usize) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..count)
        .map(|device| format!("site-{}\0device-{device:05}", device % 10).into_bytes())
        .collect();
    keys.sort();
    keys
}

/// Deltas of one pane: some keys, ten readings each, as an agent would send them.
pub fn section(id: PipelineId, keys: &[Vec<u8>], pane: i64, seed: u64) -> Section {
    let (pipeline, mut dice) = (pipeline(), Dice::new(seed));
    let mut section = Section::default();
    section.reset(id, timestamp(pane), kept(&pipeline.fields[..1]));
    for (device, key) in keys.iter().enumerate() {
        let mut stats = Stats::IDENTITY;
        for reading in 0..10 {
            let value = fleet::value(fleet::hundredths(
                device,
                (pane / 1_000_000) as usize + reading,
                &mut dice,
            ));
            stats.lift(
                section.keep[0],
                timestamp(pane + reading as i64 * 1_000_000),
                value,
            );
        }
        section.keys.push(key);
        section.readings.push(10);
        section.stats.push(stats);
    }
    section
}

/// A batch of these sections.
pub fn seal(sections: &[&Section], seq: u64) -> Vec<u8> {
    let (mut writer, mut frame) = (BatchWriter::default(), Vec::new());
    for section in sections {
        writer.push(section);
    }
    writer.seal(1, seq, &mut frame);
    frame
}

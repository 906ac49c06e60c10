//! A query that is defined otherwise while its windows are open, or after an absence.

use catchment_common::number::decimal::Value;
use catchment_common::plan::Components;
use catchment_common::stats::Stats;
use catchment_common::wire::{BatchWriter, Section};

use super::*;
use crate::plan_file::apply;

/// A plan whose one query has these functions and what else is said.
fn plan(aggregates: &str, more: &str) -> String {
    format!(
        "[[query]]\nname = \"q\"\ntopic = \"s/{{device}}\"\nkey = [\"device\"]\nfields = {{ v = \"v\" }}\n\
         window = {{ size = \"10s\" }}\naggregates = [{aggregates}]\nwatermark_delay = \"0s\"\n{more}"
    )
}

/// What the pane at 100 s has of these values of one key, as the pipeline in force keeps it.
fn batch_of_values(centre: &Centre, seq: u64, values: &[i64]) -> Vec<u8> {
    let id = own_pipelines(centre)[0];
    let keep: Vec<Components> = { centre.aggregator.catalog().pipelines[&id].fields.iter() }
        .map(|field| field.components)
        .collect();
    let mut section = Section::default();
    section.reset(id, at(100), keep.iter().copied());
    let mut stats = Stats::IDENTITY;
    for (seconds, value) in (100..).zip(values) {
        let value = Value::from_units(i128::from(*value) * 10_i128.pow(18)).unwrap();
        stats.lift(keep[0], at(seconds), value);
    }
    section.keys.push(b"x");
    section.readings.push(values.len() as u64);
    section.stats.push(stats);
    let mut writer = BatchWriter::default();
    writer.push(&section);
    let mut frame = Vec::new();
    writer.seal(1, seq, &mut frame);
    frame
}

/// Publishes these values for the window from 100 s to 110 s under one plan after the other; the window is shown after
/// the first.
fn through(folder: &std::path::Path, plans: &[(&str, &[i64])]) -> Centre {
    let mut plans = plans.iter().zip(1..);
    let ((first, values), _) = plans.next().unwrap();
    let mut centre = Centre::new(folder, &plan(first, ""));
    centre.greet(1, 1, "a", Vec::new());
    let frame = batch_of_values(&centre, 1, values);
    centre.frame(1, 1, frame);
    let mut beat = heartbeat(1, 1, 110);
    if let Ok(Message::Heartbeat(mut heartbeat)) = Message::parse(&beat) {
        heartbeat.watermarks[0].0 = own_pipelines(&centre)[0];
        beat = Message::Heartbeat(heartbeat).emit();
    }
    centre.frame(1, 1, beat);
    centre.settle(1);
    for ((aggregates, values), seq) in plans {
        let text = plan(aggregates, "");
        apply(&mut centre.writer, &text, "plan", at(seq)).unwrap();
        centre = centre.crash(seq);
        centre.greet(seq, seq as u64, "a", Vec::new());
        if !values.is_empty() {
            let frame = batch_of_values(&centre, seq as u64, values);
            centre.frame(seq, seq as u64, frame);
        }
        centre.settle(seq);
    }
    centre
}

#[test]
fn a_column_is_null_where_a_part_of_its_window_lacks_what_it_needs() {
    let all = "\"count\", \"sum\", \"mean\", \"min\", \"variance\", \"first\", \"delta\"";
    let columns = "SELECT readings, v_count, v_sum, v_mean, v_min, v_variance, v_first, v_delta FROM q";
    let folder = tempfile::tempdir().unwrap();
    let centre = through(folder.path(), &[("\"count\"", &[100, -100, 7]), (all, &[5, 6])]);
    assert_eq!(centre.rows(columns), ["5|5|-|-|-|-|-|-"]);
    // The sum was there all the time, the squares were not: with a part of them the variance could be negative.
    let folder = tempfile::tempdir().unwrap();
    let centre = through(
        folder.path(),
        &[("\"count\", \"sum\"", &[100, -100, 7]), (all, &[5, 6])],
    );
    assert_eq!(centre.rows(columns), ["5|5|18|3.6|-|-|-|-"]);
    let folder = tempfile::tempdir().unwrap();
    let centre = through(
        folder.path(),
        &[(all, &[100, -100, 7]), ("\"count\"", &[5]), (all, &[6])],
    );
    assert_eq!(centre.rows(columns), ["5|5|-|-|-|-|-|-"]);
}

#[test]
fn a_function_that_is_taken_out_says_nothing_in_rows_that_are_written_anew() {
    let columns = "SELECT readings, v_count, v_sum FROM q";
    let folder = tempfile::tempdir().unwrap();
    let plans: [(&str, &[i64]); 2] = [("\"count\", \"sum\"", &[1, 2]), ("\"count\"", &[])];
    let mut centre = through(folder.path(), &plans);
    centre
        .writer
        .connection()
        .execute_batch("ALTER TABLE q ADD COLUMN note TEXT; UPDATE q SET note = 'mine'")
        .unwrap();
    assert_eq!(centre.rows(columns), ["2|2|3"], "nothing has come");
    centre = centre.crash(3);
    centre.greet(3, 9, "a", Vec::new());
    let frame = batch_of_values(&centre, 3, &[4]);
    centre.frame(3, 9, frame);
    centre.settle(3);
    assert_eq!(centre.rows(columns), ["3|3|-"]);
    assert_eq!(
        centre.rows("SELECT note FROM q"),
        ["mine"],
        "a column that no plan had is left alone"
    );
}

#[test]
fn a_query_that_comes_back_is_compared_with_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut centre = Centre::new(folder.path(), &plan("\"count\"", ""));
    let without = plan("\"count\"", "").replace("name = \"q\"", "name = \"other\"");
    let mut apply =
        |text: &str| apply(&mut centre.writer, text, "plan", at(1)).map_err(|error| error.to_string());
    let revised = plan("\"count\"", "").replace("s/{device}", "t/{device}");
    apply(&revised).expect("a topic may be revised");
    for seconds in 0..3 {
        apply(&format!("{without}\n# {seconds}")).unwrap();
    }
    let hour = revised.replace("10s", "1h");
    let refused = apply(&hour).unwrap_err();
    assert!(
        refused.contains("`q`") && refused.contains("windows were of another kind"),
        "{refused}"
    );
    let back = plan("\"count\"", "");
    let refused = apply(&back).unwrap_err();
    assert!(
        refused.contains("another topic when it was last in the plan"),
        "{refused}"
    );
    let narrow = format!("{revised}where = \"$.v > 0\"\n");
    let refused = apply(&narrow).unwrap_err();
    assert!(refused.contains("another condition"), "{refused}");
    apply(&revised).expect("as it was");
    apply(&narrow).expect("it is there again, and may be revised");
}

//! Rows by hand against the truth, and every kind of difference.

use catchment_common::plan::Aggregate;

use super::*;
use crate::oracle::Oracle;
use crate::oracle::tests::{good, plan, query};

fn verifier(payloads: &[&str]) -> Verifier {
    let mut query = query(60, 60);
    query.aggregates = vec![Aggregate::Count, Aggregate::Mean, Aggregate::Stddev];
    let mut oracle = Oracle::new(&plan(vec![query]));
    for payload in payloads {
        oracle.handle(&good(payload));
    }
    Verifier::new(oracle.into_queries().remove(0), Losses::default())
}

fn row(readings: i64, mean: f64) -> Row {
    Row {
        start: "1970-01-01T00:01:00.000Z".into(),
        end: "1970-01-01T00:02:00.000Z".into(),
        tags: vec!["oslo".into(), "dev-1".into()],
        is_merged: false,
        is_final: true,
        number: None,
        is_coarse: false,
        readings: Cell::Integer(readings),
        values: vec![
            Cell::Integer(3),
            Cell::Real(mean),
            Cell::Real(0.1),
            Cell::Integer(0),
            Cell::Null,
            Cell::Null,
        ],
    }
}

const PAYLOADS: [&str; 3] = [
    r#"{"ts":60000,"temp":0.1}"#,
    r#"{"ts":60001,"temp":0.2}"#,
    r#"{"ts":60002,"temp":0.3}"#,
];

fn check(rows: &[Row], expected: &str) -> Vec<String> {
    let mut verifier = verifier(&PAYLOADS);
    for row in rows {
        verifier.handle_row(row);
    }
    let comparison = verifier.finish();
    assert_eq!(comparison.to_string(), expected);
    assert_eq!(
        comparison.is_equal(),
        expected == "1 rows, 1 equal, 0 different, 0 missing, 0 extra"
    );
    comparison.differences
}

#[test]
fn right_rows_are_equal() {
    check(&[row(3, 0.2)], "1 rows, 1 equal, 0 different, 0 missing, 0 extra");
}

#[test]
fn one_last_place_is_a_difference() {
    let wrong = row(3, 0.2_f64.next_up());
    let differences = check(&[wrong], "1 rows, 0 equal, 1 different, 0 missing, 0 extra");
    let expected = "different: room_climate 1970-01-01T00:01:00.000Z [oslo, dev-1]: \
                    temp_mean is 0.20000000000000004, truth 0.20000000000000000000";
    assert_eq!(differences, [expected]);
    check(&[row(2, 0.2)], "1 rows, 0 equal, 1 different, 0 missing, 0 extra");
    let wrong_type = Row {
        readings: Cell::Other("3".into()),
        ..row(3, 0.2)
    };
    check(&[wrong_type], "1 rows, 0 equal, 1 different, 0 missing, 0 extra");
}

#[test]
fn missing_and_extra_rows_are_found() {
    let differences = check(&[], "0 rows, 0 equal, 0 different, 1 missing, 0 extra");
    let expected = "missing: room_climate 1970-01-01T00:01:00.000Z [oslo, dev-1]: the truth has 3 readings";
    assert_eq!(differences, [expected]);
    check(
        &[row(3, 0.2), row(3, 0.2)],
        "2 rows, 1 equal, 0 different, 0 missing, 1 extra",
    );
    for (start, end) in [
        ("1970-01-01T00:01:00Z", "1970-01-01T00:02:00.000Z"),
        ("1970-01-01T00:01:00.000Z", "1970-01-01T00:02:00.001Z"),
        ("1970-01-01T00:01:01.000Z", "1970-01-01T00:02:01.000Z"),
        ("x", "y"),
    ] {
        let odd = Row {
            start: start.into(),
            end: end.into(),
            ..row(3, 0.2)
        };
        check(
            &[row(3, 0.2), odd],
            "2 rows, 1 equal, 0 different, 0 missing, 1 extra",
        );
    }
}

#[test]
fn totals_add_up_and_show_the_first_differences_only() {
    let mut total = Comparison::default();
    let one = Comparison {
        rows: 2,
        equal: 1,
        extra: 1,
        differences: vec!["x".into()],
        ..Comparison::default()
    };
    (0..20).for_each(|_| total.add(&one));
    assert_eq!(
        total.to_string(),
        "40 rows, 20 equal, 0 different, 0 missing, 20 extra"
    );
    assert_eq!(total.differences.len(), DIFFERENCES_MAX);
    assert!(!total.is_equal());
}

const HOUR: [&str; 5] = [
    r#"{"ts":60000,"temp":1}"#,
    r#"{"ts":61000,"temp":4}"#,
    r#"{"ts":120000,"temp":2}"#,
    r#"{"ts":7200000,"temp":9}"#,
    r#"{"ts":7200001,"temp":8}"#,
];

/// A row from one minute to another of readings with this count, mean, min and max.
fn plain(is_coarse: bool, minutes: (i64, i64), readings: i64, temp: (f64, f64, f64)) -> Row {
    let (mean, min, max) = temp;
    Row {
        is_merged: false,
        is_final: true,
        number: None,
        start: format_time(minutes.0 * 60_000_000),
        end: format_time(minutes.1 * 60_000_000),
        tags: vec!["oslo".into(), "dev-1".into()],
        is_coarse,
        readings: Cell::Integer(readings),
        values: vec![
            Cell::Integer(readings),
            Cell::Real(mean),
            Cell::Real(min),
            Cell::Real(max),
            Cell::Integer(0),
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ],
    }
}

fn check_coarse(every: i64, losses: Losses, rows: &[Row], expected: &str, fault: &str) {
    let mut query = query(60, every);
    query.aggregates = vec![Aggregate::Count, Aggregate::Mean, Aggregate::Min, Aggregate::Max];
    query.coarsen = [300, 3_600].map(catchment_common::time::Span::from_secs).into();
    let mut oracle = Oracle::new(&plan(vec![query]));
    for payload in HOUR {
        oracle.handle(&good(payload));
    }
    let mut verifier = Verifier::new(oracle.into_queries().remove(0), losses);
    for row in rows {
        verifier.handle_row(row);
    }
    let comparison = verifier.finish();
    assert_eq!(comparison.to_string(), expected, "{:?}", comparison.differences);
    assert_eq!(comparison.is_equal(), fault.is_empty());
    let shown = comparison.differences.join("\n");
    assert!(shown.contains(fault), "{shown}");
}

fn far() -> Row {
    plain(false, (120, 121), 2, (8.5, 8.0, 9.0))
}

#[test]
fn a_coarse_row_and_what_is_left_of_its_windows_make_the_whole() {
    let none = Losses::default;
    // The first hour in one coarse row, in a coarse row and a part of a window, and in coarse rows of two widths.
    let all = plain(true, (0, 60), 3, (7.0 / 3.0, 1.0, 4.0));
    check_coarse(
        60,
        none(),
        &[all, far()],
        "1 rows, 1 equal, 0 different, 0 missing, 0 extra, 0 partial, 1 coarse covering 3 readings, 0 lost",
        "",
    );
    let two = plain(true, (0, 5), 2, (3.0, 2.0, 4.0));
    let one = plain(false, (1, 2), 1, (1.0, 1.0, 1.0));
    check_coarse(
        60,
        none(),
        &[two.clone(), one, far()],
        "2 rows, 1 equal, 0 different, 0 missing, 0 extra, 1 partial, 1 coarse covering 2 readings, 0 lost",
        "",
    );
    let rest = plain(true, (0, 60), 1, (1.0, 1.0, 1.0));
    check_coarse(
        60,
        none(),
        &[two, rest, far()],
        "1 rows, 1 equal, 0 different, 0 missing, 0 extra, 0 partial, 2 coarse covering 3 readings, 0 lost",
        "",
    );
}

#[test]
fn what_coarse_rows_must_not_be_is_found() {
    let none = Losses::default;
    let check =
        |row: Row, expected: &str, fault: &str| check_coarse(60, none(), &[row, far()], expected, fault);
    let summary = |different: u64, readings: u64| {
        format!(
            "1 rows, 1 equal, {different} different, 0 missing, 0 extra, 0 partial, 1 coarse covering {readings} readings, 0 lost"
        )
    };
    let hour = (0, 60);
    check(
        plain(true, hour, 2, (3.0, 2.0, 4.0)),
        &summary(1, 2),
        "lack 1 readings",
    );
    check(
        plain(true, hour, 4, (1.75, 1.0, 4.0)),
        &summary(2, 4),
        "have 4 readings, the truth 3",
    );
    check(
        plain(true, hour, 3, (7.0 / 3.0, 2.0, 4.0)),
        &summary(1, 3),
        "min of temp over coarse and other rows is 2.0, truth 1.0",
    );
    check(
        plain(true, hour, 3, (2.4, 1.0, 4.0)),
        &summary(1, 3),
        "sum of temp",
    );
    check(
        plain(true, (0, 50), 3, (7.0 / 3.0, 1.0, 4.0)),
        &summary(1, 3),
        "no pane of the query's ladder",
    );
}

#[test]
fn a_window_beside_a_coarse_row_must_not_pass_the_truth() {
    let rows = [
        plain(true, (0, 60), 1, (2.0, 2.0, 2.0)),
        plain(false, (1, 2), 2, (2.0, 0.0, 4.0)),
        far(),
    ];
    let expected =
        "2 rows, 1 equal, 3 different, 0 missing, 0 extra, 0 partial, 1 coarse covering 1 readings, 0 lost";
    check_coarse(60, Losses::default(), &rows, expected, "temp_min is 0.0, truth 1");
}

#[test]
fn what_agents_lost_is_missing_where_they_say_and_nowhere_else() {
    let losses = |from: i64, to: i64, readings| Losses {
        ranges: vec![(from * 60_000_000, to * 60_000_000)],
        readings,
        unknown: 0,
    };
    let first = plain(false, (1, 2), 1, (4.0, 4.0, 4.0));
    let second = plain(false, (2, 3), 1, (2.0, 2.0, 2.0));
    let rows = [first, second, far()];
    let right =
        "3 rows, 2 equal, 0 different, 0 missing, 0 extra, 1 partial, 0 coarse covering 0 readings, 1 lost";
    check_coarse(60, losses(1, 2, 1), &rows, right, "");
    let more =
        "3 rows, 2 equal, 1 different, 0 missing, 0 extra, 1 partial, 0 coarse covering 0 readings, 2 lost";
    check_coarse(
        60,
        losses(1, 2, 2),
        &rows,
        more,
        "agents lost 2 readings, and the rows lack 1",
    );
    let elsewhere =
        "3 rows, 2 equal, 2 different, 0 missing, 0 extra, 0 partial, 0 coarse covering 0 readings, 1 lost";
    check_coarse(60, losses(2, 3, 1), &rows, elsewhere, "readings is 1, truth 2");
}

#[test]
fn with_windows_that_overlap_all_rows_of_a_key_add_up() {
    // Each reading is in two windows of 60 s every 30 s, or in one coarse row.
    let rows = |readings| {
        [
            plain(true, (0, 5), readings, (7.0 / 3.0, 1.0, 4.0)),
            Row {
                start: format_time(7_170_000_000),
                end: format_time(7_230_000_000),
                ..far()
            },
            far(),
        ]
    };
    let right =
        "2 rows, 2 equal, 0 different, 0 missing, 0 extra, 0 partial, 1 coarse covering 3 readings, 0 lost";
    check_coarse(30, Losses::default(), &rows(3), right, "");
    let wrong =
        "2 rows, 2 equal, 1 different, 0 missing, 0 extra, 0 partial, 1 coarse covering 2 readings, 0 lost";
    check_coarse(30, Losses::default(), &rows(2), wrong, "lack 1 readings");
}

#[test]
fn windows_of_so_many_readings_are_laid_along_the_order_of_publishing() {
    let mut query = query(60, 60);
    query.window = plan::Window::Count { readings: 2 };
    query.aggregates = vec![Aggregate::Sum, Aggregate::Rate];
    let times = [(100, 1), (90, 2), (104, 4), (104, 8), (70, 16)];
    let row = |number, agent: &str, start: i64, end: i64, readings, values: [Option<f64>; 2]| Row {
        start: format_time(start * 1_000_000),
        end: format_time(end * 1_000_000),
        tags: vec!["oslo".into(), "dev-1".into(), agent.into()],
        is_coarse: false,
        is_merged: false,
        is_final: readings == 2,
        number: Some(number),
        readings: Cell::Integer(readings),
        // Each aggregate of the two fields, of which `hum` is never there.
        values: vec![
            values[0].map_or(Cell::Null, Cell::Real),
            values[1].map_or(Cell::Null, Cell::Real),
            Cell::Null,
            if values[1].is_some() {
                Cell::Real(0.0)
            } else {
                Cell::Null
            },
        ],
    };
    let compare = |rows: &[Row]| {
        let mut oracle = Oracle::new(&plan(vec![query.clone()]));
        for (ts, temp) in times {
            oracle.handle(&good(&format!(r#"{{"ts":{ts}000,"temp":{temp}}}"#)));
        }
        let mut verifier = Verifier::new(oracle.into_queries().remove(0), Losses::default());
        for row in rows {
            verifier.handle_row(row);
        }
        let comparison = verifier.finish();
        (
            comparison.is_equal() && comparison.extra == 0,
            comparison.to_string(),
        )
    };
    let first = row(7, "a", 90, 100, 2, [Some(3.0), Some(0.2)]);
    let second = row(9, "a", 104, 104, 2, [Some(12.0), None]);
    let third = row(10, "a", 70, 70, 1, [Some(16.0), None]);
    let all = [second.clone(), third.clone(), first.clone()];
    assert_eq!(
        compare(&all),
        (true, "3 rows, 3 equal, 0 different, 0 missing, 0 extra".into())
    );
    let (is_right, text) = compare(&[first.clone(), second.clone()]);
    assert!(
        is_right && text.ends_with(", 1 readings in open windows"),
        "{text}"
    );
    // Two agents that both took everything.
    let other = |row: &Row| Row {
        tags: vec!["oslo".into(), "dev-1".into(), "b".into()],
        ..row.clone()
    };
    let both = [first.clone(), second.clone(), third.clone(), other(&first)];
    assert_eq!(
        compare(&both).1,
        "4 rows, 4 equal, 0 different, 1 missing, 0 extra, 1 readings in open windows"
    );
    let wrong = |change: &dyn Fn(&mut Row)| {
        let mut rows = all.to_vec();
        change(&mut rows[0]);
        assert!(!compare(&rows).0, "{rows:?}");
    };
    wrong(&|row| row.number = Some(6));
    wrong(&|row| row.number = Some(10));
    wrong(&|row| row.number = None);
    wrong(&|row| row.readings = Cell::Integer(1));
    wrong(&|row| row.readings = Cell::Integer(3));
    wrong(&|row| row.is_final = false);
    wrong(&|row| row.end = format_time(105_000_000));
    wrong(&|row| row.values[0] = Cell::Real(12.5));
    wrong(&|row| row.values[1] = Cell::Real(0.0));
}

#[test]
fn sessions_and_what_has_become_part_of_them() {
    let mut query = query(60, 60);
    query.window = plan::Window::Session {
        gap: Span::from_secs(10),
    };
    query.aggregates = vec![Aggregate::Sum];
    let session = |start: &str, end: &str, is_merged, readings, sum: Option<f64>| Row {
        start: format!("1970-01-01T00:0{start}.000Z"),
        end: format!("1970-01-01T00:0{end}.000Z"),
        tags: vec!["oslo".into(), "dev-1".into()],
        is_coarse: false,
        is_merged,
        is_final: true,
        number: None,
        readings: Cell::Integer(readings),
        values: vec![sum.map_or(Cell::Null, Cell::Real), Cell::Null],
    };
    let compare = |rows: &[Row]| {
        let mut oracle = Oracle::new(&plan(vec![query.clone()]));
        // In no order; 129 and 139 are ten seconds apart.
        for (ts, temp) in [(139, 8), (120, 2), (111, 1), (129, 4)] {
            let payload = format!(r#"{{"ts":{ts}000,"temp":{temp}}}"#);
            oracle.handle(&good(&payload));
        }
        let mut verifier = Verifier::new(oracle.into_queries().remove(0), Losses::default());
        for row in rows {
            verifier.handle_row(row);
        }
        verifier.finish().to_string()
    };
    let merged = session("2:00", "2:10", true, 0, None);
    let right = [
        merged.clone(),
        session("1:51", "2:19", false, 3, Some(7.0)),
        session("2:19", "2:29", false, 1, Some(8.0)),
    ];
    assert_eq!(
        compare(&right),
        "2 rows, 2 equal, 0 different, 0 missing, 0 extra, 1 merged"
    );
    let stale = [
        right[1].clone(),
        right[2].clone(),
        session("2:00", "2:10", false, 1, Some(2.0)),
    ];
    assert_eq!(
        compare(&stale),
        "3 rows, 2 equal, 0 different, 0 missing, 1 extra"
    );
    let of_nothing = [
        session("2:19", "2:29", true, 0, None),
        right[1].clone(),
        right[2].clone(),
    ];
    assert_eq!(
        compare(&of_nothing),
        "2 rows, 2 equal, 1 different, 0 missing, 0 extra, 1 merged"
    );
    let not_empty = [
        session("2:00", "2:10", true, 1, None),
        right[1].clone(),
        right[2].clone(),
    ];
    assert!(compare(&not_empty).contains("1 different"));
}

//! The commands `verify` and `audit`: truth files and a database in, a report and a verdict out.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::database::{Database, DatabaseFault};
use super::truth_file::{self, TruthFault};
use crate::audit::{Account, Traffic};
use crate::oracle::Oracle;
use crate::verify::{Comparison, Verifier};

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckFault {
    /// A truth file is at fault.
    #[error(transparent)]
    Truth(#[from] TruthFault),
    /// The database is at fault.
    #[error(transparent)]
    Database(#[from] DatabaseFault),
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Report(#[from] std::io::Error),
}

/// Whether everything is as it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is.
    Right,
    /// It is not; the report says why.
    Wrong,
}

/// Compares every row of every query's table with the truth, and writes the report to `out`.
pub fn verify(truth: &[PathBuf], database: &Path, out: &mut impl Write) -> Result<Verdict, CheckFault> {
    let database = Database::open(database)?;
    let mut oracle = Oracle::new(&database.plan()?);
    for file in truth {
        truth_file::read(file, |entry| oracle.handle(entry))?;
    }
    let mut total = Comparison::default();
    for expected in oracle.into_queries() {
        let name = expected.query.name.clone();
        if !expected.is_known() {
            writeln!(
                out,
                "{name}: skipped: its time is the arrival time, which the truth does not know"
            )?;
            continue;
        }
        let query = expected.query.clone();
        let mut verifier = Verifier::new(expected, database.losses(&name)?);
        database.rows(&query, |row| verifier.handle_row(row))?;
        let comparison = verifier.finish();
        writeln!(out, "{name}: {comparison}")?;
        total.add(&comparison);
    }
    for difference in &total.differences {
        writeln!(out, "  {difference}")?;
    }
    writeln!(out, "total: {total}")?;
    Ok(if total.is_equal() {
        Verdict::Right
    } else {
        Verdict::Wrong
    })
}

/// Accounts for every reading of every query, and writes the report to `out`.
pub fn audit(truth: &[PathBuf], database: &Path, out: &mut impl Write) -> Result<Verdict, CheckFault> {
    let database = Database::open(database)?;
    let mut oracle = Oracle::counting(&database.plan()?);
    for file in truth {
        truth_file::read(file, |entry| oracle.handle(entry))?;
    }
    let counters = database.counters()?;
    let mut verdict = Verdict::Right;
    for expected in oracle.queries() {
        let name = &expected.query.name;
        let (rows, losses) = (database.row_readings(name)?, database.losses(name)?);
        let pipeline = database.pipeline(name)?;
        let account = Account::new(
            &expected.query,
            &expected.metrics,
            rows,
            losses.readings,
            pipeline,
            &counters,
        );
        write!(out, "{}", account.show())?;
        if losses.unknown > 0 {
            writeln!(out, "  agents report {} losses of unknown size", losses.unknown)?;
        }
        if !account.is_balanced() {
            verdict = Verdict::Wrong;
        }
    }
    writeln!(out, "{}", Traffic::new(oracle.payload_bytes(), &counters).show())?;
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use catchment_common::plan::Aggregate;
    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::*;
    use crate::fault::Bad;
    use crate::io::truth_file::TruthWriter;
    use crate::oracle::tests::{good, plan, query};
    use crate::truth::Entry;

    /// Two truth files and a database that agree: four readings of which one is bad, in one window.
    struct Files {
        directory: TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self {
                directory: tempfile::tempdir().unwrap(),
            };
            let bad = Entry::Bad {
                topic: "sensors/oslo/dev-1/env".into(),
                bad: Bad::TooLate,
            };
            let first = [
                good(r#"{"ts":60000,"temp":0.1}"#),
                good(r#"{"ts":60001,"temp":0.2}"#),
            ];
            let second = [bad, good(r#"{"ts":60002,"temp":0.3}"#)];
            for (path, entries) in files.truth().iter().zip([first, second]) {
                let mut writer = TruthWriter::create(path).unwrap();
                for entry in &entries {
                    writer.write(entry).unwrap();
                }
                writer.finish().unwrap();
            }
            let mut query = query(60, 60);
            query.aggregates = vec![Aggregate::Mean];
            let definition = catchment_common::wire::emit_plan(&plan(vec![query]));
            files.sql(
                "CREATE TABLE catchment_plan (version INTEGER, definition BLOB);
                 CREATE TABLE catchment_query (name TEXT, pipeline INTEGER);
                 INSERT INTO catchment_query VALUES ('room_climate', 4);
                 CREATE TABLE catchment_reader (query TEXT, pipeline INTEGER);
                 INSERT INTO catchment_reader VALUES ('room_climate', 4);
                 CREATE TABLE catchment_pipeline (id INTEGER, coarser_of INTEGER);
                 INSERT INTO catchment_pipeline VALUES (4, 0), (5, 4), (6, 0);
                 CREATE TABLE catchment_loss (pipeline INTEGER, from_us INTEGER, to_us INTEGER, readings INTEGER);
                 CREATE TABLE catchment_counter (pipeline INTEGER, name TEXT, value INTEGER);
                 INSERT INTO catchment_counter VALUES (4, 'rejected_too_late', 1), (0, 'uplink_bytes', 8), (0, 'link_bytes', 16);
                 CREATE TABLE room_climate (window_start TEXT, window_end TEXT, site TEXT, device TEXT,
                     coarse INTEGER, status TEXT, revision INTEGER, readings INTEGER, temp_mean REAL, hum_mean REAL);
                 INSERT INTO room_climate VALUES ('1970-01-01T00:01:00.000Z', '1970-01-01T00:02:00.000Z', 'oslo',
                     'dev-1', 0, 'final', 1, 3, 0.2, NULL);",
            );
            let connection = Connection::open(files.database()).unwrap();
            connection
                .execute("INSERT INTO catchment_plan VALUES (1, ?1)", [definition])
                .unwrap();
            files
        }

        fn truth(&self) -> [PathBuf; 2] {
            ["a.jsonl", "b.jsonl"].map(|name| self.directory.path().join(name))
        }

        fn database(&self) -> PathBuf {
            self.directory.path().join("catchment.db")
        }

        fn sql(&self, text: &str) {
            Connection::open(self.database())
                .unwrap()
                .execute_batch(text)
                .unwrap();
        }

        fn verify(&self) -> (Verdict, String) {
            let mut report = Vec::new();
            let verdict = verify(&self.truth(), &self.database(), &mut report).unwrap();
            (verdict, String::from_utf8(report).unwrap())
        }

        fn audit(&self) -> (Verdict, String) {
            let mut report = Vec::new();
            let verdict = audit(&self.truth(), &self.database(), &mut report).unwrap();
            (verdict, String::from_utf8(report).unwrap())
        }
    }

    #[test]
    fn right_tables_pass() {
        let files = Files::new();
        let line = "1 rows, 1 equal, 0 different, 0 missing, 0 extra\n";
        assert_eq!(
            files.verify(),
            (Verdict::Right, format!("room_climate: {line}total: {line}"))
        );
        let expected = "room_climate: 4 readings published = 3 in results + 1 rejected + 0 lost: balanced\n  \
                        rejected too_late: 1\nuplink 8 bytes, 16 with QUIC and TLS, for 69 bytes of payload: 8.6 and 4.3 times less\n";
        assert_eq!(files.audit(), (Verdict::Right, expected.into()));
    }

    #[test]
    fn a_wrong_value_is_shown_with_the_right_one() {
        let files = Files::new();
        files.sql("UPDATE room_climate SET temp_mean = 0.25");
        let (verdict, report) = files.verify();
        assert_eq!(verdict, Verdict::Wrong);
        assert!(
            report.contains("temp_mean is 0.25, truth 0.20000000000000000000"),
            "{report}"
        );
    }

    #[test]
    fn a_lost_row_is_missing_and_out_of_balance() {
        let files = Files::new();
        files.sql("DELETE FROM room_climate");
        let (verdict, report) = files.verify();
        assert_eq!(verdict, Verdict::Wrong);
        assert!(
            report.ends_with("total: 0 rows, 0 equal, 0 different, 1 missing, 0 extra\n"),
            "{report}"
        );
        let (verdict, report) = files.audit();
        assert_eq!(verdict, Verdict::Wrong);
        assert!(report.contains("NOT BALANCED: 3 are missing"), "{report}");
    }

    #[test]
    fn what_cannot_be_compared_is_an_error_that_says_why() {
        let files = Files::new();
        files.sql("DROP TABLE room_climate");
        let fault = verify(&files.truth(), &files.database(), &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(
            fault.starts_with("the table of query `room_climate` cannot be read"),
            "{fault}"
        );
        files.sql("DELETE FROM catchment_plan");
        let fault = verify(&files.truth(), &files.database(), &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert_eq!(fault, "the database holds no plan");
    }
}

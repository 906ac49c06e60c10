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
            writeln!(out, "{name}: skipped: its time is the arrival time, which the truth does not know")?;
            continue;
        }
        let query = expected.query.clone();
        let mut verifier = Verifier::new(expected);
        database.rows(&query, |row| verifier.handle_row(row))?;
        let comparison = verifier.finish();
        writeln!(out, "{name}: {comparison}")?;
        total.add(&comparison);
    }
    for difference in &total.differences {
        writeln!(out, "  {difference}")?;
    }
    writeln!(out, "total: {total}")?;
    Ok(if total.is_equal() { Verdict::Right } else { Verdict::Wrong })
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
        let (row_readings, slice) = (database.row_readings(name)?, database.slice(name)?);
        let account = Account::new(&expected.query, &expected.tally, row_readings, slice, &counters);
        write!(out, "{}", account.show())?;
        if !account.is_balanced() {
            verdict = Verdict::Wrong;
        }
    }
    writeln!(out, "{}", Traffic::new(&counters).show())?;
    Ok(verdict)
}

#[cfg(test)]
mod tests;

//! Publishes a recorded series, at its own pace or faster.
//!
//! The file is read twice: once to check every row, so that a bad one stops the replay before anything is published,
//! and once to publish.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rumqttc::QoS;
use tokio::time::{Instant, sleep_until};

use super::link::{BrokerUrl, Link};
use super::run::{Progress, RunFault};
use super::truth_file::TruthWriter;
use crate::series::{self, BadRow, Point};
use crate::truth::Entry;

/// Longest wait between two looks at whether the replay is to end.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// What is replayed, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file: `timestamp,value` and a row for each reading.
    pub csv: PathBuf,
    /// Where to publish; `{device}` is filled in.
    pub topic: String,
    /// The device's name.
    pub device: String,
    /// What the value is called in the payload.
    pub value_name: String,
    /// Seconds of event time per second; `None` is flat out.
    pub speed: Option<f64>,
    /// The broker.
    pub broker: BrokerUrl,
    /// At least once, or at most once.
    pub qos: QoS,
    /// Where the truth is written.
    pub truth: PathBuf,
    /// Whether to go on with that file rather than start it anew.
    pub append: bool,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reader's error.
        error: csv::Error,
    },
    /// A row is wrong.
    #[error("{}:{line}: {error}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        error: BadRow,
    },
    /// Publishing failed.
    #[error(transparent)]
    Run(#[from] RunFault),
}

/// Replays a series until its last message is acknowledged and the truth is on disk.
pub async fn replay(options: &Options, progress: &Progress) -> Result<(), ReplayFault> {
    for point in points(&options.csv)? {
        point?;
    }
    let truth = if options.append {
        TruthWriter::append
    } else {
        TruthWriter::create
    };
    let mut truth = truth(&options.truth).map_err(RunFault::from)?;
    let topic = series::topic(&options.topic, &options.device);
    let client_id = format!("replay-{}-{}", options.device, std::process::id());
    let mut link = Link::new(&options.broker, &client_id, options.qos);
    let begin = Instant::now();
    let mut first_ms = None;
    for point in points(&options.csv)? {
        let point = point?;
        let offset_ms = point.at_ms - *first_ms.get_or_insert(point.at_ms);
        wait(begin, offset_ms, options.speed, progress).await;
        if progress.is_stopping() {
            break;
        }
        let payload = point.payload(&options.value_name);
        link.publish(&topic, payload.clone().into_bytes(), false)
            .await
            .map_err(RunFault::from)?;
        progress.count(payload.len(), false);
        let entry = Entry::Good {
            topic: topic.as_str().into(),
            payload: payload.into(),
        };
        truth.write(&entry).map_err(RunFault::from)?;
    }
    link.finish().await.map_err(RunFault::from)?;
    Ok(truth.finish().map_err(RunFault::from)?)
}

/// Waits until a reading so far into the series is due. Series that go back in time do not wait.
async fn wait(begin: Instant, offset_ms: i64, speed: Option<f64>, progress: &Progress) {
    let Some(speed) = speed else { return };
    let Ok(offset) = Duration::try_from_secs_f64(offset_ms as f64 / 1_000.0 / speed) else {
        return;
    };
    let Some(due) = begin.checked_add(offset) else {
        return;
    };
    while Instant::now() < due && !progress.is_stopping() {
        sleep_until(due.min(Instant::now() + WAIT_MAX)).await;
    }
}

/// The points of a file, each checked. The csv crate takes LF, CRLF and a missing last line feed.
fn points(path: &Path) -> Result<impl Iterator<Item = Result<Point, ReplayFault>>, ReplayFault> {
    let fault = |path: &Path, error| ReplayFault::File {
        path: path.into(),
        error,
    };
    let file = File::open(path).map_err(|error| fault(path, error.into()))?;
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(file);
    let header = reader.headers().map_err(|error| fault(path, error))?;
    let header: Vec<&str> = header
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}'))
        .collect();
    if header != ["timestamp", "value"] {
        let error = BadRow::Header(header.join(","));
        return Err(ReplayFault::Row {
            path: path.into(),
            line: 1,
            error,
        });
    }
    let path = path.to_path_buf();
    Ok(reader.into_records().map(move |record| {
        let record = record.map_err(|error| fault(&path, error))?;
        let point = match (record.get(0), record.get(1), record.len()) {
            (Some(timestamp), Some(value), 2) => Point::parse(timestamp, value),
            _ => Err(BadRow::Columns(record.len())),
        };
        let line = record.position().map_or(0, csv::Position::line);
        point.map_err(|error| ReplayFault::Row {
            path: path.clone(),
            line,
            error,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Point>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.csv");
        std::fs::write(&path, text).unwrap();
        let result = points(&path).and_then(Iterator::collect);
        result.map_err(|error| {
            error
                .to_string()
                .replace(&*directory.path().to_string_lossy(), "")
        })
    }

    #[test]
    fn line_ends_do_not_matter() {
        let expected = read("timestamp,value\n1000,1.50\n2000,2\n").unwrap();
        assert_eq!(expected.len(), 2);
        assert_eq!(
            expected[0],
            Point {
                at_ms: 1_000,
                value: "1.50".into()
            }
        );
        assert_eq!(read("timestamp,value\r\n1000,1.50\r\n2000,2").unwrap(), expected);
        assert_eq!(read("timestamp,value\n").unwrap(), []);
    }

    #[test]
    fn bad_rows_are_named_by_their_line() {
        let fault = |text: &str| read(text).unwrap_err();
        assert!(
            fault("timestamp,value\n1000,1\n2000,x\n").starts_with("/s.csv:3: `x` is not a decimal number")
        );
        assert!(fault("timestamp,value\nsoon,1\n").starts_with("/s.csv:2: `soon` is not a time"));
        assert_eq!(
            fault("timestamp,value\n1000\n"),
            "/s.csv:2: the row has 1 columns; expected `timestamp,value`"
        );
        assert!(fault("time,temp\n").starts_with("/s.csv:1: the header is `time,temp`"));
        assert!(fault("").contains("/s.csv:1: the header is ``"));
    }
}

//! Truth files: written line by line while publishing, read line by line while checking.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::truth::{BadLine, Entry};

/// Longest line read. The fleet writes far shorter ones; a file of another kind must not fill the memory.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why a truth file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TruthFault {
    /// Reading or writing failed.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        error: BadLine,
    },
    /// A line is longer than any that this program writes.
    #[error("{}:{line}: the line is longer than 1 MiB", path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// A truth file that is being written.
#[derive(Debug)]
pub struct TruthWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TruthWriter {
    /// Starts a new file, in place of an old one.
    pub fn create(path: &Path) -> Result<Self, TruthFault> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Goes on with a file, or starts it.
    pub fn append(path: &Path) -> Result<Self, TruthFault> {
        Self::open(path, OpenOptions::new().append(true).create(true))
    }

    fn open(path: &Path, options: &OpenOptions) -> Result<Self, TruthFault> {
        let file = options.open(path).map_err(|error| fault(path, error))?;
        Ok(Self {
            path: path.into(),
            file: BufWriter::new(file),
        })
    }

    /// Writes one line.
    pub fn write(&mut self, entry: &Entry<'_>) -> Result<(), TruthFault> {
        writeln!(self.file, "{}", entry.emit()).map_err(|error| fault(&self.path, error))
    }

    /// Writes what is still buffered and closes the file.
    pub fn finish(self) -> Result<(), TruthFault> {
        let Self { path, file } = self;
        file.into_inner()
            .map(drop)
            .map_err(|error| fault(&path, error.into_error()))
    }
}

/// Hands every entry of a file to `handle`.
pub fn read(path: &Path, mut handle: impl FnMut(&Entry<'_>)) -> Result<(), TruthFault> {
    let mut file = BufReader::new(File::open(path).map_err(|error| fault(path, error))?);
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let length = file
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_line(&mut text)
            .map_err(|error| fault(path, error))?;
        if length == 0 {
            break;
        }
        if length as u64 == LINE_BYTES_MAX {
            return Err(TruthFault::Long {
                path: path.into(),
                line,
            });
        }
        let entry = Entry::parse(text.trim_end_matches('\n'));
        handle(&entry.map_err(|error| TruthFault::Line {
            path: path.into(),
            line,
            error,
        })?);
    }
    Ok(())
}

fn fault(path: &Path, error: std::io::Error) -> TruthFault {
    TruthFault::File {
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_appended_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("truth.jsonl");
        let entry = |payload: &'static str| Entry::Good {
            topic: "t".into(),
            payload: payload.into(),
        };
        for (mut file, payload) in [
            (TruthWriter::create(&path).unwrap(), "1"),
            (TruthWriter::append(&path).unwrap(), "2"),
        ] {
            file.write(&entry(payload)).unwrap();
            file.finish().unwrap();
        }
        let mut lines = Vec::new();
        read(&path, |entry| lines.push(entry.emit())).unwrap();
        assert_eq!(lines, [entry("1").emit(), entry("2").emit()]);
        TruthWriter::create(&path).unwrap().finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn wrong_lines_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("truth.jsonl");
        let fault = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path, |_| {}).unwrap_err().to_string()
        };
        let good = r#"{"topic":"t","payload":""}"#;
        assert!(fault(&format!("{good}\n{{}}\n")).contains("truth.jsonl:2: not a line of truth"));
        assert!(fault(&"x".repeat(2 << 20)).ends_with("truth.jsonl:1: the line is longer than 1 MiB"));
        assert!(
            read(&directory.path().join("none"), |_| {})
                .unwrap_err()
                .to_string()
                .contains("none: ")
        );
    }
}

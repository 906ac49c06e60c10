//! One server for one database: a lock that ends with its process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Held while a database is served, or replaced.
#[derive(Debug)]
pub struct DatabaseLock {
    _file: File,
}

impl DatabaseLock {
    /// Takes the lock of a database; refused while another process has it.
    pub fn take(database: &Path) -> Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let shown = Path::new(&path).display();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("{shown}: cannot make the lock file"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "{}: another catchment-aggregator serves this database; stop it first",
                database.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("{shown}: cannot lock")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_served_once() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("c.db");
        let lock = DatabaseLock::take(&database).unwrap();
        let error = DatabaseLock::take(&database).unwrap_err().to_string();
        assert!(error.ends_with("another catchment-aggregator serves this database; stop it first"));
        drop(lock);
        DatabaseLock::take(&database).unwrap();
    }
}

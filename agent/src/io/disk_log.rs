//! What the operator hears of a disk that fails: when it begins, when the reason is another, when it is over, and once
//! in a while meanwhile. A read-only disk is tried each second for as long as it takes, and says nothing new.

use catchment_common::time::{Instant, Span};

use crate::log::disk::DiskFault;

/// A failure that goes on is told of this often.
const REMINDER: Span = Span::from_secs(60);

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct DiskLog {
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    fault: DiskFault,
    failures: u64,
    told: Instant,
}

impl DiskLog {
    /// The disk failed; with how often it has since it last worked, if that is worth telling now.
    pub(super) fn fails(&mut self, fault: &DiskFault, now: Instant) -> Option<u64> {
        let failures = self.failing.as_ref().map_or(0, |failing| failing.failures) + 1;
        let is_old = |failing: &Failing| failing.fault == *fault && now.since(failing.told) < REMINDER;
        if let Some(failing) = self.failing.as_mut().filter(|failing| is_old(failing)) {
            failing.failures = failures;
            return None;
        }
        self.failing = Some(Failing {
            fault: fault.clone(),
            failures,
            told: now,
        });
        Some(failures)
    }

    /// The disk did its job; with how often it had failed before, if it had.
    pub(super) fn works(&mut self) -> Option<u64> {
        self.failing.take().map(|failing| failing.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_failure_is_told_when_it_begins_and_changes_and_once_a_minute() {
        let mut log = DiskLog::default();
        let read_only = DiskFault::Other("read-only file system".into());
        assert_eq!(log.works(), None);
        let told: Vec<(u64, u64)> = (0..150)
            .filter_map(|second| Some((second, log.fails(&read_only, at(second))?)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 61), (120, 121)]);
        assert_eq!(log.fails(&DiskFault::Full, at(150)), Some(151), "another reason");
        assert_eq!(log.fails(&DiskFault::Full, at(151)), None);
        assert_eq!(log.works(), Some(152));
        assert_eq!(log.works(), None, "it is told once");
        assert_eq!(log.fails(&DiskFault::Full, at(152)), Some(1), "and begins anew");
    }
}

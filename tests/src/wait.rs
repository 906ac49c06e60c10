//! Waiting for facts. Limits are generous: they end a test that hangs and judge nobody's speed.

use std::time::{Duration, Instant};

/// How long anything may take before the test gives up.
pub const LIMIT: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `probe` has an answer, and fails with `what` when that takes too long.
#[allow(
    clippy::disallowed_methods,
    reason = "the harness is a rim: it waits for real processes"
)]
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(begin.elapsed() < LIMIT, "waited in vain for: {what}");
        std::thread::sleep(PAUSE);
    }
}

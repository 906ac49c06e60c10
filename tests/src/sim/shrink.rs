//! A failing case made smaller: faults and messages are left out as long as it still fails.

use super::case::Case;
use super::run;

/// Runs that shrinking may take.
const RUNS_MAX: usize = 400;

/// A smaller case that fails as well.
pub fn shrink(case: &Case) -> Case {
    let mut best = case.clone();
    let mut runs = 0;
    loop {
        let before = (best.faults.len(), best.publishes.len());
        thin(&mut best, &mut runs, |case| &mut case.faults);
        thin(&mut best, &mut runs, |case| &mut case.publishes);
        if before == (best.faults.len(), best.publishes.len()) || runs >= RUNS_MAX {
            return best;
        }
    }
}

/// Leaves out ever smaller runs of one list.
fn thin<T: Clone>(best: &mut Case, runs: &mut usize, list: impl Fn(&mut Case) -> &mut Vec<T>) {
    let mut size = list(best).len().div_ceil(2);
    while size > 0 && *runs < RUNS_MAX {
        let mut from = 0;
        while from < list(best).len() && *runs < RUNS_MAX {
            let mut fewer = best.clone();
            let held = list(&mut fewer);
            held.drain(from..(from + size).min(held.len()));
            *runs += 1;
            if run(&fewer).is_err() {
                *best = fewer;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
}

//! A failing case made smaller: faults and messages are left out as long as it still fails in the same way. A smaller case
//! that fails in another way is another case: it may be of a world in which less is promised.

use super::case::Case;
use super::run;

/// Runs that shrinking may take.
const RUNS_MAX: usize = 400;

/// A smaller case that fails in the same way.
pub fn shrink(case: &Case) -> Case {
    let mut best = case.clone();
    let mut runs = 0;
    let Err(fault) = run(case) else {
        return best;
    };
    let kind = kind_of(&fault);
    let fails = |case: &Case| run(case).is_err_and(|fault| kind_of(&fault) == kind);
    loop {
        let before = (best.faults.len(), best.publishes.len());
        thin(&mut best, &mut runs, &fails, |case| &mut case.faults);
        thin(&mut best, &mut runs, &fails, |case| &mut case.publishes);
        if before == (best.faults.len(), best.publishes.len()) || runs >= RUNS_MAX {
            return best;
        }
    }
}

/// Leaves out ever smaller runs of one list.
fn thin<T: Clone>(
    best: &mut Case,
    runs: &mut usize,
    fails: &impl Fn(&Case) -> bool,
    list: impl Fn(&mut Case) -> &mut Vec<T>,
) {
    let mut size = list(best).len().div_ceil(2);
    while size > 0 && *runs < RUNS_MAX {
        let mut from = 0;
        while from < list(best).len() && *runs < RUNS_MAX {
            let mut fewer = best.clone();
            let held = list(&mut fewer);
            held.drain(from..(from + size).min(held.len()));
            *runs += 1;
            if fails(&fewer) {
                *best = fewer;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
}

/// What a fault is about: its first clause without its numbers and names.
fn kind_of(fault: &str) -> String {
    let clause = fault.split(';').next().unwrap_or(fault);
    let mut quoted = clause.split('"');
    let plain = std::iter::from_fn(|| {
        let outside = quoted.next()?;
        quoted.next();
        Some(outside)
    });
    plain
        .collect::<String>()
        .chars()
        .filter(|character| !character.is_ascii_digit() && *character != '-')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_one_kind_differ_in_numbers_and_names_alone() {
        let rows = "climate: \"site1\\0g0d184\" -50 to -40 s: 1 readings, truth 3; and 120 more";
        let other = "climate: \"site2\\0g0d1\" 0 to 10 s: 70 readings, truth 144; and 3 more";
        assert_eq!(kind_of(rows), kind_of(other));
        assert_ne!(
            kind_of(rows),
            kind_of("gw-0's journal takes 300000 bytes of disk, more than 278528")
        );
    }
}

//! Putting plans into force: the file that the configuration names, at start, and any file, by command.
//!
//! The newest word holds, whoever says it. A file that the configuration names is put into force when it has changed
//! since it was last taken, and at no other start: otherwise each restart, and each crash, would undo what an operator
//! has applied since. A text that is in force already makes no new version.

use catchment_common::sketch::hash;
use catchment_common::time::Timestamp;

use crate::plan_toml::{self, PlanErrors};
use crate::store::{PlanFile, Store, StoreFault};

/// Why a plan is not put into force.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApplyFault {
    /// Its text has faults.
    #[error(transparent)]
    Plan(#[from] PlanErrors),
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// The version that is in force, and whether it is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InForce {
    /// The plan's version.
    pub version: u64,
    /// Whether it was made now.
    pub is_new: bool,
}

/// What became of the configured file at a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtStart {
    /// It has changed, and this version of it is in force now.
    Applied(u64),
    /// It is what is in force.
    InForce,
    /// It has not changed since it was last taken, and another plan has been applied since.
    Superseded,
}

/// Checks a plan's text and puts it into force, unless it is in force already. `name` is the file's, for messages.
pub fn apply(store: &mut impl Store, text: &str, name: &str, now: Timestamp) -> Result<InForce, ApplyFault> {
    let plan = plan_toml::parse(text, name)?;
    if store.plan_source()?.as_deref() == Some(text) {
        return Ok(InForce {
            version: store.plan_version()?,
            is_new: false,
        });
    }
    Ok(InForce {
        version: store.apply_plan(plan, text, now)?,
        is_new: true,
    })
}

/// A start with a configuration that names the file at `path`, which has this text.
pub fn at_start(
    store: &mut impl Store,
    path: &str,
    text: &str,
    now: Timestamp,
) -> Result<AtStart, ApplyFault> {
    let file = PlanFile {
        path: path.to_owned(),
        hash: hash(text.as_bytes()),
    };
    let taken = store.plan_file()?;
    let in_force = store.plan_source()?.as_deref() == Some(text);
    // Of a database that has remembered no file yet, the plans that were ever applied say whether this was one of them.
    let is_known = match &taken {
        Some(taken) => taken.hash == file.hash,
        None => store.had_plan(text)?,
    };
    let outcome = if in_force {
        AtStart::InForce
    } else if is_known {
        AtStart::Superseded
    } else {
        AtStart::Applied(apply(store, text, path, now)?.version)
    };
    if taken.as_ref() != Some(&file) {
        store.set_plan_file(Some(&file))?;
    }
    Ok(outcome)
}

/// A start with a configuration that names no file.
pub fn at_start_without(store: &mut impl Store) -> Result<(), StoreFault> {
    if store.plan_file()?.is_some() {
        store.set_plan_file(None)?;
    }
    Ok(())
}

/// A file is applied by command; `path` is where it is. If a configured file lies elsewhere, its path is returned: it
/// will be put into force again when it changes.
pub fn by_command(
    store: &mut impl Store,
    path: &str,
    text: &str,
    now: Timestamp,
) -> Result<(InForce, Option<String>), ApplyFault> {
    let applied = apply(store, text, path, now)?;
    let Some(configured) = store.plan_file()? else {
        return Ok((applied, None));
    };
    if configured.path != path {
        return Ok((applied, Some(configured.path)));
    }
    let hash = hash(text.as_bytes());
    store.set_plan_file(Some(&PlanFile { hash, ..configured }))?;
    Ok((applied, None))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Reads;
    use crate::store::memory::Memory;
    use crate::testing::at;

    const FILE: &str = "/etc/plan.toml";

    fn plan(number: u8) -> String {
        format!(
            "[[query]]\nname = \"q{number}\"\ntopic = \"s/{{device}}\"\nkey = [\"device\"]\nfields = {{ v = \"v\" }}\n\
             window = {{ size = \"10s\" }}\naggregates = [\"count\"]\n"
        )
    }

    #[derive(Clone, Debug)]
    enum Step {
        Edit(u8),
        ApplyFile,
        ApplyOther(u8),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..3).prop_map(Step::Edit),
            Just(Step::ApplyFile),
            (0_u8..3).prop_map(Step::ApplyOther),
            Just(Step::Restart),
        ]
    }

    proptest! {
        /// The newest word is in force: a command's at once, the file's at the first start after it was edited.
        #[test]
        fn the_newest_word_is_in_force(steps in prop::collection::vec(step(), 0..20)) {
            let mut store = Memory::default();
            let (mut file, mut taken, mut in_force) = (0, None, None);
            for step in std::iter::once(Step::Restart).chain(steps) {
                let before = store.plan_version().unwrap();
                let was = in_force;
                match step {
                    Step::Edit(number) => file = number,
                    Step::ApplyFile => {
                        by_command(&mut store, FILE, &plan(file), at(1)).unwrap();
                        (in_force, taken) = (Some(file), Some(file));
                    }
                    Step::ApplyOther(number) => {
                        let other = by_command(&mut store, "/etc/other.toml", &plan(number), at(1)).unwrap().1;
                        prop_assert_eq!(other.as_deref(), Some(FILE), "it is said");
                        in_force = Some(number);
                    }
                    Step::Restart => {
                        let outcome = at_start(&mut store, FILE, &plan(file), at(1)).unwrap();
                        if taken != Some(file) {
                            (in_force, taken) = (Some(file), Some(file));
                        }
                        let is_applied = matches!(outcome, AtStart::Applied(_));
                        prop_assert_eq!(is_applied, was != in_force);
                        prop_assert_eq!(outcome == AtStart::Superseded, in_force != Some(file));
                    }
                }
                prop_assert_eq!(store.plan_source().unwrap(), in_force.map(plan));
                let is_new = store.plan_version().unwrap() > before;
                prop_assert_eq!(is_new, was != in_force, "an unchanged text makes no new version");
            }
        }
    }

    /// A database of before remembers no file, but all plans: one of them is not put into force again.
    #[test]
    fn the_first_start_after_an_upgrade_undoes_nothing() {
        let mut store = Memory::default();
        for number in 0..2 {
            apply(&mut store, &plan(number), "plan", at(1)).unwrap();
        }
        assert_eq!(
            at_start(&mut store, FILE, &plan(0), at(1)),
            Ok(AtStart::Superseded)
        );
        assert_eq!(store.plan_source(), Ok(Some(plan(1))));
        assert_eq!(
            at_start(&mut store, FILE, &plan(2), at(1)),
            Ok(AtStart::Applied(3))
        );
        // Back to what it was: that is a change.
        assert_eq!(
            at_start(&mut store, FILE, &plan(0), at(1)),
            Ok(AtStart::Applied(4))
        );
        at_start_without(&mut store).unwrap();
        assert_eq!(store.plan_file(), Ok(None));
    }

    #[test]
    fn a_plan_with_faults_changes_nothing() {
        let mut store = Memory::default();
        at_start(&mut store, FILE, &plan(0), at(1)).unwrap();
        let fault = at_start(&mut store, FILE, "[[query]]", at(1));
        assert!(matches!(fault, Err(ApplyFault::Plan(_))));
        assert_eq!(store.plan_version(), Ok(1));
        // It is tried again at the next start.
        assert!(at_start(&mut store, FILE, "[[query]]", at(1)).is_err());
    }
}

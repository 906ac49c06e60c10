//! The plan in force, and what a plan would cost.

use catchment_common::plan::{Plan, PlanCost, PlannedPipelines};

use super::{AskFault, Question};
use crate::plan_toml::{self, Budget, PlanErrors};
use crate::store::lookup::Lookup;

/// Asks for the plan in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InForce;

/// The plan in force.
#[derive(Clone, PartialEq, Debug)]
pub struct PlanAnswer {
    /// Its version; 0 if there is none yet.
    pub version: u64,
    /// Its text, as an operator wrote it.
    pub source: String,
    /// The names of its queries.
    pub queries: Vec<String>,
}

impl Question for InForce {
    type Answer = PlanAnswer;

    fn ask(&self, store: &impl Lookup) -> Result<PlanAnswer, AskFault> {
        let plan = store.plan()?;
        Ok(PlanAnswer {
            version: plan.version,
            source: store.plan_source()?.unwrap_or_default(),
            queries: plan.queries.into_iter().map(|query| query.name).collect(),
        })
    }
}

/// What a plan would make agents do.
#[derive(Debug)]
pub struct Checked {
    /// The plan.
    pub plan: Plan,
    /// Its pipelines.
    pub planned: PlannedPipelines,
    /// What they cost an agent.
    pub cost: PlanCost,
    /// What is allowed and may not be meant.
    pub warnings: Vec<String>,
}

/// Checks a plan's text. `name` is the file's, for messages.
pub fn check(text: &str, name: &str, budget: Budget) -> Result<Checked, PlanErrors> {
    let (plan, warnings) = plan_toml::parse_within(text, name, Some(budget))?;
    let planned = plan.pipelines();
    Ok(Checked {
        cost: planned.cost(),
        planned,
        plan,
        warnings,
    })
}

//! What had to be given up.

use super::{AskFault, Question};
use crate::store::lookup::{Lookup, LossRow};

/// Asks for losses, the latest data first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Losses {
    /// Only this agent's.
    pub agent: Option<String>,
}

impl Question for Losses {
    type Answer = Vec<LossRow>;

    fn ask(&self, store: &impl Lookup) -> Result<Vec<LossRow>, AskFault> {
        Ok(store.losses(self.agent.as_deref())?)
    }
}

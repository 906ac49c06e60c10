//! Worlds that are drawn for some seeds, from dice of their own: brokers with habits, and gateways whose clocks are wrong
//! when they boot.

use catchment_common::plan::Query;
use catchment_common::time::Span;
use catchment_firmware_sim::dice::Dice;

use super::case::{Case, Fault, MS};
use super::habits::Habits;
use super::plans;

impl Case {
    /// Brokers have habits, and topics overlap.
    pub(super) fn draw_habits(&mut self, dice: &mut Dice) {
        self.plan = plans::Variant::overlapping(dice);
        for (_, fault) in &mut self.faults {
            if let Fault::Plan(variant) = fault {
                *variant = plans::Variant::overlapping(dice);
            }
        }
        self.habits = Habits::draw(dice);
        if self.habits.are_nameless() {
            self.faults.retain(|(_, fault)| !matches!(fault, Fault::Plan(_)));
        }
        let is_kept = dice.below(4) == 0 && self.habits.identifies;
        self.earlier = is_kept.then(|| plans::Variant::overlapping(dice));
    }

    /// In one world of eight, the gateways boot hours behind, with the time that was saved last.
    pub(super) fn boot_behind(&mut self, dice: &mut Dice) {
        if dice.below(8) > 0 {
            return;
        }
        self.behind = 1_000 + i64::from(dice.below(100_000));
        self.faults
            .retain(|(_, fault)| !matches!(fault, Fault::Clock { .. }));
        for gateway in 0..self.gateways {
            let at = u64::from(dice.below(20_000)) * MS;
            self.faults.push((at, Fault::Clock { gateway, offset: 0 }));
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// The queries of a plan, as this world has them: where clocks may be wrong no reading may be far ahead of them.
    pub(super) fn queries(&self, plan: plans::Variant) -> Vec<Query> {
        let mut queries = plan.queries();
        for query in queries.iter_mut().filter(|_| self.behind > 0) {
            query.max_ahead = Span::from_secs(600);
        }
        queries
    }
}

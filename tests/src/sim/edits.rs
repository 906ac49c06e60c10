//! Plans that an operator edits while data flows: queries come, go, come back and change in every way that a plan can.
//!
//! A chain of edits is drawn from a seed. Each edit makes one plan out of the one before. Some edits ask for what the
//! centre must refuse (another window or key under the same name, or a query that comes back with another meaning):
//! those leave no trace, and the next edit begins with the plan before.

use std::fmt::Write as _;

use catchment_common::plan::Query;
use catchment_firmware_sim::dice::Dice;

/// Queries of a plan at the start, at most.
const QUERIES_MAX: u32 = 3;

const AGGREGATES: [&str; 20] = [
    "count",
    "rate",
    "sum",
    "mean",
    "min",
    "max",
    "range",
    "variance",
    "stddev",
    "first",
    "last",
    "delta",
    "median",
    "p90",
    "histogram(-20, 0, 0.5, 100)",
    "distinct(device)",
    "distinct(temp)",
    "top(2, room)",
    "time_weighted_mean",
    "increase",
];
/// Functions that are not of count windows.
const OF_POINTS: [&str; 3] = ["time_weighted_mean", "increase", "rate"];
const TOPICS: [&str; 3] = [
    "s/{site}/{device}/env",
    "s/{site}/{device}/+",
    "s/{site}/{device}/power",
];
const FILTERS: [&str; 4] = [
    "",
    "",
    "where = \"watts > 0\"\n",
    "where = \"$.temp > -100 && $.temp < 100\"\n",
];
const FIELDS: [&str; 3] = ["watts", "temp", "hum"];
const RESOLUTIONS: [&str; 4] = ["", "", "0.5", "0.1"];

/// A query of a plan that is edited.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Draft {
    name: String,
    topic: &'static str,
    time: &'static str,
    filter: &'static str,
    key: Vec<&'static str>,
    /// Name, and resolution if there is one.
    fields: Vec<(&'static str, &'static str)>,
    window: String,
    aggregates: Vec<&'static str>,
    watermark_delay: &'static str,
    idle: &'static str,
}

/// What an edit asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// The centre takes it.
    Allowed,
    /// The centre must refuse it.
    Refused,
}

#[derive(Clone, Debug)]
struct Plan {
    queries: Vec<Draft>,
    gone: Vec<Draft>,
    named: u32,
}

/// The plan after so many edits of the chain of this seed, as TOML, and whether the last of them is allowed.
pub fn plan(seed: u64, edits: u32) -> (String, Asked) {
    let mut dice = Dice::new(seed, 20);
    let mut plan = Plan {
        queries: Vec::new(),
        gone: Vec::new(),
        named: 0,
    };
    for _ in 0..=dice.below(QUERIES_MAX) {
        plan.add(&mut dice);
    }
    for edit in 1..=edits {
        let before = plan.clone();
        let asked = plan.edit(&mut dice);
        if edit == edits {
            return (plan.text(), asked);
        }
        if asked == Asked::Refused {
            plan = before;
        }
    }
    (plan.text(), Asked::Allowed)
}

/// Why the centre must refuse a plan of these queries after those plans: what stands in a query's table would mean
/// something else.
pub fn must_be_refused(plans: &[catchment_common::plan::Plan], queries: &[Query]) -> Option<String> {
    queries.iter().find_map(|query| {
        let with_it = |plan: &catchment_common::plan::Plan| {
            plan.queries.iter().find(|held| held.name == query.name).cloned()
        };
        let (age, last) =
            { plans.iter().rev().enumerate() }.find_map(|(age, plan)| Some((age, with_it(plan)?)))?;
        let meaning = |query: &Query| {
            let topic = query.topic.to_string();
            (topic, query.time.clone(), query.filter.clone())
        };
        let what = if last.window != query.window {
            "window"
        } else if last.key != query.key {
            "key"
        } else if age > 0 && meaning(&last) != meaning(query) {
            "meaning"
        } else {
            return None;
        };
        Some(format!("another {what} of {}", query.name))
    })
}

impl Plan {
    fn text(&self) -> String {
        self.queries.iter().map(Draft::text).collect()
    }

    fn add(&mut self, dice: &mut Dice) {
        let draft = Draft::draw(self.named, self.queries.first(), dice);
        self.named += 1;
        self.queries.push(draft);
    }

    fn edit(&mut self, dice: &mut Dice) -> Asked {
        let index = dice.below(self.queries.len() as u32) as usize;
        match dice.below(16) {
            0 | 1 => self.add(dice),
            2 | 3 if self.queries.len() > 1 => {
                let gone = self.queries.remove(index);
                self.gone.push(gone);
            }
            4..=6 if !self.gone.is_empty() => return self.come_back(dice),
            7 => {
                let query = self.queries[index].clone();
                self.gone.push(query);
                self.queries[index].name = format!("q{}", self.named);
                self.named += 1;
            }
            8 => return self.queries[index].mean_otherwise(dice),
            9 => self.queries[index].turn_meaning(dice),
            10 => self.queries[index].redraw_fields(dice),
            _ => self.queries[index].redraw(dice),
        }
        Asked::Allowed
    }

    /// A query that was taken out comes back, sometimes changed.
    fn come_back(&mut self, dice: &mut Dice) -> Asked {
        let mut draft = self.gone.remove(dice.below(self.gone.len() as u32) as usize);
        let before = draft.clone();
        let asked = match dice.below(4) {
            0 => draft.mean_otherwise(dice),
            1 => {
                draft.turn_meaning(dice);
                let is_same = draft.meaning() == before.meaning();
                if is_same { Asked::Allowed } else { Asked::Refused }
            }
            2 => {
                draft.redraw(dice);
                Asked::Allowed
            }
            _ => Asked::Allowed,
        };
        self.queries.push(draft);
        asked
    }
}

impl Draft {
    fn draw(number: u32, like: Option<&Self>, dice: &mut Dice) -> Self {
        let window = draw_window(dice);
        let mut draft = match like {
            Some(like) if dice.below(3) > 0 => like.clone(),
            _ => {
                let tags = ["site", "device", "room"];
                Self {
                    name: String::new(),
                    topic: pick(dice, &TOPICS[..2]),
                    time: "ts",
                    filter: pick(dice, &FILTERS),
                    key: { tags.into_iter() }.filter(|_| dice.below(2) == 0).collect(),
                    fields: draw_fields(dice),
                    window: String::new(),
                    aggregates: Vec::new(),
                    watermark_delay: pick(dice, &["0s", "500ms", "2s"]),
                    idle: pick(dice, &["1s", "5s"]),
                }
            }
        };
        draft.name = format!("q{number}");
        draft.window = window;
        draft.aggregates = draw_aggregates(dice);
        draft
    }

    /// What decides which readings count, and where.
    fn meaning(&self) -> (&str, &str, &str) {
        (self.topic, self.time, self.filter)
    }

    /// Other readings count, or at other times.
    fn turn_meaning(&mut self, dice: &mut Dice) {
        match dice.below(3) {
            0 => self.topic = pick(dice, &TOPICS),
            1 => self.filter = pick(dice, &FILTERS),
            _ => self.time = pick(dice, &["ts", "at"]),
        }
    }

    /// Another window or another key: rows would have other names.
    fn mean_otherwise(&mut self, dice: &mut Dice) -> Asked {
        if dice.below(2) == 0 {
            let before = std::mem::replace(&mut self.window, draw_window(dice));
            let is_same = before == self.window;
            return if is_same { Asked::Allowed } else { Asked::Refused };
        }
        let before = self.key.clone();
        match self.key.pop() {
            Some(_) if dice.below(2) == 0 => {}
            _ => self.key = vec!["room", "site"],
        }
        if before == self.key {
            Asked::Allowed
        } else {
            Asked::Refused
        }
    }

    fn redraw_fields(&mut self, dice: &mut Dice) {
        self.fields = draw_fields(dice);
    }

    /// What is computed, how finely, and how long is waited.
    fn redraw(&mut self, dice: &mut Dice) {
        match dice.below(5) {
            0 => self.watermark_delay = pick(dice, &["0s", "500ms", "2s"]),
            1 => {
                let field = dice.below(self.fields.len() as u32) as usize;
                self.fields[field].1 = pick(dice, &RESOLUTIONS);
            }
            2 => {
                self.aggregates
                    .remove(dice.below(self.aggregates.len() as u32) as usize);
            }
            _ => self.aggregates = draw_aggregates(dice),
        }
    }

    fn text(&self) -> String {
        let is_counted = self.window.starts_with("{ count");
        let has_temp = self.fields.iter().any(|(name, _)| *name == "temp");
        let fits = |name: &&&str| {
            !(is_counted && OF_POINTS.contains(name)) && (has_temp || **name != "distinct(temp)")
        };
        let mut aggregates = String::new();
        for name in self.aggregates.iter().filter(fits) {
            let _ = write!(aggregates, "\"{name}\", ");
        }
        if aggregates.is_empty() {
            aggregates.push_str("\"sum\"");
        }
        let mut fields = String::new();
        for (name, resolution) in &self.fields {
            let _ = write!(fields, "{name} = {{ path = \"{name}\"");
            if !resolution.is_empty() {
                let _ = write!(fields, ", resolution = {resolution}");
            }
            if self.aggregates.contains(&"increase") {
                fields.push_str(", kind = \"counter\"");
            }
            fields.push_str(" }, ");
        }
        let key: Vec<String> = self.key.iter().map(|tag| format!("\"{tag}\"")).collect();
        format!(
            "[[query]]\nname = \"{}\"\ntopic = \"{}\"\nformat = \"json\"\ntime = {{ path = \"{}\", unit = \"ms\" }}\n\
             tags = {{ room = \"room\" }}\nkey = [{}]\nfields = {{ {} }}\n{}window = {}\naggregates = [{aggregates}]\n\
             watermark_delay = \"{}\"\npatience = \"2s\"\nidle = \"{}\"\nallowed_lateness = \"36500d\"\n\
             max_ahead = \"36500d\"\ncoarsen = []\n\n",
            self.name,
            self.topic,
            self.time,
            key.join(", "),
            fields.trim_end_matches(", "),
            self.filter,
            self.window,
            self.watermark_delay,
            self.idle,
        )
    }
}

fn draw_window(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => "{ count = 7 }".into(),
        1 => "{ session = \"2s\" }".into(),
        2 => "{ size = \"12s\", every = \"2s\" }".into(),
        3 => "{ size = \"5s\", every = \"3s\", offset = \"500ms\" }".into(),
        other => format!("{{ size = \"{}s\" }}", [1, 3, 10, 30][other as usize % 4]),
    }
}

fn draw_fields(dice: &mut Dice) -> Vec<(&'static str, &'static str)> {
    let mut fields = vec![(FIELDS[0], pick(dice, &RESOLUTIONS))];
    for field in &FIELDS[1..] {
        if dice.below(2) == 0 {
            fields.push((field, pick(dice, &RESOLUTIONS)));
        }
    }
    fields
}

fn draw_aggregates(dice: &mut Dice) -> Vec<&'static str> {
    let drawn: Vec<&str> = { AGGREGATES.into_iter() }
        .filter(|_| dice.below(3) == 0)
        .collect();
    if drawn.is_empty() { vec!["sum"] } else { drawn }
}

fn pick<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[dice.below(choices.len() as u32) as usize]
}

#[cfg(test)]
mod tests {
    use catchment_aggregator::plan_toml;

    use super::*;

    #[test]
    fn edited_plans_are_good_and_some_are_refused() {
        let mut refused = 0;
        for seed in 0..300 {
            for edits in 0..6 {
                let (text, asked) = plan(seed, edits);
                plan_toml::parse(&text, "edited").unwrap_or_else(|faults| panic!("{text}: {faults}"));
                refused += u32::from(asked == Asked::Refused);
            }
        }
        assert!(refused > 50, "{refused}");
    }
}

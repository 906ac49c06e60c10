//! The plans that runs choose from.

use catchment_aggregator::plan_toml;
use catchment_common::plan::Query;
use catchment_common::topic::filter::Filter;
use catchment_firmware_sim::dice::Dice;

/// Seeds from here on have count windows.
pub const COUNTS_FROM: u64 = 30_000;

/// A plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// One query with everything.
    Climate,
    /// Several queries that share a pipeline, and hopping windows.
    Rooms,
    /// Another topic and another key.
    Sites,
    /// All of them.
    All,
    /// All of them, but one query has left the pipeline that it shared.
    Parted,
    /// A query of another name on the same pipeline with narrower panes.
    Fine,
    /// Sessions, alone and with others on their pipeline, and windows with an offset.
    Kinds,
    /// Count windows, alone and beside others.
    Counts,
    /// The same, but one of them is another pipeline, and others stand before them.
    CountsToo,
    /// Topics that cover others.
    Covering,
    /// Topics that cross.
    Crossing,
    /// One topic for all.
    Wide,
    /// Readings may be coarsened.
    Ladder,
    /// Readings may be coarsened a little.
    ShortLadder,
    /// Drawn from this seed.
    Drawn(u64),
    /// The plan after so many edits of the chain of this seed.
    Edited {
        /// The seed.
        seed: u64,
        /// How many edits.
        edits: u32,
    },
}

impl Variant {
    /// Those between which an operator may change, besides [`Self::Parted`] for [`super::case::Case::new`]'s later
    /// seeds.
    pub const ALL: [Self; 5] = [Self::Climate, Self::Rooms, Self::Sites, Self::All, Self::Fine];

    /// Those whose topics match the same messages, between which an operator changes where brokers have habits.
    const OVERLAPPING: [Self; 5] = [
        Self::Climate,
        Self::Covering,
        Self::Crossing,
        Self::Wide,
        Self::Sites,
    ];

    /// One of those whose topics overlap.
    pub(super) fn overlapping(dice: &mut Dice) -> Self {
        Self::OVERLAPPING[dice.below(Self::OVERLAPPING.len() as u32) as usize]
    }

    /// The topic filters of its queries.
    pub fn filters(self) -> Vec<Filter> {
        let queries = self.queries();
        let filters = queries.iter().map(|query| Filter::parse(&query.topic.filter()));
        filters.flatten().collect()
    }

    /// Its queries.
    pub fn queries(self) -> Vec<Query> {
        plan_toml::parse(&self.text(), "simulated")
            .expect("the plans are good")
            .queries
    }

    /// Its text.
    pub fn text(self) -> String {
        let all = "[\"count\", \"rate\", \"sum\", \"mean\", \"min\", \"max\", \"range\", \"variance\", \"stddev\", \
                   \"first\", \"last\", \"delta\"]";
        let points = all.replace(']', ", \"time_weighted_mean\"]");
        let counters = points.replace(']', ", \"increase\"]");
        let climate = query("climate", "env", "10s", None, "[\"site\", \"device\"]", all, "[]");
        let quick = query(
            "quick",
            "env",
            "20s",
            Some("10s"),
            "[\"site\", \"device\"]",
            all,
            "[]",
        );
        let fine = query(
            "fine",
            "env",
            "4s",
            Some("2s"),
            "[\"site\", \"device\"]",
            "[\"sum\"]",
            "[]",
        );
        let sites = query("sites", "env", "30s", Some("10s"), "[\"site\"]", all, "[]");
        let rooms = query("rooms", "env", "5s", None, "[\"room\"]", &points, "[]");
        let power = query("power", "power", "15s", None, "[\"device\"]", &counters, "[]");
        let ladder = query(
            "coarse",
            "env",
            "10s",
            None,
            "[\"room\"]",
            all,
            "[\"1m\", \"10m\", \"1h\"]",
        );
        match self {
            Self::Climate => climate,
            Self::Rooms => climate + &rooms,
            Self::Sites => sites + &power,
            Self::All => climate + &quick + &sites + &rooms + &power,
            Self::Parted => {
                let late = climate.replace("watermark_delay = \"2s\"", "watermark_delay = \"4s\"");
                late + &quick + &sites + &rooms + &power
            }
            Self::Fine => climate + &fine + &power,
            Self::Counts => {
                let (tens, rest) = counted(&climate, &power);
                climate + &tens + &rest
            }
            Self::CountsToo => {
                let (tens, rest) = counted(&climate, &power);
                let tens = tens.replace("watermark_delay = \"2s\"", "watermark_delay = \"4s\"");
                rooms + &rest + &tens + &sites
            }
            Self::Kinds => {
                let visits = with(&rooms, "visits", "{ session = \"3s\" }");
                let trips = with(&climate, "trips", "{ session = \"12s\" }");
                let runs = with(&power, "runs", "{ session = \"700ms\" }");
                let shifted = with(
                    &climate,
                    "shifted",
                    "{ size = \"20s\", every = \"10s\", offset = \"4s\" }",
                );
                climate + &visits + &trips + &runs + &shifted
            }
            Self::Covering => {
                let houses = on(&sites, "houses", "s/{site}/#");
                let first = on(&rooms, "first", "s/site1/{device}/+");
                climate + &houses + &first
            }
            Self::Crossing => {
                let first = on(&rooms, "first", "s/site1/#");
                let second = on(&power, "second", "+/+/{device}/power");
                climate + &first + &second
            }
            Self::Wide => on(&rooms, "whole", "s/#"),
            Self::Ladder => ladder,
            Self::ShortLadder => ladder.replace(", \"10m\", \"1h\"", "").replace(all, &points),
            Self::Drawn(seed) => super::drawn::plan(seed),
            Self::Edited { seed, edits } => super::edits::plan(seed, edits).0,
        }
    }
}

/// A query under another name and with another topic.
fn on(base: &str, name: &str, topic: &str) -> String {
    let lines = base.lines().map(|line| match line.split_once(" = ") {
        Some(("name", _)) => format!("name = \"{name}\"\n"),
        Some(("topic", _)) => format!("topic = \"{topic}\"\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// A query under another name and with other windows.
fn with(base: &str, name: &str, window: &str) -> String {
    let old = base
        .split("window = ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    base.replacen(old.unwrap_or_default(), window, 1).replacen(
        base.lines().nth(1).unwrap_or_default(),
        &format!("name = \"{name}\""),
        1,
    )
}

/// Count windows: those of ten, and others.
fn counted(climate: &str, power: &str) -> (String, String) {
    let counted = |base: &str, name: &str, count: u32, key: &str| {
        let text = with(base, name, &format!("{{ count = {count} }}"));
        // Series are not of count windows.
        let text = ["time_weighted_mean", "increase"]
            .iter()
            .fold(text, |text, name| text.replace(&format!(", \"{name}\""), ""));
        text.replace(", kind = \"counter\"", "")
            .replacen("[\"site\", \"device\"]", key, 1)
    };
    let sketched = climate.replacen(
        "\"last\"",
        "\"last\", \"p50\", \"distinct(device)\", \"top(2, room)\"",
        1,
    );
    let tens = counted(climate, "tens", 10, "[\"site\", \"device\"]");
    let rest = counted(climate, "pairs", 2, "[\"room\"]")
        + &counted(&sketched, "many", 300, "[]")
        + &counted(power, "ones", 1, "[\"device\"]");
    (tens, rest)
}

fn query(
    name: &str,
    topic: &str,
    size: &str,
    every: Option<&str>,
    key: &str,
    aggregates: &str,
    coarsen: &str,
) -> String {
    let every = every.map_or(String::new(), |every| format!(", every = \"{every}\""));
    let fields = if topic == "env" {
        "{ temp = \"temp\", hum = { path = \"hum\", resolution = 0.1 } }"
    } else {
        "{ watts = { path = \"watts\", kind = \"counter\" } }"
    };
    format!(
        "[[query]]\nname = \"{name}\"\ntopic = \"s/{{site}}/{{device}}/{topic}\"\nformat = \"json\"\n\
         time = {{ path = \"ts\", unit = \"ms\" }}\ntags = {{ room = \"room\" }}\nkey = {key}\nfields = {fields}\n\
         window = {{ size = \"{size}\"{every} }}\naggregates = {aggregates}\nwatermark_delay = \"2s\"\npatience = \"3s\"\n\
         idle = \"5s\"\nallowed_lateness = \"36500d\"\nmax_ahead = \"36500d\"\ncoarsen = {coarsen}\n\n"
    )
}

//! Plans and streams drawn at random: what no one thought of writing down.
//!
//! The cases of [`Case::new`] keep few plans and strike them hard. These draw the plan itself (keys, fields, windows,
//! functions, times of waiting) and small streams with readings that come late, out of order, twice, early, or with
//! half of their fields missing. Most runs are calm, so that a hundred thousand of them take minutes; some also crash.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use catchment_firmware_sim::dice::{Chance, Dice};

use super::case::{Case, Fault, MS, Publish, SECOND, START_US};
use super::habits::Habits;
use super::plans::Variant;

/// Most queries of a drawn plan.
const QUERIES_MAX: u32 = 4;
/// One case in so many has faults as well.
const FAULTY: Chance = Chance::one_in(4);

const AGGREGATES: [&str; 22] = [
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
    "p0",
    "p90",
    "p99.9",
    "histogram(-20, 0, 0.5, 100)",
    "distinct(device)",
    "distinct(room)",
    "top(2, room)",
    "top(5, device)",
    "time_weighted_mean",
];

impl Case {
    /// The drawn case of a seed.
    pub fn drawn(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 10);
        let end = u64::from(2 + dice.below(28)) * SECOND;
        let mut case = Self {
            seed,
            behind: 0,
            gateways: 1 + dice.below(3) as usize,
            sources: 1,
            memory_bytes: pick(&mut dice, &[4 << 10, 16 << 10, 256 << 10]),
            journal_bytes: 1 << 20,
            spool_bytes: 16 << 20,
            retain_seconds: 2,
            commit_delay_ms: pick(&mut dice, &[0, 5, 200]),
            window: 20,
            windows: 1,
            habits: Habits::KIND,
            earlier: None,
            due_rows: 50,
            disk_us: pick(&mut dice, &[50, 5_000]),
            link_us: pick(&mut dice, &[500, 50_000]),
            plan: Variant::Drawn(seed),
            end,
            publishes: Vec::new(),
            faults: Vec::new(),
        };
        if plan(seed).contains("dedupe") {
            // Of each KiB an agent remembers one device, and here it must forget none.
            case.memory_bytes = 1 << 20;
        }
        case.publish_drawn(&mut dice);
        if dice.hits(FAULTY) {
            case.strike_calmly(&mut dice);
        }
        case
    }

    /// The case of a seed in which the operator edits the plan, again and again, while data flows.
    pub fn edited(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 21);
        let mut case = Self {
            plan: Variant::Edited { seed, edits: 0 },
            end: u64::from(8 + dice.below(30)) * SECOND,
            due_rows: pick(&mut dice, &[3, 50, 1_000_000]),
            ..Self::drawn(seed)
        };
        case.publishes.clear();
        case.faults.clear();
        case.publish_drawn(&mut dice);
        for publish in &mut case.publishes {
            publish.payload = with_second_time(&publish.payload);
        }
        if dice.hits(FAULTY) {
            case.strike_calmly(&mut dice);
        }
        let mut moments: Vec<u64> = (0..=dice.below(5))
            .map(|_| u64::from(dice.below((case.end / MS) as u32)) * MS)
            .collect();
        moments.sort_unstable();
        for (edits, at) in (1..).zip(moments) {
            case.faults
                .push((at, Fault::Plan(Variant::Edited { seed, edits })));
        }
        case.faults.sort_by_key(|(at, _)| *at);
        case
    }

    fn publish_drawn(&mut self, dice: &mut Dice) {
        let (devices, gap) = (1 + dice.below(5), 20 + dice.below(400));
        let watermark_delay = pick(dice, &[50, 1_000, 10_000]);
        // From dice of their own, so that what is spoiled changes nothing else.
        let mut spoiling = Dice::new(self.seed, 12);
        let spoils = spoiling.below(2) == 0;
        let mut numbers = Numbers::new(self.seed);
        for gateway in 0..self.gateways {
            let mut at = u64::from(dice.below(gap)) * MS;
            while at < self.end {
                let device = dice.below(devices);
                let kind = pick(dice, &["env", "env", "env", "power"]);
                // A device may move from one gateway to another: the key is the same.
                let topic = format!("s/site{}/d{device}/{kind}", device % 2);
                let count = 1 + dice.below(3) * dice.below(3);
                let mut readings: Vec<String> =
                    (0..count).map(|_| reading(at, watermark_delay, dice)).collect();
                if spoils {
                    spoil(&mut readings, &mut spoiling);
                }
                numbers.give((gateway, &topic), &mut readings);
                let payload = if readings.len() > 1 {
                    format!("[{}]", readings.join(","))
                } else {
                    readings.concat()
                };
                self.publishes.push(Publish {
                    at,
                    gateway,
                    topic,
                    payload,
                });
                if dice.below(10) > 0 {
                    at += u64::from(1 + dice.below(2 * gap)) * MS;
                }
            }
        }
        self.publishes.sort_by_key(|publish| publish.at);
    }
}

/// The payload with another time beside each `ts`, up to two seconds before it: a query may be edited to read that.
fn with_second_time(payload: &str) -> String {
    let mut parts = payload.split("\"ts\":");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let ts: i64 = part[..digits].parse().unwrap_or(0);
        let _ = write!(
            text,
            "\"ts\":{ts},\"at\":{}{}",
            ts - ts / 7 % 3 * 1_000,
            &part[digits..]
        );
    }
    text
}

/// One reading. All have `temp` or `watts`, so that each is good for every drawn query.
fn reading(at: u64, watermark_delay: u32, dice: &mut Dice) -> String {
    let late = match dice.below(10) {
        0 => i64::from(dice.below(60_000)),
        1 => -i64::from(dice.below(1_000)),
        2..5 => i64::from(dice.below(watermark_delay)),
        _ => 0,
    };
    // Often at the very edge of a window.
    let grid = pick(dice, &[1, 1, 500, 1_000]);
    let ts = (START_US / 1_000 + (at / MS) as i64 - late).div_euclid(grid) * grid;
    let mut text = format!(
        "{{\"ts\":{ts},\"watts\":{},\"room\":\"r{}\"",
        number(dice),
        dice.below(4)
    );
    for field in ["temp", "hum"] {
        match dice.below(8) {
            0 => {}
            1 => {
                let _ = write!(text, ",\"{field}\":null");
            }
            _ => {
                let _ = write!(text, ",\"{field}\":{}", number(dice));
            }
        }
    }
    text.push('}');
    text
}

/// The numbers that devices give their readings, for each gateway and topic.
struct Numbers {
    dice: Dice,
    next: BTreeMap<(usize, String), u64>,
}

impl Numbers {
    fn new(seed: u64) -> Self {
        Self {
            // Of their own, for the same reason.
            dice: Dice::new(seed, 13),
            next: BTreeMap::new(),
        }
    }

    /// Gives each reading the next number of its device, or, now and then, one that it had before, one that was damaged,
    /// or one from another beginning.
    fn give(&mut self, (gateway, topic): (usize, &str), readings: &mut [String]) {
        let Self { dice, next } = self;
        let next = next.entry((gateway, topic.to_owned())).or_insert(200);
        for reading in readings.iter_mut().filter(|reading| reading.ends_with('}')) {
            let number = match dice.below(40) {
                0..6 => *next - u64::from(dice.below(70)).min(*next),
                6 => u64::from(dice.below(1 << 20)) << dice.below(40),
                7 => {
                    *next = [0, *next + 100, *next + 3, 60_000][dice.below(4) as usize];
                    *next
                }
                _ => *next + 1,
            };
            *next = (*next).max(if number == *next + 1 { number } else { 0 });
            reading.truncate(reading.len() - 1);
            let comma = if reading.ends_with('{') { "" } else { "," };
            let _ = write!(reading, "{comma}\"seq\":{number},\"byte\":{}}}", number % 256);
        }
    }
}

/// Puts values in the place of some that cannot be used, and items that are no readings between those that are: they
/// must take nothing else along.
fn spoil(readings: &mut Vec<String>, dice: &mut Dice) {
    const VALUES: [&str; 12] = [
        "\"unavailable\"",
        "\"\"",
        "\"21.5\"",
        "true",
        "{}",
        "[7]",
        "nan",
        "-Infinity",
        "\"NaN\"",
        "1e18",
        "-99999999999999999999",
        "null",
    ];
    for reading in &mut *readings {
        for field in ["temp", "hum", "other"] {
            if dice.below(4) == 0 {
                // The last of two equal names counts.
                reading.truncate(reading.len() - 1);
                let _ = write!(reading, ",\"{field}\":{}}}", pick(dice, &VALUES));
            }
        }
    }
    while dice.below(8) == 0 {
        let place = dice.below(readings.len() as u32 + 1) as usize;
        readings.insert(place, pick(dice, &VALUES).replace("[7]", "[{\"temp\":7}]"));
    }
}

/// A number as sensors write them, now and then as large, small or long as it may be.
fn number(dice: &mut Dice) -> String {
    let value = dice.around_zero(3_000);
    match dice.below(12) {
        0 => format!("{value}e-12"),
        1 => format!("{value}.000000000000000001"),
        2 if value != 0 => format!("{value}99999999999999"),
        3 => "0".into(),
        4 => format!("{}", value / 100),
        _ => format!("{}.{}", value / 10, value.abs() % 10),
    }
}

/// The queries of a drawn plan, as TOML.
pub(super) fn plan(seed: u64) -> String {
    let mut dice = Dice::new(seed, 11);
    let count = 1 + dice.below(QUERIES_MAX);
    // Queries of one plan like to share: most take what the first has drawn.
    let first = Shape::draw(&mut dice);
    let mut numbers = Dice::new(seed, 14);
    let dedupe = |numbers: &mut Dice| {
        pick(
            numbers,
            &[
                "",
                "",
                "",
                "dedupe = \"seq\"\n",
                "dedupe = { path = \"seq\", restart = true }\n",
                "dedupe = { path = \"seq\", wraps_at = 50000 }\n",
                "dedupe = { path = \"byte\", wraps_at = 256 }\n",
                "dedupe = { path = \"byte\", wraps_at = 256, restart = true }\n",
            ],
        )
    };
    let mut looks = Dice::new(seed, 16);
    let mut lookback = |query: &str| {
        let text = pick(
            &mut looks,
            &[
                "",
                "",
                "lookback = \"0s\"\n",
                "lookback = \"1s\"\n",
                "lookback = \"45s\"\n",
            ],
        );
        // Sessions and windows with `count` do not look back.
        if query.contains("window = { size") {
            text
        } else {
            ""
        }
    };
    (0..count)
        .map(|number| {
            let query = query(number, &first, &mut dice);
            let lookback = lookback(&query);
            query + dedupe(&mut numbers) + lookback
        })
        .collect()
}

/// What decides whether queries share a pipeline.
#[derive(Clone)]
struct Shape {
    topic: &'static str,
    key: String,
    fields: String,
    /// Whether all fields are counters.
    counts: bool,
    filter: &'static str,
    watermark_delay: &'static str,
    idle: &'static str,
}

impl Shape {
    fn draw(dice: &mut Dice) -> Self {
        let tags = ["site", "device", "room"];
        let key: Vec<String> = tags
            .iter()
            .filter(|_| dice.below(2) == 0)
            .map(|tag| format!("\"{tag}\""))
            .collect();
        let counts = dice.below(4) == 0;
        let counter = |dice: &mut Dice| {
            if counts || dice.below(4) == 0 {
                pick(
                    dice,
                    &[
                        ", kind = \"counter\"",
                        ", kind = \"counter\", tolerance = 20.5",
                        ", kind = \"counter\", wraps_at = 200",
                        ", kind = \"counter\", wraps_at = 250, tolerance = 3",
                    ],
                )
            } else {
                ""
            }
        };
        let mut fields = vec![format!("watts = {{ path = \"watts\"{} }}", counter(dice))];
        for field in ["temp", "hum"] {
            match dice.below(4) {
                0 => fields.push(format!("{field} = {{ path = \"{field}\"{} }}", counter(dice))),
                1 => {
                    let resolution = pick(dice, &["0.1", "0.5", "7", "1e-9"]);
                    fields.push(format!(
                        "{field} = {{ path = \"{field}\", resolution = {resolution}{} }}",
                        counter(dice)
                    ));
                }
                _ => {}
            }
        }
        // A name is a field of the query, or is marked.
        let has = |name: &str, fields: &[String]| fields.iter().any(|field| field.starts_with(name));
        if has("temp", &fields) && dice.below(3) == 0 {
            let text = pick(
                dice,
                &[
                    "temp - (100 - $.hum) / 5",
                    "temp * temp / $.hum",
                    "if(temp > 0, sqrt(temp), -temp)",
                    "default(round(temp % 7, 0.25), watts * 1e9)",
                    "min($.temp, $.hum, watts)",
                ],
            );
            let resolution = pick(dice, &["", ", resolution = 0.3"]);
            fields.push(format!(
                "dew = {{ expr = \"{text}\"{resolution}{} }}",
                counter(dice)
            ));
        }
        Self {
            counts,
            filter: if dice.below(3) == 0 {
                pick(
                    dice,
                    &[
                        "where = \"watts > 0\"\n",
                        "where = \"$.temp > -100 && $.temp < 100\"\n",
                        "where = \"$.room != 'r1' || watts / $.hum > 1\"\n",
                        "where = \"site == 'site0' || has($.temp)\"\n",
                        "where = \"!(abs(watts) * 1000 >= $.temp) && true\"\n",
                    ],
                )
            } else {
                ""
            },
            topic: pick(
                dice,
                &[
                    "s/{site}/{device}/env",
                    "s/{site}/{device}/+",
                    "s/{site}/{device}/#",
                ],
            ),
            key: key.join(", "),
            fields: fields.join(", "),
            watermark_delay: pick(dice, &["0s", "500ms", "2s", "8s"]),
            idle: pick(dice, &["1s", "5s", "10s"]),
        }
    }
}

fn query(number: u32, first: &Shape, dice: &mut Dice) -> String {
    let shape = if dice.below(3) == 0 {
        Shape::draw(dice)
    } else {
        first.clone()
    };
    let increase = (shape.counts && dice.below(2) == 0).then_some("increase");
    let drawn: Vec<&str> = AGGREGATES.into_iter().filter(|_| dice.below(3) == 0).collect();
    let window = window(dice);
    // Series are not of count windows.
    let is_counted = window.starts_with("{ count");
    let of_points = ["increase", "time_weighted_mean", "rate"];
    let aggregates: Vec<String> = { drawn.into_iter() }
        .chain(increase)
        .filter(|name| !is_counted || !of_points.contains(name))
        .map(|name| format!("\"{name}\""))
        .collect();
    let aggregates = if aggregates.is_empty() {
        "\"sum\"".to_owned()
    } else {
        aggregates.join(", ")
    };
    format!(
        "[[query]]\nname = \"q{number}\"\ntopic = \"{}\"\nformat = \"json\"\ntime = {{ path = \"ts\", unit = \"ms\" }}\n\
         tags = {{ room = \"room\" }}\nkey = [{}]\nfields = {{ {} }}\n{}window = {}\naggregates = [{aggregates}]\n\
         watermark_delay = \"{}\"\npatience = \"{}\"\nidle = \"{}\"\nallowed_lateness = \"36500d\"\nmax_ahead = \"36500d\"\n\
         coarsen = []\n{}\n",
        shape.topic,
        shape.key,
        shape.fields,
        shape.filter,
        window,
        shape.watermark_delay,
        pick(dice, &["0s", "1s", "5s"]),
        shape.idle,
        pick(dice, &["", "", "memory = \"4 KiB\"\n"]),
    )
}

fn window(dice: &mut Dice) -> String {
    if dice.below(6) == 0 {
        let count = pick(dice, &[1, 2, 3, 7, 20, 100]);
        return format!("{{ count = {count} }}");
    }
    if dice.below(4) == 0 {
        let gap = pick(dice, &["20ms", "500ms", "1s", "2s", "5s", "12s", "30s"]);
        return format!("{{ session = \"{gap}\" }}");
    }
    let size = pick(dice, &[1, 2, 5, 6, 10, 12, 15, 30]);
    if dice.below(2) == 0 {
        return format!("{{ size = \"{size}s\" }}");
    }
    // Steps that do not divide the size make panes of their greatest common divisor.
    let every = 1 + dice.below(size);
    let offset = pick(dice, &[0, 0, 500]);
    format!("{{ size = \"{size}s\", every = \"{every}s\", offset = \"{offset}ms\" }}")
}

fn pick<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[dice.below(choices.len() as u32) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_plans_are_good_and_differ() {
        let plans: std::collections::BTreeSet<String> = (0..200).map(plan).collect();
        assert!(plans.len() > 190);
        for seed in 0..200 {
            assert!(!Variant::Drawn(seed).queries().is_empty());
        }
    }

    #[test]
    fn drawn_numbers_repeat_wrap_start_over_and_leap() {
        let (mut repeats, mut wraps, mut falls, mut leaps) = (0, 0, 0, 0);
        for seed in 0..200 {
            let mut before = BTreeMap::new();
            for publish in Case::drawn(seed).publishes {
                let of = |name: &str| -> Vec<u64> {
                    { publish.payload.split(name).skip(1) }
                        .filter_map(|text| text.split(['}', ',']).next()?.parse().ok())
                        .collect()
                };
                for (number, byte) in of("\"seq\":").into_iter().zip(of("\"byte\":")) {
                    let device = (publish.gateway, publish.topic.clone());
                    let Some((last, last_byte)) = before.insert(device, (number, byte)) else {
                        continue;
                    };
                    repeats += u32::from(number <= last && last - number < 64);
                    wraps += u32::from(number == last + 1 && byte == 0 && last_byte == 255);
                    falls += u32::from(number == 0 && last > 64);
                    leaps += u32::from(number > last + 64);
                }
            }
        }
        let all = [repeats, wraps, falls, leaps];
        assert!(all.iter().all(|&times| times > 50), "{all:?}");
        let plans: String = (0..100).map(plan).collect();
        for form in [
            "dedupe = \"seq\"",
            "restart = true }",
            "wraps_at = 50000",
            "\"byte\", wraps_at = 256 }",
        ] {
            assert!(plans.contains(form), "{form}");
        }
    }
}

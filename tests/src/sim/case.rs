//! What one seed stands for: how large the world is, who publishes what and when, and which faults strike.
//!
//! Everything is drawn before the run, so that a failing case can be made smaller by leaving parts out.

use catchment_firmware_sim::dice::Dice;

use super::habits::{self, Habits};
use super::plans;

/// Microseconds in a millisecond.
pub const MS: u64 = 1_000;
/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;
/// The wall clock when a run begins, in microseconds since the Unix epoch.
pub const START_US: i64 = 1_767_225_600_000_000;

/// One run, before it begins.
#[derive(Clone, Debug)]
pub struct Case {
    /// What delays and damage are drawn from.
    pub seed: u64,
    /// Gateways.
    pub gateways: usize,
    /// Brokers that each gateway reads from, 1 or 2.
    pub sources: usize,
    /// Budget of open panes.
    pub memory_bytes: usize,
    /// Budget of the journal.
    pub journal_bytes: u64,
    /// Budget of the spool.
    pub spool_bytes: u64,
    /// How long acknowledged batches are kept.
    pub retain_seconds: i64,
    /// How long readings gather before a job.
    pub commit_delay_ms: i64,
    /// Rows of windows that have become due, for one commit.
    pub due_rows: usize,
    /// The broker's window, as it is told.
    pub window: usize,
    /// How many of them it sends ahead all the same.
    pub windows: usize,
    /// What else the brokers do that better ones would not.
    pub habits: Habits,
    /// The brokers' sessions are older than the gateways' memory, who have no plan, and hold the filters of this one.
    pub earlier: Option<plans::Variant>,
    /// Longest step of a disk job, in microseconds.
    pub disk_us: u32,
    /// Longest way of a frame over the link, in microseconds.
    pub link_us: u32,
    /// Seconds that the gateways' clocks are behind when the run begins, until a [`Fault::Clock`] sets them; 0 for
    /// clocks that are right.
    pub behind: i64,
    /// The plan at the start.
    pub plan: plans::Variant,
    /// When publishing and faults end.
    pub end: u64,
    /// What is published.
    pub publishes: Vec<Publish>,
    /// What strikes.
    pub faults: Vec<(u64, Fault)>,
}

/// A message that a device gives to its gateway's broker.
#[derive(Clone, Debug)]
pub struct Publish {
    /// When.
    pub at: u64,
    /// At which gateway.
    pub gateway: usize,
    /// Where to.
    pub topic: String,
    /// The text.
    pub payload: String,
}

/// Something that goes wrong, or that an operator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A gateway's process ends, or its power fails, and comes back.
    Crash {
        /// Which.
        gateway: usize,
        /// Whether what was not synced is lost.
        power: bool,
        /// Disk steps that are taken before.
        after_steps: u32,
        /// How long it is away.
        down: u64,
    },
    /// The aggregator ends and comes back.
    CentreCrash {
        /// Whether the commit under way became durable.
        durable: bool,
        /// How long it is away.
        down: u64,
    },
    /// The store is copied.
    Backup,
    /// The aggregator ends and comes back with the last copy.
    Restore {
        /// How long it is away.
        down: u64,
    },
    /// A gateway's link breaks.
    Cut {
        /// Which.
        gateway: usize,
        /// How long it cannot be made again.
        down: u64,
    },
    /// A gateway's connection to its broker breaks.
    BrokerCut {
        /// Which.
        gateway: usize,
        /// Whether the broker forgets a session that it owes nothing.
        forget: bool,
        /// How long it cannot be made again.
        down: u64,
    },
    /// A gateway's disk has only so much room left.
    Full {
        /// Which.
        gateway: usize,
        /// Free bytes.
        room: u64,
        /// How long.
        down: u64,
    },
    /// A gateway's disk fails.
    DiskFails {
        /// Which.
        gateway: usize,
        /// How long.
        down: u64,
    },
    /// The aggregator's store takes no commits.
    StoreFails {
        /// How long.
        down: u64,
    },
    /// A gateway's wall clock jumps to this far from the true time.
    Clock {
        /// Which.
        gateway: usize,
        /// How far, in seconds.
        offset: i64,
    },
    /// A gateway sleeps: nothing reaches it.
    Suspend {
        /// Which.
        gateway: usize,
        /// How long.
        down: u64,
    },
    /// The operator puts another plan into force.
    Plan(plans::Variant),
}

/// Kinds of worlds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A few gateways with many faults.
    Usual,
    /// Tens of gateways.
    Fleet,
    /// Many readings and little memory and journal.
    Heavy,
    /// Many readings and little spool while the link is away.
    Outage,
}

/// Seeds from here on also let a query leave a pipeline that others stay on. Those before keep the meaning that they
/// had when they found what they found.
pub const PARTED_FROM: u64 = 10_000;

/// Seeds from here on have other kinds of windows.
pub const KINDS_FROM: u64 = 20_000;

impl Case {
    /// The case of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 0);
        let kind = match dice.below(100) {
            0..70 => Kind::Usual,
            70..80 => Kind::Fleet,
            80..93 => Kind::Heavy,
            _ => Kind::Outage,
        };
        let gateways = match kind {
            Kind::Usual => 1 + dice.below(3) as usize,
            Kind::Fleet => 10 + dice.below(20) as usize,
            Kind::Heavy | Kind::Outage => 1,
        };
        let seconds = match kind {
            Kind::Usual => 20 + u64::from(dice.below(100)),
            Kind::Fleet => 10 + u64::from(dice.below(20)),
            Kind::Heavy => 20 + u64::from(dice.below(40)),
            Kind::Outage => 200 + u64::from(dice.below(200)),
        };
        let small = [Kind::Heavy, Kind::Outage].contains(&kind) || dice.below(3) == 0;
        let window = [1, 2, 5, 20, 20, 40][dice.below(6) as usize];
        let mut case = Self {
            seed,
            gateways,
            sources: habits::sources(seed),
            memory_bytes: if small { 64 << 10 } else { 256 << 10 },
            journal_bytes: if small || dice.below(2) == 0 {
                256 << 10
            } else {
                4 << 20
            },
            spool_bytes: if kind == Kind::Outage || dice.below(2) == 0 {
                1 << 20
            } else {
                16 << 20
            },
            retain_seconds: [0, 2, 3_600][dice.below(3) as usize],
            commit_delay_ms: [0, 1, 20, 500][dice.below(4) as usize],
            window,
            // From dice of their own, so that seeds keep the rest of their meaning.
            behind: 0,
            due_rows: [1, 30, 1_000_000][Dice::new(seed, 4).below(3) as usize],
            windows: [1, 1, 1, 5][Dice::new(seed, 3).below(4) as usize],
            habits: Habits::KIND,
            earlier: None,
            disk_us: [50, 1_000, 20_000, 200_000][dice.below(4) as usize],
            link_us: [500, 20_000, 400_000][dice.below(3) as usize],
            plan: if kind == Kind::Outage {
                [
                    plans::Variant::Ladder,
                    plans::Variant::ShortLadder,
                    plans::Variant::Rooms,
                ][dice.below(3) as usize]
            } else {
                plans::Variant::ALL[dice.below(plans::Variant::ALL.len() as u32) as usize]
            },
            end: seconds * SECOND,
            publishes: Vec::new(),
            faults: Vec::new(),
        };
        case.publish(kind, &mut Dice::new(seed, 1));
        case.strike(kind, &mut Dice::new(seed, 2));
        if seed >= PARTED_FROM {
            case.part_queries();
        }
        if habits::are_drawn(seed) {
            case.draw_habits(&mut Dice::new(seed, 5));
        } else if seed >= plans::COUNTS_FROM {
            case.count_readings();
        } else if seed >= KINDS_FROM {
            case.mix_kinds();
        }
        if seed >= plans::COUNTS_FROM {
            case.boot_behind(&mut Dice::new(seed, 15));
        }
        case
    }

    /// All begins with sessions, and every second change of plan is to them.
    fn mix_kinds(&mut self) {
        self.plan = plans::Variant::Kinds;
        let changes = self.faults.iter_mut().filter_map(|(_, fault)| match fault {
            Fault::Plan(variant) => Some(variant),
            _ => None,
        });
        for variant in changes.skip(1).step_by(2) {
            *variant = plans::Variant::Kinds;
        }
    }

    /// All begins with count windows, and changes of plan keep them.
    fn count_readings(&mut self) {
        self.plan = plans::Variant::Counts;
        let changes = self.faults.iter_mut().filter_map(|(_, fault)| match fault {
            Fault::Plan(variant) => Some(variant),
            _ => None,
        });
        for (number, variant) in changes.enumerate() {
            *variant = [plans::Variant::CountsToo, plans::Variant::Counts][number % 2];
        }
    }

    /// Every second change to the plan of all queries is to the one in which a query has left its pipeline.
    fn part_queries(&mut self) {
        let all = self.faults.iter_mut().filter_map(|(_, fault)| match fault {
            Fault::Plan(variant @ (plans::Variant::All | plans::Variant::Rooms)) => Some(variant),
            _ => None,
        });
        for variant in all.step_by(2) {
            *variant = plans::Variant::Parted;
        }
    }

    fn publish(&mut self, kind: Kind, dice: &mut Dice) {
        let devices = match kind {
            Kind::Usual => 1 + dice.below(6),
            Kind::Fleet => 2,
            Kind::Heavy | Kind::Outage => 40 + dice.below(160),
        };
        let gap = match kind {
            Kind::Usual => 100 + dice.below(400),
            Kind::Heavy => 300,
            Kind::Fleet | Kind::Outage => 1_000,
        };
        let readings = match kind {
            Kind::Heavy => 150,
            Kind::Outage => 80,
            Kind::Usual | Kind::Fleet => 1 + dice.below(2) * dice.below(4),
        };
        // Long names make batches large, so that few readings fill a spool.
        let padding = if kind == Kind::Outage { 150 } else { 0 };
        let devices = Dedupe {
            count: devices,
            readings,
            padding,
        };
        let mut number = 0;
        for gateway in 0..self.gateways {
            let mut at = u64::from(dice.below(gap)) * MS;
            while at < self.end {
                number += 1;
                let publish = message(at, gateway, devices, number, dice);
                self.publishes.push(publish);
                at += u64::from(1 + dice.below(2 * gap)) * MS;
            }
        }
        self.publishes.sort_by_key(|publish| publish.at);
    }

    /// A few faults, for cases that are about something else.
    pub(super) fn strike_calmly(&mut self, dice: &mut Dice) {
        self.strike(Kind::Usual, dice);
        self.faults.truncate(4);
        self.faults.retain(|(_, fault)| !matches!(fault, Fault::Plan(_)));
    }

    fn strike(&mut self, kind: Kind, dice: &mut Dice) {
        // Each kind of fault is on or off for the whole run: seeds that have few of them find what others hide.
        let kinds: Vec<u32> = (0..12).filter(|_| dice.below(2) == 0).collect();
        let count = match kind {
            Kind::Usual => dice.below(25),
            Kind::Fleet => 10 + dice.below(40),
            Kind::Heavy => 3 + dice.below(12),
            Kind::Outage => dice.below(6),
        };
        if kind == Kind::Outage {
            let down = self.end - self.end / 8;
            self.faults.push((SECOND, Fault::Cut { gateway: 0, down }));
        }
        for _ in 0..count {
            let Some(&which) = kinds.get(dice.below(kinds.len() as u32) as usize) else {
                break;
            };
            let at = u64::from(dice.below((self.end / MS) as u32)) * MS;
            let gateway = dice.below(self.gateways as u32) as usize;
            let fault = fault(which, gateway, self.retain_seconds, dice);
            self.faults.extend(fault.map(|fault| (at, fault)));
        }
        self.faults.sort_by_key(|(at, _)| *at);
        let is_restored = { self.faults.iter() }.any(|(_, fault)| matches!(fault, Fault::Restore { .. }));
        if is_restored {
            // A disk that runs full, or a small spool, lets go of what is kept for an aggregator that loses its last
            // commits: then nothing is promised.
            self.faults
                .retain(|(_, fault)| !matches!(fault, Fault::Full { .. }));
            self.spool_bytes = 16 << 20;
        }
    }
}

/// The devices of a gateway.
#[derive(Clone, Copy)]
struct Dedupe {
    count: u32,
    /// Readings in one message.
    readings: u32,
    /// Bytes of a room's name.
    padding: usize,
}

fn message(at: u64, gateway: usize, devices: Dedupe, number: u32, dice: &mut Dice) -> Publish {
    let Dedupe {
        count,
        readings,
        padding,
    } = devices;
    let device = dice.below(count);
    let (site, kind) = (device % 3, dice.below(10));
    let topic = if kind == 0 {
        format!("s/site{site}/g{gateway}d{device}/power")
    } else {
        format!("s/site{site}/g{gateway}d{device}/env")
    };
    if dice.below(60) == 0 {
        // Never a reading, whoever looks at it.
        let payload = ["{", "{\"ts\":1}", "[]x", "{\"ts\":\"x\",\"temp\":1}"][dice.below(4) as usize];
        return Publish {
            at,
            gateway,
            topic,
            payload: format!("{payload}{}", " ".repeat(number as usize % 50)),
        };
    }
    let mut reading = || {
        let late = match dice.below(20) {
            0 => dice.below(90_000),
            1..4 => dice.below(5_000),
            _ => dice.below(300),
        };
        let ts = START_US / 1_000 + (at / MS) as i64 - i64::from(late);
        // Quarters: sums of them are exact in a double, so rows can be added up.
        let quarters = dice.around_zero(4_000);
        let (whole, part) = (
            quarters.abs() / 4,
            ["", ".25", ".5", ".75"][(quarters.abs() % 4) as usize],
        );
        let sign = if quarters < 0 { "-" } else { "" };
        let room = dice.below(count);
        let hum = dice.below(100);
        format!(
            "{{\"ts\":{ts},\"temp\":{sign}{whole}{part},\"watts\":{},\"hum\":{hum}.1{},\"room\":\"r{room:x<padding$}\"}}",
            dice.below(3_000),
            number % 10,
        )
    };
    let payload = if readings > 1 {
        let all: Vec<String> = (0..readings).map(|_| reading()).collect();
        format!("[{}]", all.join(","))
    } else {
        reading()
    };
    Publish {
        at,
        gateway,
        topic,
        payload,
    }
}

fn fault(which: u32, gateway: usize, retain: i64, dice: &mut Dice) -> Option<Fault> {
    let down = u64::from(dice.below(8_000)) * MS;
    Some(match which {
        0 | 1 => Fault::Crash {
            gateway,
            power: dice.below(2) == 0,
            after_steps: dice.below(12),
            down,
        },
        2 => Fault::CentreCrash {
            durable: dice.below(2) == 0,
            down,
        },
        3 if retain > 1_000 => {
            if dice.below(2) == 0 {
                Fault::Backup
            } else {
                Fault::Restore { down }
            }
        }
        4 => Fault::Cut {
            gateway,
            down: 3 * down,
        },
        5 => Fault::BrokerCut {
            gateway,
            forget: dice.below(2) == 0,
            down,
        },
        6 => Fault::Full {
            gateway,
            room: u64::from(dice.below(4_000)),
            down,
        },
        7 => Fault::DiskFails { gateway, down },
        8 => Fault::StoreFails { down },
        9 => Fault::Clock {
            gateway,
            offset: match dice.below(4) {
                0 => -(START_US / 1_000_000),
                1 => 0,
                _ => dice.around_zero(20_000),
            },
        },
        10 => Fault::Suspend {
            gateway,
            down: 4 * down,
        },
        11 => Fault::Plan(plans::Variant::ALL[dice.below(plans::Variant::ALL.len() as u32) as usize]),
        _ => return None,
    })
}

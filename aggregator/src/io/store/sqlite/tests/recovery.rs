//! A machine that crashes at random moments and one that never does must end with the same bytes.
//!
//! Both see the same agents, which send random batches, duplicates, loss records and frames that are refused, while
//! commits, checkpoints and crashes fall where they fall. A crash loses everything that is not durable: before a commit
//! is written, after it is written and before anybody knows, or while none is under way. Then the agents greet anew and
//! send what the welcome does not name.

use proptest::prelude::*;

use super::*;

const PLAN: &str = r#"[[query]]
name = "q"
topic = "s/{device}"
key = ["device"]
fields = { temp = "temp" }
window = { size = "20s", every = "10s" }
aggregates = ["count", "sum"]
watermark_delay = "0s"
patience = "3s"
coarsen = ["1m", "1h"]
"#;
const HOUR: PipelineId = PipelineId(3);
const AGENTS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Step {
    /// An agent sends its next frame.
    Send(usize, Frame),
    /// An agent sends one of its frames again.
    Repeat(usize, prop::sample::Index),
    /// An agent tells its watermark.
    Tell(usize, i64),
    /// So much time passes, and everything that is due becomes durable.
    Settle(i64),
    /// One commit fails and is tried again later.
    Fail,
    /// The machine ends; the others go on.
    Crash(Death),
}

#[derive(Clone, Debug)]
enum Frame {
    Fine(i64, Vec<(u8, i64)>),
    Minute(i64, Vec<(u8, i64)>),
    Hour(i64, Vec<(u8, i64)>),
    Lost(u64),
    /// A pane that is on no grid.
    Refused,
}

#[derive(Clone, Copy, Debug)]
enum Death {
    Idle,
    Unwritten,
    Written,
}

fn rows() -> impl Strategy<Value = Vec<(u8, i64)>> {
    prop::collection::btree_map(0_u8..5, -100_i64..100, 1..4).prop_map(|rows| rows.into_iter().collect())
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        6 => (0_i64..12, rows()).prop_map(|(pane, rows)| Frame::Fine(pane * 10, rows)),
        2 => (0_i64..2, rows()).prop_map(|(pane, rows)| Frame::Minute(pane * 60, rows)),
        1 => rows().prop_map(|rows| Frame::Hour(0, rows)),
        1 => (1_u64..100).prop_map(Frame::Lost),
        1 => Just(Frame::Refused),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..AGENTS.len();
    prop_oneof![
        6 => (agent.clone(), frame()).prop_map(|(agent, frame)| Step::Send(agent, frame)),
        1 => (agent.clone(), any::<prop::sample::Index>()).prop_map(|(agent, index)| Step::Repeat(agent, index)),
        2 => (agent, 0_i64..150).prop_map(|(agent, watermark)| Step::Tell(agent, watermark)),
        4 => (0_i64..8).prop_map(Step::Settle),
        1 => Just(Step::Fail),
        2 => prop_oneof![Just(Death::Idle), Just(Death::Unwritten), Just(Death::Written)].prop_map(Step::Crash),
    ]
}

fn bytes(frame: &Frame, seq: u64) -> Vec<u8> {
    let batch = |pipeline, pane, rows: &[(u8, i64)]| {
        let rows: Vec<(String, [i64; 1])> = rows
            .iter()
            .map(|&(key, value)| (format!("k{key}"), [value]))
            .collect();
        let rows: Vec<(&str, &[i64])> = rows.iter().map(|(key, values)| (&**key, &values[..])).collect();
        batch_of(pipeline, 1, seq, pane, &rows)
    };
    match frame {
        Frame::Fine(pane, rows) => batch(PIPELINE, *pane, rows),
        Frame::Minute(pane, rows) => batch(MINUTE, *pane, rows),
        Frame::Hour(pane, rows) => batch(HOUR, *pane, rows),
        Frame::Refused => batch(PIPELINE, 5, &[(0, 1)]),
        Frame::Lost(readings) => {
            let entries = vec![LossEntry {
                pipeline: PIPELINE,
                from: at(0),
                to: at(10),
                readings: *readings,
            }];
            let loss = Loss {
                epoch: 1,
                seq,
                entries,
            };
            loss.emit()
        }
    }
}

/// A machine with the connections of its agents.
struct Side {
    centre: Centre,
    connections: [u64; AGENTS.len()],
    seconds: i64,
}

impl Side {
    fn new(folder: &Path) -> Self {
        let mut side = Self {
            centre: Centre::new(folder, PLAN),
            connections: [1, 2],
            seconds: 1,
        };
        side.greet(&[0, 0]);
        side
    }

    fn greet(&mut self, sent: &[usize; AGENTS.len()]) {
        for (index, agent) in AGENTS.into_iter().enumerate() {
            let held = if sent[index] == 0 {
                Vec::new()
            } else {
                held(sent[index] as u64)
            };
            self.centre
                .greet(self.seconds, self.connections[index], agent, held);
        }
    }

    fn send(&mut self, agent: usize, frame: &[u8]) {
        self.centre
            .frame(self.seconds, self.connections[agent], frame.to_vec());
    }

    fn settle(&mut self, more: i64) {
        self.seconds += more;
        self.centre.settle(self.seconds);
    }

    /// A commit is asked for and written or not, and nobody hears of it.
    fn begin_commit(&mut self, write: bool) {
        let Centre {
            aggregator,
            reader,
            writer,
            ..
        } = &mut self.centre;
        if let Some(commit) = aggregator.poll_commit(now(self.seconds), reader).unwrap()
            && write
        {
            writer.commit(&commit).unwrap();
        }
    }

    fn fail_commit(&mut self) {
        let Centre {
            aggregator, reader, ..
        } = &mut self.centre;
        if let Some(commit) = aggregator.poll_commit(now(self.seconds), reader).unwrap() {
            aggregator.handle_commit_failed(now(self.seconds), commit);
        }
    }

    fn crash(mut self, death: Death, frames: &[Vec<Vec<u8>>; AGENTS.len()]) -> Self {
        match death {
            Death::Idle => {}
            Death::Unwritten => self.begin_commit(false),
            Death::Written => self.begin_commit(true),
        }
        let acked = self.connections.map(|connection| self.centre.acked(connection));
        self.centre = self.centre.crash(self.seconds);
        self.connections = self.connections.map(|connection| connection + 2);
        self.greet(&[frames[0].len(), frames[1].len()]);
        for (agent, frames) in frames.iter().enumerate() {
            let connection = self.connections[agent];
            if frames.is_empty() {
                continue;
            }
            let committed = self.centre.committed(connection);
            assert!(
                acked[agent].is_subset(&committed),
                "what was acknowledged is durable"
            );
            for (index, frame) in frames.iter().enumerate() {
                if !committed.contains(&(index as u64 + 1)) {
                    self.centre.frame(self.seconds, connection, frame.clone());
                }
            }
        }
        self
    }

    /// Lets everything come to its end, and says how it is.
    fn end(mut self, sent: [usize; AGENTS.len()]) -> [Vec<String>; 5] {
        self.settle(2);
        for (agent, sent) in sent.into_iter().enumerate() {
            self.send(agent, &heartbeat(1, sent as u64, 10_000));
        }
        self.settle(2);
        // One more batch, so that there is a checkpoint of everything.
        self.send(0, &batch(sent[0] as u64 + 1, 0, &[("end", &[1])]));
        self.settle(20);
        self.settle(20);
        let rows = "SELECT window_start, window_end, device, coarse, status, iif(coarse, 0, coverage), readings, \
                    temp_count, temp_sum FROM q ORDER BY 1, 2, 3, 4";
        let tables = [
            rows,
            "SELECT agent, epoch, first, last FROM catchment_committed ORDER BY 1, 2, 3",
            "SELECT pipeline, start_us, chunk, columns FROM catchment_pane ORDER BY 1, 2, 3",
            "SELECT agent, epoch, seq, pipeline, from_us, to_us, readings FROM catchment_loss ORDER BY 1, 2, 3, 4, 5",
            "SELECT count(*) FROM catchment_batch",
        ];
        tables.map(|sql| self.centre.rows(sql))
    }
}

/// Readings in all batches, and how many of the rows they must give in sum: each fine one is in two windows.
fn expected_sum(steps: &[Step]) -> usize {
    let count = |frame: &Frame| match frame {
        Frame::Fine(_, rows) => 2 * rows.len(),
        Frame::Minute(_, rows) | Frame::Hour(_, rows) => rows.len(),
        Frame::Lost(_) | Frame::Refused => 0,
    };
    steps
        .iter()
        .map(|step| match step {
            Step::Send(_, frame) => count(frame),
            _ => 0,
        })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_machine_that_crashes_ends_with_the_bytes_of_one_that_never_does(steps in prop::collection::vec(step(), 1..60)) {
        let (mortal_folder, twin_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut mortal, mut twin) = (Side::new(mortal_folder.path()), Side::new(twin_folder.path()));
        let mut frames: [Vec<Vec<u8>>; AGENTS.len()] = Default::default();
        for step in &steps {
            match step {
                Step::Send(agent, frame) => {
                    let frame = bytes(frame, frames[*agent].len() as u64 + 1);
                    mortal.send(*agent, &frame);
                    twin.send(*agent, &frame);
                    frames[*agent].push(frame);
                }
                Step::Repeat(agent, index) if !frames[*agent].is_empty() => {
                    let frame = &frames[*agent][index.index(frames[*agent].len())];
                    mortal.send(*agent, frame);
                    twin.send(*agent, frame);
                }
                Step::Tell(agent, watermark) => {
                    let frame = heartbeat(1, frames[*agent].len() as u64, *watermark);
                    mortal.send(*agent, &frame);
                    twin.send(*agent, &frame);
                }
                Step::Settle(more) => {
                    mortal.settle(*more);
                    twin.settle(*more);
                }
                Step::Fail => mortal.fail_commit(),
                Step::Crash(death) => mortal = mortal.crash(*death, &frames),
                Step::Repeat(..) => {}
            }
        }
        let sent = [frames[0].len(), frames[1].len()];
        let (mortal, twin) = (mortal.end(sent), twin.end(sent));
        for (mortal, twin) in mortal.iter().zip(&twin) {
            prop_assert_eq!(mortal, twin);
        }
        // And both with the truth: one more reading, in two windows, ended it.
        let readings: usize = mortal[0].iter().map(|row| row.split('|').nth(6).unwrap().parse::<usize>().unwrap()).sum();
        prop_assert_eq!(readings, expected_sum(&steps) + 2);
        prop_assert_eq!(&mortal[4], &["0".to_owned()]);
    }
}

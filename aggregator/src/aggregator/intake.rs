//! Batches and loss records: each is taken as a whole or not at all, once, under its name.

use bytes::Bytes;
use catchment_common::limits::PANE_READINGS_MAX;
use catchment_common::time::Now;
use catchment_common::wire::{self, Batch, Loss, Message, Refusal, RejectReason, SectionView, WireFault};

use super::{Aggregator, ConnectionId, Fault, Transmit};
use crate::commit::{AppendedBatch, PaneSource};
use crate::limits::{LOSS_ENTRY_BYTES, WATERMARK_AHEAD_MAX};
use crate::merge::Refused;
use crate::window::Loader;

impl Aggregator {
    pub(super) fn handle_batch(
        &mut self,
        now: Now,
        connection: ConnectionId,
        agent: String,
        frame: Bytes,
        source: &impl PaneSource,
    ) -> Result<(), Fault> {
        let batch = match Batch::parse(&frame) {
            Ok(batch) => batch,
            Err(fault) => return self.refuse_damaged(connection, &agent, &frame, fault),
        };
        let (epoch, seq) = (batch.epoch, batch.seq);
        if self.is_known(connection, &agent, epoch, seq) {
            return Ok(());
        }
        self.check_name(connection, &agent, epoch, seq)?;
        if !self.is_certain(connection, &batch) {
            self.refuse_foreign(connection, &agent, &batch, frame.len());
            return Ok(());
        }
        let views = self.check(&agent, &batch);
        let views = match views.and_then(|views| self.in_time(now, views)) {
            Ok(views) => views,
            Err(reason) => {
                self.refuse(connection, &agent, (epoch, seq), frame.len(), reason);
                return Ok(());
            }
        };
        // Loading may fail, and the panes may lack room: before anything is merged.
        for (nth, view) in views.iter().enumerate() {
            Loader::new(&mut self.panes, source, &self.catalog.pipelines).load(view.pipeline, view.pane)?;
            if let Err(refused) = self.panes.check_room(view, nth) {
                self.refuse(connection, &agent, (epoch, seq), frame.len(), refused.into());
                return Ok(());
            }
        }
        for (nth, view) in views.iter().enumerate() {
            let keys = self.panes.merge_checked(&agent, view, nth).map_err(Fault::Wire)?;
            let mut is_late = false;
            for (query, windows) in self.catalog.queries.iter().zip(&mut self.windows) {
                if query.reader(view.pipeline).is_some() {
                    is_late |= view.pane < windows.emitted_through();
                    windows.touch(view.pipeline, view.pane, keys);
                } else if let Some(reader) = query.coarse_reader(view.pipeline) {
                    windows.touch_coarse(reader.pane, view.pipeline, view.pane, keys);
                }
            }
            let (deltas, name) = (view.rows() as u64, (view.pipeline, view.pane, agent.clone()));
            let contribution = self.pending.contributions.entry(name).or_default();
            contribution.0 += deltas;
            contribution.1 += if is_late { deltas } else { 0 };
        }
        self.claim(&agent, epoch, seq);
        self.acknowledge(connection, epoch, seq);
        self.pending.bytes += frame.len();
        self.pending.batches.push(AppendedBatch {
            agent,
            epoch,
            seq,
            frame,
        });
        Ok(())
    }

    /// Checks a whole batch before any of it is merged; returns its sections.
    pub(super) fn check<'b>(
        &mut self,
        agent: &str,
        batch: &Batch<'b>,
    ) -> Result<Vec<SectionView<'b>>, RejectReason> {
        self.panes.start_batch();
        let mut views = Vec::new();
        for view in batch.sections() {
            let view = self.catalog.resolved(view.map_err(reason_of)?);
            let view = view.ok_or(RejectReason::UnknownPipeline)?;
            let pipeline = self
                .catalog
                .pipelines
                .get(&view.pipeline)
                .ok_or(RejectReason::UnknownPipeline)?;
            self.panes.check(agent, &view, pipeline)?;
            views.push(view);
        }
        Ok(views)
    }

    /// Refuses panes that lie further in the future than readings may. Nobody would ask for them before their time, and they
    /// would stay in memory until then. The number of a count window is no time of data, and leaves memory at once.
    fn in_time<'b>(
        &self,
        now: Now,
        views: Vec<SectionView<'b>>,
    ) -> Result<Vec<SectionView<'b>>, RejectReason> {
        let is_ahead = |view: &SectionView<'_>| {
            let pipeline = self.catalog.pipelines.get(&view.pipeline);
            pipeline.is_some_and(|pipeline| {
                let furthest = now.wall.plus(pipeline.max_ahead).plus(WATERMARK_AHEAD_MAX);
                pipeline.count.is_none() && view.pane > furthest
            })
        };
        if views.iter().any(is_ahead) {
            return Err(RejectReason::TooEarly);
        }
        Ok(views)
    }

    /// A record of what an agent had to give up. It settles a seq exactly as the batch would have.
    pub(super) fn handle_loss(
        &mut self,
        connection: ConnectionId,
        agent: String,
        frame: &[u8],
    ) -> Result<(), Fault> {
        let mut loss = match Loss::parse(frame) {
            Ok(loss) => loss,
            Err(fault) => return self.refuse_damaged(connection, &agent, frame, fault),
        };
        // If the batch itself came once, nothing was lost.
        if self.is_known(connection, &agent, loss.epoch, loss.seq) {
            return Ok(());
        }
        self.check_name(connection, &agent, loss.epoch, loss.seq)?;
        for entry in &mut loss.entries {
            entry.readings = entry.readings.min(PANE_READINGS_MAX);
            entry.pipeline = self.catalog.resolve(entry.pipeline).unwrap_or(entry.pipeline);
        }
        self.claim(&agent, loss.epoch, loss.seq);
        self.acknowledge(connection, loss.epoch, loss.seq);
        self.pending.bytes += (loss.entries.len() + 1) * LOSS_ENTRY_BYTES;
        self.pending.losses.push((agent, loss));
        Ok(())
    }

    /// Whether a seq was claimed before; then it is only acknowledged again. If the commit that claims it is still
    /// under way, so will be this acknowledgement's.
    fn is_known(&mut self, connection: ConnectionId, agent: &str, epoch: u64, seq: u64) -> bool {
        let known = self
            .committed
            .set(agent, epoch)
            .is_some_and(|set| set.contains(seq));
        if known {
            self.acknowledge(connection, epoch, seq);
        }
        known
    }

    /// Whether a name may become known: an agent's hello names the epochs that it holds batches of, and how many epochs
    /// and gaps are remembered of one agent is bounded.
    fn check_name(&self, connection: ConnectionId, agent: &str, epoch: u64, seq: u64) -> Result<(), Fault> {
        let session = self.sessions.get(&connection);
        let named = session.and_then(|session| session.held.as_ref());
        if named.is_some_and(|named| !named.contains(&epoch)) {
            return Err(Fault::Unexpected(
                "a batch of an epoch that the hello did not name",
            ));
        }
        Ok(self.committed.room_for(agent, epoch, seq)?)
    }

    /// Marks a seq as settled; durable with the next commit.
    fn claim(&mut self, agent: &str, epoch: u64, seq: u64) {
        if self.committed.insert(agent, epoch, seq) {
            self.pending.urgent = true;
            self.pending
                .claimed
                .entry((agent.to_owned(), epoch))
                .or_default()
                .push(seq);
        }
    }

    /// Acknowledges a seq once the next commit is durable.
    fn acknowledge(&mut self, connection: ConnectionId, epoch: u64, seq: u64) {
        self.pending.urgent = true;
        self.pending.ack_count += 1;
        self.pending
            .acks
            .entry((connection, epoch))
            .or_default()
            .push(seq);
    }

    /// Refuses a named frame that cannot be read. Only a whole envelope's name is settled by it: a damaged one may
    /// claim the name of a good batch.
    fn refuse_damaged(
        &mut self,
        connection: ConnectionId,
        agent: &str,
        frame: &[u8],
        fault: WireFault,
    ) -> Result<(), Fault> {
        let name = wire::claimed_name(frame).ok_or(Fault::Wire(WireFault::Truncated))?;
        if wire::sealed_name(frame).is_ok() {
            if !self.is_known(connection, agent, name.0, name.1) {
                self.check_name(connection, agent, name.0, name.1)?;
                self.refuse(connection, agent, name, frame.len(), reason_of(fault));
            }
        } else {
            self.reject(connection, name, frame.len(), reason_of(fault));
        }
        Ok(())
    }

    /// Tells the agent that a batch will never be taken. Its seq counts as settled, so that watermarks need not wait
    /// for it.
    pub(super) fn refuse(
        &mut self,
        connection: ConnectionId,
        agent: &str,
        name: (u64, u64),
        bytes: usize,
        reason: RejectReason,
    ) {
        // An epoch of which nothing was taken is not remembered for what was refused of it: no statement waits for it,
        // and the same batch would be refused again.
        let is_own = self
            .sessions
            .get(&connection)
            .is_some_and(|session| session.epoch == Some(name.0));
        if is_own || self.committed.set(agent, name.0).is_some() {
            self.claim(agent, name.0, name.1);
        }
        self.reject(connection, name, bytes, reason);
    }

    /// Tells the agent. What is refused counts for the room of a commit as what is taken does: its name is written, and
    /// its answer waits.
    fn reject(
        &mut self,
        connection: ConnectionId,
        (epoch, seq): (u64, u64),
        bytes: usize,
        reason: RejectReason,
    ) {
        self.pending.bytes_refused += bytes.max(LOSS_ENTRY_BYTES);
        let refusal = Refusal { epoch, seq, reason };
        self.transmits
            .push_back((connection, Transmit::Message(Message::Reject(refusal))));
    }
}

impl From<Refused> for RejectReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Wire(fault) => reason_of(fault),
            Refused::OtherPipeline => Self::UnknownPipeline,
            Refused::BadPane => Self::BadPane,
            Refused::OtherAgent => Self::OtherAgent,
            Refused::TooManyReadings => Self::TooManyReadings,
        }
    }
}

fn reason_of(fault: WireFault) -> RejectReason {
    match fault {
        WireFault::Checksum => RejectReason::Checksum,
        WireFault::Version(_) => RejectReason::Version,
        _ => RejectReason::Malformed,
    }
}

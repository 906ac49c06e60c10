//! A gateway's disk at work: jobs step by step, each of which a crash may be the end of.

use catchment_agent::source::{Settled, SourceEvent, SourceRequest};
use catchment_common::time::Now;

use super::show;
use crate::sim::broker::ToBroker;
use crate::sim::world::{Event, World};

/// Bytes that a journal may take beyond its budget: the plans and the tables of this world, which each segment begins
/// with.
const JOURNAL_SLACK: u64 = 16 << 10;

impl World<'_> {
    pub(in crate::sim) fn handle_disk_step(&mut self, index: usize, life: u32) {
        let clock = self.gateway_clock(index);
        let gateway = &mut self.gateways[index];
        let (Some(agent), true) = (&mut gateway.agent, gateway.life == life) else {
            return;
        };
        if self.now >= gateway.disk_heals_at {
            gateway.disk.kill();
        }
        let Some((job, next)) = &mut gateway.job else {
            return;
        };
        if let Some(step) = job.steps.get(*next) {
            *next += 1;
            let result = gateway.disk.take(step);
            let text = format!("gw-{index} {} → {result:?}", show(step));
            if let Err(fault) = result
                && let Some((job, _)) = gateway.job.take()
            {
                agent.handle_job_failed(clock, job, &fault);
            }
            self.log(|| text);
            self.check_disk(index);
        } else if let Some((job, _)) = gateway.job.take() {
            agent.handle_job_done(clock, job.id);
            self.log(|| format!("gw-{index} job {} is done", job.id));
        }
        if self.come_to_doom(index) {
            return;
        }
        if self.gateways[index].job.is_some() {
            self.soon(self.case.disk_us, Event::DiskStep(index, life));
        } else {
            self.after(index);
        }
    }

    pub(super) fn come_to_doom(&mut self, index: usize) -> bool {
        let Some((left, power, down)) = self.gateways[index].doom else {
            return false;
        };
        if left > 1 {
            self.gateways[index].doom = Some((left - 1, power, down));
            return false;
        }
        self.crash_gateway(index, power, down);
        true
    }

    pub(super) fn check_disk(&mut self, index: usize) {
        let (all, spool) = (
            self.gateways[index].disk.bytes(),
            self.gateways[index].disk.spool_bytes(),
        );
        self.figures.disk_bytes_max = self.figures.disk_bytes_max.max(all);
        for (what, bytes, budget) in [
            ("spool", spool, self.case.spool_bytes),
            ("journal", all - spool, self.case.journal_bytes + JOURNAL_SLACK),
        ] {
            if bytes > budget {
                self.fail(format!(
                    "gw-{index}'s {what} takes {bytes} bytes of disk, more than {budget}"
                ));
            }
        }
    }

    pub(super) fn drain_disk(&mut self, index: usize, now: Now) {
        let gateway = &mut self.gateways[index];
        let life = gateway.life;
        let Some(agent) = &mut gateway.agent else { return };
        if let Some(job) = agent.poll_job(now, &gateway.disk) {
            assert!(gateway.job.is_none(), "one job at a time");
            gateway.job = Some((job, 0));
            self.soon(self.case.disk_us, Event::DiskStep(index, life));
        }
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        let mut sent = vec![0; gateway.sides.len()];
        while let Some((source, Settled::Packet(id))) = agent.poll_settled() {
            let side = &mut gateway.sides[source.index()];
            let answer = ToBroker::Acknowledgement(id);
            side.broker.up.push_back((side.connection, answer));
            sent[source.index()] += 1;
        }
        let mut reconnect = Vec::new();
        for source in agent.sources() {
            let side = &mut gateway.sides[source.index()];
            while let Some(request) = agent.poll_source(source) {
                match request {
                    SourceRequest::Reconnect => reconnect.push(source.index()),
                    SourceRequest::Subscribe { packet, .. } if !side.broker.habits.subscribes => {
                        let refused = Vec::new();
                        agent.handle_source(now, source, SourceEvent::Subscribed { packet, refused });
                    }
                    request => {
                        let request = ToBroker::Request(request);
                        side.broker.up.push_back((side.connection, request));
                        sent[source.index()] += 1;
                    }
                }
            }
        }
        for (source, sent) in sent.into_iter().enumerate() {
            for _ in 0..sent {
                self.soon(self.case.habits.lag_us, Event::ToBroker(index, source));
            }
        }
        for source in reconnect {
            self.cut_broker(index, source, false, 0);
        }
    }
}

//! A gateway and its brokers: what comes from them and what goes to them.

use catchment_agent::agent::Agent;
use catchment_agent::metrics::AGENT;
use catchment_agent::source::{Arrival, Delivery, Payload, SourceEvent, SourceId};
use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Timestamp};
use catchment_common::wire::checksum;

use super::Gateway;
use crate::sim::broker::{Copy, FromBroker};
use crate::sim::case::{MS, SECOND};
use crate::sim::world::{Event, Read, World};

impl Gateway {
    /// A connection to a broker is gone. If it was the last one, what watermarks say now is all that can be known.
    pub(super) fn freeze(&mut self, is_last: bool) {
        let agent = self.agent.as_ref().filter(|_| is_last);
        self.frozen = agent.map(|agent| agent.intake().watermarks().collect());
    }

    /// Which of its brokers the devices of a topic publish to.
    fn source_of(&self, topic: &str) -> usize {
        checksum(topic.as_bytes()) as usize % self.sides.len()
    }
}

impl World<'_> {
    /// A gateway that cannot hear its broker says nothing of how far event time has come.
    pub(super) fn check_hearing(&mut self, index: usize) {
        let Gateway { agent, frozen, .. } = &self.gateways[index];
        let (Some(agent), Some(frozen)) = (agent, frozen) else {
            return;
        };
        let is_later = |&(id, at): &(PipelineId, Timestamp)| {
            let then = frozen.iter().find(|(held, _)| *held == id);
            at > then.map_or(Timestamp::MIN, |(_, then)| *then)
        };
        let later = agent.intake().watermarks().find(is_later);
        if let Some((id, at)) = later {
            self.fail(format!(
                "gw-{index} has no broker, and its watermark of pipeline {id:?} moves to {at:?}"
            ));
        }
    }

    pub(in crate::sim) fn handle_publish(&mut self, index: usize) {
        let publish = &self.case.publishes[index];
        let gateway = publish.gateway;
        let source = self.gateways[gateway].source_of(&publish.topic);
        let broker = &mut self.gateways[gateway].sides[source].broker;
        self.accepted[index] = broker.accept(&publish.topic, index);
        let sent = broker.send();
        self.come_down(gateway, source, sent);
    }

    pub(in crate::sim) fn come_down(&mut self, index: usize, source: usize, count: usize) {
        let life = self.gateways[index].life;
        for _ in 0..count {
            self.soon(2_000, Event::FromBroker(index, source, life));
        }
    }

    pub(in crate::sim) fn handle_broker_try(&mut self, index: usize, source: usize) {
        let gateway = &mut self.gateways[index];
        let id = SourceId(source as u16);
        let wants = gateway.agent.as_ref().map(|agent| agent.wants_source(id));
        let side = &mut gateway.sides[source];
        if wants.is_none() || side.broker.is_connected() {
            return;
        }
        if wants == Some(false) {
            // Not before there is a plan.
            return self.at(self.now + SECOND / 10, Event::BrokerTry(index, source));
        }
        if side.broker.closed_until > self.now {
            let until = side.broker.closed_until;
            return self.at(until, Event::BrokerTry(index, source));
        }
        let forget = std::mem::take(&mut side.forget_session);
        let sent = side.broker.connect(forget);
        self.come_down(index, source, sent);
    }

    /// The connection to one of its brokers breaks: another one each time.
    pub(in crate::sim) fn cut_a_broker(&mut self, index: usize, forget: bool, down: u64) {
        let source = (self.now / MS) as usize % self.case.sources;
        self.cut_broker(index, source, forget, down);
    }

    pub(in crate::sim) fn cut_broker(&mut self, index: usize, source: usize, forget: bool, down: u64) {
        let side = &mut self.gateways[index].sides[source];
        side.broker.closed_until = self.now + down;
        side.forget_session |= forget;
        if side.broker.cut(&mut self.dice) {
            self.come_down(index, source, 1);
        }
        self.at(self.now + down + 1, Event::BrokerTry(index, source));
    }

    pub(in crate::sim) fn handle_from_broker(&mut self, index: usize, source: usize, life: u32) {
        if self.gateways[index].life != life || self.gateways[index].agent.is_none() {
            return;
        }
        if let Some(until) = self.gateways[index].sleeps(self.now) {
            return self.at(until, Event::FromBroker(index, source, life));
        }
        let now = self.gateway_clock(index);
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        if agent.is_backed_up() {
            // As in the rim's loop: nothing is read from the broker until the disk has caught up.
            gateway.sides[source].held_arrivals += 1;
            return;
        }
        let Some(from) = gateway.sides[source].broker.down.pop_front() else {
            return;
        };
        let id = SourceId(source as u16);
        match from {
            FromBroker::Connected { connection, resumed } => {
                gateway.sides[source].connection = connection;
                let identifies = gateway.sides[source].broker.habits.identifies;
                agent.handle_source(now, id, SourceEvent::Connected { resumed, identifies });
                gateway.frozen = None;
                self.log(|| {
                    format!("gw-{index} source {source} connection {connection}, resumed: {resumed}")
                });
            }
            FromBroker::Subscribed(packet) => {
                let refused = Vec::new();
                agent.handle_source(now, id, SourceEvent::Subscribed { packet, refused });
            }
            FromBroker::Unsubscribed(packet) => {
                agent.handle_source(now, id, SourceEvent::Unsubscribed { packet });
            }
            FromBroker::Lost => {
                agent.handle_source(now, id, SourceEvent::Lost);
                gateway.sides[source].connection = 0;
                let is_last = gateway.sides.iter().all(|side| side.connection == 0);
                gateway.freeze(is_last);
                self.soon(1_000_000, Event::BrokerTry(index, source));
            }
            FromBroker::Message {
                id: packet,
                duplicate,
                copy,
            } => self.take_copy((index, id), now, (packet, duplicate), copy),
        }
        self.after(index);
    }

    fn take_copy(
        &mut self,
        (index, source): (usize, SourceId),
        now: Now,
        (id, duplicate): (u16, bool),
        copy: Copy,
    ) {
        let Some(agent) = &mut self.gateways[index].agent else {
            return;
        };
        let message = &self.case.publishes[copy.publish];
        let passed = |agent: &Agent| {
            let value = |counter| agent.metrics().value(AGENT, counter);
            value(Counter::Redelivered) + value(Counter::HeldBack)
        };
        let received = |agent: &Agent| -> Vec<(PipelineId, u64)> {
            let ids = agent.plan().pipelines.iter().map(|(id, _)| *id);
            ids.map(|id| (id, agent.metrics().value(id, Counter::Received)))
                .collect()
        };
        let before = (passed(agent), received(agent));
        let arrival = Arrival {
            source,
            subject: &message.topic,
            payload: Payload::Whole(message.payload.as_bytes()),
            delivery: Delivery::Packet { id, duplicate },
            through: &copy.through,
        };
        agent.handle_arrival(now, arrival);
        let after = received(agent);
        let is_taken = passed(agent) == before.0;
        let readers = before
            .1
            .iter()
            .zip(&after)
            .filter(|(before, after)| before.1 < after.1);
        let pipelines: Vec<PipelineId> = readers.map(|(_, (id, _))| *id).collect();
        let version = agent.plan().version;
        self.log(|| {
            let read = pipelines.len();
            format!(
                "gw-{index} message {copy:?} as {id}, again: {duplicate}, taken: {is_taken}, read by {read}"
            )
        });
        if is_taken {
            self.reads[index].push(Read {
                copy,
                version,
                pipelines,
            });
        }
    }

    pub(in crate::sim) fn handle_to_broker(&mut self, index: usize, source: usize) {
        let broker = &mut self.gateways[index].sides[source].broker;
        let answers = broker.handle_next();
        let sent = broker.send();
        self.come_down(index, source, answers + sent);
    }
}

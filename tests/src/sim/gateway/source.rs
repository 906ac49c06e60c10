//! A gateway and its broker: what comes from it and what goes to it.

use catchment_agent::agent::Agent;
use catchment_agent::metrics::AGENT;
use catchment_agent::source::{Arrival, Delivery, Payload, SourceEvent};
use catchment_common::metrics::Counter;
use catchment_common::plan::PipelineId;
use catchment_common::time::{Now, Timestamp};

use super::{Gateway, SOURCE};
use crate::sim::broker::{Copy, FromBroker};
use crate::sim::case::SECOND;
use crate::sim::world::{Event, Read, World};

impl Gateway {
    /// The connection to the broker is gone: what watermarks say now is all that can be known.
    pub(super) fn freeze(&mut self) {
        let agent = self.agent.as_ref();
        self.frozen = agent.map(|agent| agent.intake().watermarks().collect());
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
        let broker = &mut self.gateways[gateway].broker;
        self.accepted[index] = broker.accept(&publish.topic, index);
        let sent = broker.send();
        self.come_down(gateway, sent);
    }

    pub(in crate::sim) fn come_down(&mut self, index: usize, count: usize) {
        let life = self.gateways[index].life;
        for _ in 0..count {
            self.soon(2_000, Event::FromBroker(index, life));
        }
    }

    pub(in crate::sim) fn handle_broker_try(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        let wants = gateway.agent.as_ref().map(|agent| agent.wants_source(SOURCE));
        if wants.is_none() || gateway.broker.is_connected() {
            return;
        }
        if wants == Some(false) {
            // Not before there is a plan.
            return self.at(self.now + SECOND / 10, Event::BrokerTry(index));
        }
        if gateway.broker.closed_until > self.now {
            let until = gateway.broker.closed_until;
            return self.at(until, Event::BrokerTry(index));
        }
        let forget = std::mem::take(&mut gateway.forget_session);
        let sent = gateway.broker.connect(forget);
        self.come_down(index, sent);
    }

    pub(in crate::sim) fn cut_broker(&mut self, index: usize, forget: bool, down: u64) {
        let gateway = &mut self.gateways[index];
        gateway.broker.closed_until = self.now + down;
        gateway.forget_session |= forget;
        if gateway.broker.cut(&mut self.dice) {
            self.come_down(index, 1);
        }
        self.at(self.now + down + 1, Event::BrokerTry(index));
    }

    pub(in crate::sim) fn handle_from_broker(&mut self, index: usize, life: u32) {
        if self.gateways[index].life != life || self.gateways[index].agent.is_none() {
            return;
        }
        if let Some(until) = self.gateways[index].sleeps(self.now) {
            return self.at(until, Event::FromBroker(index, life));
        }
        let now = self.gateway_clock(index);
        let gateway = &mut self.gateways[index];
        let Some(agent) = &mut gateway.agent else { return };
        if agent.is_backed_up() {
            // As in the rim's loop: nothing is read from the broker until the disk has caught up.
            gateway.held_arrivals += 1;
            return;
        }
        let Some(from) = gateway.broker.down.pop_front() else {
            return;
        };
        match from {
            FromBroker::Connected { connection, resumed } => {
                gateway.connection = connection;
                let identifies = gateway.broker.habits.identifies;
                agent.handle_source(now, SOURCE, SourceEvent::Connected { resumed, identifies });
                gateway.frozen = None;
                self.log(|| format!("gw-{index} broker connection {connection}, resumed: {resumed}"));
            }
            FromBroker::Subscribed(packet) => {
                let refused = Vec::new();
                agent.handle_source(now, SOURCE, SourceEvent::Subscribed { packet, refused });
            }
            FromBroker::Unsubscribed(packet) => {
                agent.handle_source(now, SOURCE, SourceEvent::Unsubscribed { packet });
            }
            FromBroker::Lost => {
                agent.handle_source(now, SOURCE, SourceEvent::Lost);
                gateway.freeze();
                self.soon(1_000_000, Event::BrokerTry(index));
            }
            FromBroker::Message { id, duplicate, copy } => self.take_copy(index, now, (id, duplicate), copy),
        }
        self.after(index);
    }

    fn take_copy(&mut self, index: usize, now: Now, (id, duplicate): (u16, bool), copy: Copy) {
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
            source: SOURCE,
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

    pub(in crate::sim) fn handle_to_broker(&mut self, index: usize) {
        let broker = &mut self.gateways[index].broker;
        let answers = broker.handle_next();
        let sent = broker.send();
        self.come_down(index, answers + sent);
    }
}

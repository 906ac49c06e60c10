//! The link between a gateway and the aggregator: three streams up and one down, each in order, none ordered with
//! another.

use std::collections::VecDeque;

use bytes::Bytes;
use catchment_common::wire::Message;

use super::world::{Event, World};

/// Frames that a stream takes before it is full.
const ROOM: usize = 3;

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) gateway: usize,
    /// Control, live, backlog.
    up: [VecDeque<Bytes>; 3],
    down: VecDeque<Message>,
    /// When the last frame of each stream arrives: none overtakes another.
    last: [u64; 4],
    pub(super) broken: bool,
}

impl Link {
    pub(super) fn new(gateway: usize) -> Self {
        Self {
            gateway,
            ..Self::default()
        }
    }

    pub(super) fn has_room(&self, stream: usize) -> bool {
        self.up[stream].len() < if stream == 0 { 4 * ROOM } else { ROOM }
    }
}

impl World<'_> {
    fn arrival(&mut self, link: u64, stream: usize) -> u64 {
        let delay = u64::from(self.dice.below(self.case.link_us)) + 1;
        let earliest = self.now + delay;
        let last = self.links.get_mut(&link).map(|link| &mut link.last[stream]);
        last.map_or(earliest, |last| {
            *last = earliest.max(*last + 1);
            *last
        })
    }

    pub(super) fn send_up(&mut self, link: u64, stream: usize, frame: Bytes) {
        let at = self.arrival(link, stream);
        if let Some(held) = self.links.get_mut(&link) {
            held.up[stream].push_back(frame);
            self.at(at, Event::Up(link, stream));
        }
    }

    pub(super) fn send_down(&mut self, link: u64, message: Message) {
        let at = self.arrival(link, 3);
        if let Some(held) = self.links.get_mut(&link) {
            held.down.push_back(message);
            self.at(at, Event::Down(link));
        }
    }

    pub(super) fn handle_up(&mut self, id: u64, stream: usize) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let gateway = link.gateway;
        let Some(frame) = link.up[stream].pop_front().filter(|_| !link.broken) else {
            return;
        };
        self.take_frame(id, frame);
        self.drain_gateway(gateway);
    }

    pub(super) fn handle_down(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        let gateway = link.gateway;
        if let Some(until) = self.gateways[gateway].sleeps(self.now) {
            return self.at(until, Event::Down(id));
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let Some(message) = link.down.pop_front().filter(|_| !link.broken) else {
            return;
        };
        if self.gateways[gateway].link == Some(id) {
            self.take_message(gateway, message);
        }
    }

    /// What is on the way is lost; each side learns of it in its own time.
    pub(super) fn break_link(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut link.broken, true) {
            return;
        }
        self.log(|| format!("link {id} breaks"));
        self.soon(3_000_000, Event::LostBelow(id));
        self.soon(10_000_000, Event::LostAbove(id));
    }

    pub(super) fn handle_lost_below(&mut self, id: u64) {
        let Some(link) = self.links.get(&id) else { return };
        let gateway = link.gateway;
        if let Some(until) = self.gateways[gateway].sleeps(self.now) {
            return self.at(until, Event::LostBelow(id));
        }
        if self.gateways[gateway].link == Some(id) {
            self.gateways[gateway].link = None;
            let now = self.gateway_clock(gateway);
            if let Some(agent) = &mut self.gateways[gateway].agent {
                agent.handle_disconnected(now);
            }
            self.drain_gateway(gateway);
        }
    }
}

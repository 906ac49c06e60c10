//! What a broker's session is to hold, and what it may hold.
//!
//! A session outlives its connections and the agent's process, so what the broker subscribes the agent to is not what
//! the agent last asked for: an earlier plan's filters stay until they are taken back. The agent therefore notes each
//! filter on its disk before it asks for it, asks for all that the plan wants on every connection (a SUBSCRIBE whose
//! answer was cut off may be lost), and takes back the others.
//!
//! With MQTT 5 every subscription has an identifier, which copies name ([`super::copies`]). A filter that is asked for
//! again after it was taken back gets another one: copies of before may still wait at the broker. They are drawn at
//! random, so that an agent that has lost its disk does not use those of its earlier life. Filters that another one
//! covers are not asked for. Where copies name nothing (MQTT 3.1.1, or a broker that says so), filters that merely overlap would bring
//! copies that nobody can tell apart: a common cover takes their place.

use std::collections::VecDeque;

use catchment_common::topic::filter::{Filter, disjoint, widest};

use super::copies::Provider;
use crate::log::journal::sources::Held;

/// A filter and its identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subscription {
    /// What is asked for.
    pub filter: Filter,
    /// What copies call it, from 1 to 268,435,455; 0 where copies name nothing.
    pub id: u32,
}

/// What is to be sent to the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Subscribe(Vec<Subscription>),
    Unsubscribe(Vec<Filter>),
}

/// Identifiers are below this (MQTT 5, section 3.8.2.1.2).
const IDS_END: u32 = 268_435_456;
/// Filters of one SUBSCRIBE or UNSUBSCRIBE without identifiers: brokers bound the size of packets.
const FILTERS_PER_PACKET: usize = 64;
/// The subscriptions of one session.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four things that may each be so")]
pub(super) struct Subscriptions {
    /// What readers ask for; none without a plan.
    wanted: Option<Vec<Filter>>,
    /// Whether copies name what they came through.
    identifies: bool,
    /// What the session is to hold, and as those see it who read what comes.
    targets: Vec<Filter>,
    providers: Vec<Provider>,
    /// How many of them no copy has come through, at QoS 0 and at QoS 1.
    new: [usize; 2],
    /// Where the provider with an identifier is, ascending.
    places: Vec<(u32, usize)>,
    /// Whether some of them overlap.
    is_crossing: bool,
    /// What it may hold, as it stands in the journal.
    held: Vec<Held>,
    /// Nothing else is in it. Else the session is older than the agent's memory.
    is_known: bool,
    /// What is to be sent, in order.
    changes: VecDeque<Change>,
    is_connected: bool,
    /// What identifiers are drawn from.
    random: u64,
}

impl Subscriptions {
    /// Those of a session of which nothing is known.
    pub(super) fn new(random: u64) -> Self {
        Self {
            random: random | 1,
            ..Self::default()
        }
    }

    /// What readers of a plan ask for; returns whether `held` has changed.
    pub(super) fn want(&mut self, filters: Option<Vec<Filter>>) -> bool {
        self.wanted = filters;
        self.renew(false)
    }

    /// A connection is up; returns whether `held` has changed.
    pub(super) fn handle_connected(&mut self, resumed: bool, identifies: bool) -> bool {
        self.is_connected = true;
        self.identifies = identifies;
        let is_forgotten = !resumed && !self.held.is_empty();
        if !resumed {
            self.held.clear();
        }
        self.is_known |= !resumed;
        self.targets.clear();
        self.providers.clear();
        self.renew(true) || is_forgotten
    }

    /// The connection is gone.
    pub(super) fn handle_lost(&mut self) {
        self.is_connected = false;
        self.changes.clear();
    }

    /// Asks for what is wanted and not asked for yet, or for `all`, and takes back what is not; returns whether `held`
    /// has changed.
    fn renew(&mut self, all: bool) -> bool {
        if !self.is_connected {
            return false;
        }
        let before: Vec<(Filter, Provider)> =
            { self.targets.drain(..) }.zip(self.providers.drain(..)).collect();
        let wanted = self.wanted.iter().flatten().cloned();
        self.targets = if self.identifies {
            widest(wanted)
        } else {
            disjoint(wanted)
        };
        // What has been there longest comes first, and provides for whoever it can: a reader keeps its provider.
        let held = &self.held;
        let age = |filter: &Filter| held.iter().position(|held| held.filter == *filter);
        self.targets
            .sort_by_key(|filter| age(filter).unwrap_or(usize::MAX));
        let mut has_changed = false;
        for filter in self.targets.clone() {
            let known = before.iter().find(|(known, _)| *known == filter);
            let place = self.held.iter().position(|held| held.filter == filter);
            // Of an earlier connection, if it has a name where copies name something.
            let held = place.map(|place| &self.held[place]);
            let held = held.filter(|held| all && (held.id > 0) == self.identifies);
            let provider = match (known, held) {
                (Some((_, known)), _) => *known,
                (None, Some(held)) => Provider {
                    id: held.id,
                    seen: held.seen,
                    is_granted: true,
                },
                (None, None) => {
                    has_changed = true;
                    self.add(&filter, place, all)
                }
            };
            self.providers.push(provider);
        }
        let ids = self.providers.iter().map(|provider| provider.id);
        self.places = ids.zip(0..).collect();
        self.places.sort_unstable();
        self.is_crossing =
            self.identifies && disjoint(self.targets.iter().cloned()).len() < self.targets.len();
        self.new = [0, 1].map(|queue| self.providers.iter().filter(|of| !of.seen[queue]).count());
        self.plan_changes(&before, all);
        has_changed
    }

    fn plan_changes(&mut self, before: &[(Filter, Provider)], all: bool) {
        // What a plan of a moment ago wanted, and nobody has asked for yet.
        let waiting: Vec<Filter> = { self.changes.drain(..) }
            .filter_map(|change| match change {
                Change::Subscribe(some) => Some(some),
                Change::Unsubscribe(_) => None,
            })
            .flatten()
            .map(|subscription| subscription.filter)
            .collect();
        let is_new = |filter: &Filter| before.iter().all(|(known, _)| known != filter);
        let targets = self.targets.iter().zip(&self.providers);
        let new: Vec<Subscription> = targets
            .filter(|(filter, _)| all || waiting.contains(filter) || is_new(filter))
            .map(|(filter, provider)| Subscription {
                filter: filter.clone(),
                id: provider.id,
            })
            .collect();
        let per_packet = if self.identifies { 1 } else { FILTERS_PER_PACKET };
        let asked = new
            .chunks(per_packet)
            .map(|some| Change::Subscribe(some.to_vec()));
        let stale: Vec<Filter> = self.stale().cloned().collect();
        let taken_back = stale.chunks(FILTERS_PER_PACKET);
        let taken_back = taken_back.map(|some| Change::Unsubscribe(some.to_vec()));
        self.changes = asked.chain(taken_back).collect();
    }

    /// A new subscription to a filter, which may be held from before.
    fn add(&mut self, filter: &Filter, place: Option<usize>, is_connecting: bool) -> Provider {
        let seen = [false; 2];
        let id = if self.identifies { self.free_id() } else { 0 };
        let new = Held {
            filter: filter.clone(),
            id,
            seen,
        };
        match place {
            Some(place) => self.held[place] = new,
            None => self.held.push(new),
        }
        // What is not known to be there may be.
        let is_granted = is_connecting && !self.is_known;
        Provider { id, seen, is_granted }
    }

    /// An identifier that nothing has.
    fn free_id(&mut self) -> u32 {
        loop {
            // Xorshift64: enough to keep lives apart.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let id = (self.random >> 32) as u32 % (IDS_END - 1) + 1;
            if self.held.iter().all(|held| held.id != id) {
                return id;
            }
        }
    }

    fn stale(&self) -> impl Iterator<Item = &Filter> {
        let held = self.held.iter().map(|held| &held.filter);
        held.filter(|filter| !self.targets.contains(filter))
    }

    /// Whether the session may hold what is not wanted.
    pub(super) fn has_stale(&self) -> bool {
        self.stale().next().is_some()
    }

    /// Whether copies name what they came through.
    #[inline]
    pub(super) fn identifies(&self) -> bool {
        self.identifies
    }

    /// The subscriptions, as those see them who read what comes.
    #[inline]
    pub(super) fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// The place of the subscription that brings what `filter` asks for; none without a connection.
    pub(super) fn provider(&self, filter: &Filter) -> Option<u32> {
        let place = self.targets.iter().position(|target| target.covers(filter))?;
        Some(place as u32)
    }

    /// A copy has come through these subscriptions at QoS 0 or 1; returns whether `held` has changed.
    #[inline]
    pub(super) fn handle_copy(&mut self, through: &[u32], queue: usize) -> bool {
        let mut has_changed = false;
        for id in through {
            let Ok(found) = self.places.binary_search_by_key(id, |(id, _)| *id) else {
                continue;
            };
            let place = self.places[found].1;
            if !self.providers[place].seen[queue] {
                self.providers[place].seen[queue] = true;
                self.new[queue] -= 1;
                let filter = &self.targets[place];
                let held = self.held.iter_mut().find(|held| held.filter == *filter);
                if let Some(held) = held {
                    held.seen[queue] = true;
                }
                has_changed = true;
            }
        }
        has_changed
    }

    /// Whether a message may come through several subscriptions: some overlap, or the session may hold filters of before,
    /// known ones or others.
    #[inline]
    pub(super) fn may_overlap(&self) -> bool {
        self.is_crossing || !self.is_known || self.held.len() > self.targets.len()
    }

    /// Whether something wanted has had no copy yet.
    #[inline]
    pub(super) fn has_new(&self, queue: usize) -> bool {
        self.new[queue] > 0
    }

    /// The next that is to be sent.
    pub(super) fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Whether all that is wanted has been asked for.
    pub(super) fn has_asked(&self) -> bool {
        self.changes.is_empty()
    }

    /// The broker has these.
    pub(super) fn handle_subscribed(&mut self, subscriptions: &[Subscription]) {
        for granted in subscriptions {
            let place = self.targets.iter().position(|target| *target == granted.filter);
            if let Some(place) = place {
                self.providers[place].is_granted = true;
            }
        }
    }

    /// The broker has taken these back; returns whether `held` has changed.
    pub(super) fn handle_unsubscribed(&mut self, filters: &[Filter]) -> bool {
        let before = self.held.len();
        let targets = &self.targets;
        self.held
            .retain(|held| !filters.contains(&held.filter) || targets.contains(&held.filter));
        self.held.len() < before
    }

    /// What the session may hold.
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Whether it holds nothing else.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// What it held when the journal was written, and whether nothing else.
    pub(super) fn restore(&mut self, held: Vec<Held>, is_known: bool) {
        self.held = held;
        self.is_known = is_known;
    }

    /// Whether a plan wants anything.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| !wanted.is_empty())
    }

    /// Whether there is anything to connect for: a plan that wants something, or something to take back.
    pub(super) fn wants_connection(&self) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_some_and(|wanted| !wanted.is_empty() || !self.held.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn wanted(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| filter(text)).collect()
    }

    /// What is asked for and what is taken back.
    fn changes(subscriptions: &mut Subscriptions) -> (Vec<String>, Vec<String>) {
        let (mut asked, mut taken_back) = (Vec::new(), Vec::new());
        while let Some(change) = subscriptions.poll_change() {
            match change {
                Change::Subscribe(some) => asked.extend(some.iter().map(|one| one.filter.to_string())),
                Change::Unsubscribe(some) => taken_back.extend(some.iter().map(ToString::to_string)),
            }
        }
        (asked, taken_back)
    }

    fn check(subscriptions: &mut Subscriptions, asked: &[&str], taken_back: &[&str]) {
        let (all, back) = changes(subscriptions);
        assert_eq!(
            (all, back),
            (
                asked.iter().map(ToString::to_string).collect(),
                taken_back.iter().map(ToString::to_string).collect()
            )
        );
    }

    #[test]
    fn what_another_covers_is_not_asked_for() {
        let mut subscriptions = Subscriptions::new(7);
        subscriptions.want(Some(wanted(&["s/+/t", "s/#", "t/+"])));
        check(&mut subscriptions, &[], &[]);
        assert!(subscriptions.handle_connected(false, true));
        check(&mut subscriptions, &["s/#", "t/+"], &[]);
        assert_eq!(subscriptions.provider(&filter("s/+/t")), Some(0));
        assert_eq!(subscriptions.provider(&filter("u/x")), None);
    }

    #[test]
    fn where_copies_have_no_names_crossing_filters_are_joined() {
        let mut subscriptions = Subscriptions::new(7);
        subscriptions.want(Some(wanted(&["s/+/env", "s/x/#"])));
        subscriptions.handle_connected(false, false);
        check(&mut subscriptions, &["s/+/#"], &[]);
        subscriptions.handle_connected(true, true);
        check(&mut subscriptions, &["s/+/env", "s/x/#"], &["s/+/#"]);
    }

    #[test]
    fn a_session_gives_back_what_an_earlier_plan_asked_for() {
        let mut subscriptions = Subscriptions::new(7);
        subscriptions.want(Some(wanted(&["s/#"])));
        subscriptions.handle_connected(false, true);
        changes(&mut subscriptions);
        subscriptions.handle_lost();
        subscriptions.want(Some(wanted(&["s/+/env"])));
        assert!(
            subscriptions.handle_connected(true, true),
            "it is noted before it is asked for"
        );
        check(&mut subscriptions, &["s/+/env"], &["s/#"]);
        assert!(subscriptions.handle_unsubscribed(&[filter("s/#")]));
        let held: Vec<&str> = subscriptions
            .held()
            .iter()
            .map(|held| held.filter.as_str())
            .collect();
        assert_eq!(held, ["s/+/env"]);
        // It may have been wanted again meanwhile.
        assert!(!subscriptions.handle_unsubscribed(&[filter("s/+/env")]));
        subscriptions.handle_connected(false, true);
        check(&mut subscriptions, &["s/+/env"], &[]);
    }

    /// A plan that came in the moment between a connection and its first SUBSCRIBE took all subscriptions away.
    #[test]
    fn a_plan_that_comes_before_anything_was_asked_for_loses_no_subscription() {
        for second in [&["a", "b"][..], &["b", "c"]] {
            let mut subscriptions = Subscriptions::new(7);
            subscriptions.want(Some(wanted(&["a", "b"])));
            subscriptions.handle_connected(false, true);
            subscriptions.want(Some(wanted(second)));
            let asked: Vec<String> = std::iter::from_fn(|| subscriptions.poll_change())
                .filter_map(|change| match change {
                    Change::Subscribe(some) => Some(some[0].filter.to_string()),
                    Change::Unsubscribe(_) => None,
                })
                .collect();
            assert_eq!(asked, second);
        }
    }

    #[test]
    fn a_reader_keeps_its_provider() {
        let mut subscriptions = Subscriptions::new(7);
        subscriptions.want(Some(wanted(&["s/x/#", "s/x/env"])));
        subscriptions.handle_connected(false, true);
        changes(&mut subscriptions);
        let id = subscriptions.providers()[0].id;
        for _ in 0..2 {
            subscriptions.want(Some(wanted(&["s/+/env", "s/x/#", "s/x/env"])));
            let place = subscriptions.provider(&filter("s/x/env")).unwrap();
            assert_eq!(subscriptions.providers()[place as usize].id, id);
            subscriptions.handle_connected(true, true);
        }
    }

    #[test]
    fn a_subscription_is_new_until_a_copy_has_come_through_it() {
        let mut subscriptions = Subscriptions::new(7);
        subscriptions.want(Some(wanted(&["a"])));
        subscriptions.handle_connected(false, true);
        let id = subscriptions.providers()[0].id;
        assert!(
            [0, 1]
                .iter()
                .all(|queue| subscriptions.handle_copy(&[id], *queue))
        );
        assert!(!subscriptions.has_new(0) && !subscriptions.has_new(1));
        subscriptions.want(Some(wanted(&["a", "b"])));
        assert!(subscriptions.has_new(0) && subscriptions.has_new(1));
        let id = subscriptions.providers()[1].id;
        assert!(subscriptions.handle_copy(&[id], 1) && !subscriptions.handle_copy(&[id], 1));
        assert!(subscriptions.has_new(0) && !subscriptions.has_new(1));
        subscriptions.handle_connected(true, true);
        assert!(
            subscriptions.has_new(0) && !subscriptions.has_new(1),
            "it is remembered"
        );
    }

    #[test]
    fn without_a_plan_there_is_nothing_to_connect_for() {
        let mut subscriptions = Subscriptions::new(7);
        assert!(!subscriptions.wants_connection());
        subscriptions.want(Some(wanted(&[])));
        assert!(!subscriptions.wants_connection());
        subscriptions.restore(
            vec![Held {
                filter: filter("a"),
                id: 0,
                seen: [true; 2],
            }],
            true,
        );
        assert!(subscriptions.wants_connection(), "to take it back");
    }

    #[test]
    fn identifiers_are_distinct_and_new_whenever_a_filter_is_asked_for_again() {
        let mut subscriptions = Subscriptions::new(7);
        let filters: Vec<String> = (0..3_000).map(|number| format!("s/{number}")).collect();
        let texts: Vec<&str> = filters.iter().map(String::as_str).collect();
        subscriptions.want(Some(wanted(&texts)));
        subscriptions.handle_connected(false, true);
        let ids = |of: &Subscriptions| -> std::collections::BTreeSet<u32> {
            of.providers().iter().map(|of| of.id).collect()
        };
        let first = ids(&subscriptions);
        assert_eq!(first.len(), 3_000);
        assert!(first.iter().all(|id| (1..IDS_END).contains(id)));
        subscriptions.handle_connected(true, true);
        assert_eq!(ids(&subscriptions), first, "what is held keeps its own");
        subscriptions.want(Some(wanted(&["s/#"])));
        subscriptions.want(Some(wanted(&texts)));
        assert!(ids(&subscriptions).is_disjoint(&first));
        let mut other = Subscriptions::new(8);
        other.want(Some(wanted(&texts)));
        other.handle_connected(true, true);
        assert!(
            ids(&other).is_disjoint(&first),
            "nor are they those of another life"
        );
    }
}

//! Version 2: what is written today.
//!
//! Each type here mirrors one that the program works with and is nothing but a form of bytes: postcard writes its
//! fields in their order, without names. So a field, its place and its type must not change once this version has been
//! released. The conversions to and from the program's types stand below each type.
//!
//! **To add a field** to `Pipeline`, `Query` or a message before version 2 is released:
//!
//! 1. Add it to the program's type (`plan.rs`, `plan/pipeline.rs`, `wire/message.rs`).
//! 2. Add it here, at the end of the mirror type, in plain integers, strings, lists and options, and in both
//!    conversions. Whatever must hold for the value is checked on the way in.
//! 3. Version 1 does not have it, and the compiler says so: in `v1/` give it its default on the way in (what agents
//!    and databases of before meant), and on the way out name it with `absent(…)`, unless it is the default: agents of
//!    version 1 are not given what they would misread.
//! 4. `CATCHMENT_BLESS=1 cargo test -p catchment-tests --test golden` writes `tests/golden/v2` anew, never `v1`.
//!    Describe the field in `docs/WIRE.md`.
//!
//! A choice more (an enum's variant) is appended, and the same steps hold.
//!
//! **Once version 2 is released**, a change needs version 3: copy this folder to `v3`, change it there, raise
//! [`super::VERSION`], and let `v2` go the way of `v1`: read for one more version. What a reader may ignore needs no
//! version: it is an extension at the end of a message (a tag and bytes).

mod heartbeat;

mod language;

mod message;

mod pipeline;

mod plan;

use alloc::vec::Vec;

use serde::Deserialize;

use super::message::Message;
use super::{WireFault, put, take};
use crate::plan as program;

/// The version byte of these forms.
pub const VERSION: u8 = 2;

/// Appends the body of a message, without its kind and version.
pub(super) fn put_message(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(body) => put(&message::Hello::from(body), out),
        Message::Welcome(body) => put(&message::Welcome::from(body), out),
        Message::Ack(body) => put(&message::Ack::from(body), out),
        Message::Reject(body) => put(&message::Refusal::from(body), out),
        Message::Plan(body) => put(&message::Plan::from(body), out),
        Message::Drain => put(&message::Drain::default(), out),
        Message::Heartbeat(body) => put(&heartbeat::Heartbeat::from(body), out),
        Message::Forked(body) => put(&message::Forked::from(body), out),
    }
}

/// Reads the body of a message of this kind. Its bounds are still to be checked.
pub(super) fn take_message(kind: u8, body: &[u8]) -> Result<Message, WireFault> {
    Ok(match kind {
        1 => Message::Hello(into::<message::Hello, _>(body)?),
        2 => Message::Welcome(into::<message::Welcome, _>(body)?),
        3 => Message::Ack(into::<message::Ack, _>(body)?),
        4 => Message::Reject(into::<message::Refusal, _>(body)?),
        5 => Message::Plan(into::<message::Plan, _>(body)?),
        6 => {
            take::<message::Drain>(body)?.check()?;
            Message::Drain
        }
        7 => Message::Heartbeat(into::<heartbeat::Heartbeat, _>(body)?),
        10 => Message::Forked(into::<message::Forked, _>(body)?),
        other => return Err(WireFault::Kind(other)),
    })
}

/// An agent's plan, for its fingerprint.
pub(super) fn put_agent_plan(plan: &super::AgentPlan, out: &mut Vec<u8>) {
    put(&pipeline::AgentPlan::from(plan), out);
}

/// A plan as the database keeps it.
pub(super) fn put_plan(plan: &program::Plan, out: &mut Vec<u8>) {
    put(&plan::Plan::from(plan), out);
}

/// Reads what [`put_plan`] wrote.
pub(super) fn take_plan(bytes: &[u8]) -> Result<program::Plan, WireFault> {
    into::<plan::Plan, _>(bytes)
}

/// A pipeline's canonical form.
pub(super) fn put_pipeline(pipeline: &program::Pipeline, out: &mut Vec<u8>) {
    put(&pipeline::Pipeline::from(pipeline), out);
}

/// Reads what [`put_pipeline`] wrote. Its bounds are still to be checked.
pub(super) fn take_pipeline(bytes: &[u8]) -> Result<program::Pipeline, WireFault> {
    into::<pipeline::Pipeline, _>(bytes)
}

/// Reads a mirror type and makes what it mirrors.
fn into<'b, M: Deserialize<'b> + TryInto<T, Error = WireFault>, T>(bytes: &'b [u8]) -> Result<T, WireFault> {
    take::<M>(bytes)?.try_into()
}

/// Converts each.
fn all<A, B: From<A>>(items: impl IntoIterator<Item = A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}

/// Converts each, up to the first that cannot be.
fn try_all<A, B: TryFrom<A>>(items: impl IntoIterator<Item = A>) -> Result<Vec<B>, B::Error> {
    items.into_iter().map(B::try_from).collect()
}

#[cfg(test)]
mod tests;

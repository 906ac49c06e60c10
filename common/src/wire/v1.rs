//! Version 1, frozen: what agents and databases of before wrote, and what agents of version 1 are still told.
//!
//! These types never change. A field that the program has since gained gets here its default, on the way in; on the way
//! out anything but the default is [`Inexpressible`], because whoever reads version 1 would misread it. See
//! [`super::v2`] for how a field is added.

mod language;

mod message;

mod pipeline;

mod plan;

use alloc::vec::Vec;
use core::fmt;

use super::message::Message;
use super::{WireFault, put, take};
use crate::plan::{self as program, PipelineId};

/// The version byte of these forms, where they have one: plans and pipelines in a database had none.
pub const VERSION: u8 = 1;
/// The name that a peer of version 1 offers in the TLS handshake.
pub const ALPN: &[u8] = b"catchment/1";

/// Version 1 has no form for something; the text names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inexpressible(pub &'static str);

impl fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version 1 of the wire has no {}", self.0)
    }
}

impl core::error::Error for Inexpressible {}

/// A whole message of version 1, for a peer that speaks nothing newer.
pub fn emit_message(message: &Message) -> Result<Vec<u8>, Inexpressible> {
    let mut frame = alloc::vec![message.kind(), VERSION];
    let out = &mut frame;
    match message {
        Message::Hello(body) => put(&message::Hello::from(body), out),
        Message::Welcome(body) => put(&message::Welcome::try_from(body)?, out),
        Message::Ack(body) => put(&message::EpochRange::from(body), out),
        Message::Reject(body) => put(&message::Refusal::from(body), out),
        Message::Plan(body) => put(&pipeline::AgentPlan::try_from(body)?, out),
        Message::Drain => {}
        Message::Heartbeat(body) => put(&message::Heartbeat::try_from(body)?, out),
        Message::Forked(_) => return Err(Inexpressible("answer to an older copy of a state")),
    }
    Ok(frame)
}

/// Reads the body of a message of this kind. Its bounds are still to be checked.
pub(super) fn take_message(kind: u8, body: &[u8]) -> Result<Message, WireFault> {
    Ok(match kind {
        1 => Message::Hello(take::<message::Hello>(body)?.into()),
        2 => Message::Welcome(take::<message::Welcome>(body)?.try_into()?),
        3 => Message::Ack(take::<message::EpochRange>(body)?.into()),
        4 => Message::Reject(take::<message::Refusal>(body)?.into()),
        5 => Message::Plan(take::<pipeline::AgentPlan>(body)?.try_into()?),
        6 => take::<()>(body).map(|()| Message::Drain)?,
        7 => Message::Heartbeat(take::<message::Heartbeat>(body)?.try_into()?),
        other => return Err(WireFault::Kind(other)),
    })
}

/// Reads a plan as databases of version 1 kept it, without a version byte.
pub fn parse_plan(bytes: &[u8]) -> Result<program::Plan, WireFault> {
    take::<plan::Plan>(bytes)?.try_into()
}

/// Reads a pipeline as databases of version 1 kept it, without a version byte.
pub fn parse_pipeline(bytes: &[u8]) -> Result<program::Pipeline, WireFault> {
    let pipeline: program::Pipeline = take::<pipeline::Pipeline>(bytes)?.try_into()?;
    pipeline.check().map_err(WireFault::Invalid)?;
    Ok(pipeline)
}

/// A pipeline as databases of version 1 kept it: for tests that make one.
pub fn emit_pipeline(pipeline: &program::Pipeline) -> Result<Vec<u8>, Inexpressible> {
    let mut out = Vec::new();
    put(&pipeline::Pipeline::try_from(pipeline)?, &mut out);
    Ok(out)
}

/// A pipeline's number; whoever speaks to a peer of version 1 has put it in the place of the id.
fn number(id: PipelineId) -> Result<u32, Inexpressible> {
    id.number().ok_or(Inexpressible("pipeline without a number"))
}

/// Requires that something which version 1 does not have is not there either.
fn absent(is_absent: bool, what: &'static str) -> Result<(), Inexpressible> {
    if is_absent {
        Ok(())
    } else {
        Err(Inexpressible(what))
    }
}

/// Converts each.
fn all<A, B: From<A>>(items: impl IntoIterator<Item = A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}

/// Converts each, up to the first that cannot be.
fn try_all<A, B: TryFrom<A>>(items: impl IntoIterator<Item = A>) -> Result<Vec<B>, B::Error> {
    items.into_iter().map(B::try_from).collect()
}

//! Which version a message or a stored form has: this one is written, this one and the one before are read, and a
//! newer one is refused by its number.

use alloc::vec::Vec;

use super::{AgentPlan, Message, VERSION, WireFault, v1, v2};
use crate::limits::FRAME_BYTES_MAX;
use crate::plan::{Pipeline, PipelineId, Plan};
use crate::sketch::hash;

impl Message {
    /// The frame's bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut frame = alloc::vec![self.kind(), VERSION];
        v2::put_message(self, &mut frame);
        frame
    }

    /// Reads a frame of this version or the one before, and checks its bounds. Batches are not messages and are refused
    /// by kind.
    pub fn parse(frame: &[u8]) -> Result<Self, WireFault> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(WireFault::TooLong("frame"));
        }
        let [kind, version, body @ ..] = frame else {
            return Err(WireFault::Truncated);
        };
        let message = match *version {
            v1::VERSION => v1::take_message(*kind, body)?,
            v2::VERSION => v2::take_message(*kind, body)?,
            other => return Err(WireFault::Version(other)),
        };
        message.check()?;
        Ok(message)
    }
}

impl AgentPlan {
    /// What tells this plan from any other, in whatever database: XXH64 (seed 0) of its form. Never 0, which is "none".
    pub fn fingerprint(&self) -> u64 {
        let mut form = alloc::vec![VERSION];
        v2::put_agent_plan(self, &mut form);
        hash(&form).max(1)
    }
}

/// A plan's bytes.
pub fn emit_plan(plan: &Plan) -> Vec<u8> {
    let mut out = alloc::vec![VERSION];
    v2::put_plan(plan, &mut out);
    out
}

/// Reads a plan. Its rules are for [`Plan::validate`].
pub fn parse_plan(bytes: &[u8]) -> Result<Plan, WireFault> {
    v2::take_plan(of_this_version(bytes)?)
}

/// A pipeline's bytes: its canonical form. Two pipelines with equal bytes are the same.
pub fn emit_pipeline(pipeline: &Pipeline) -> Vec<u8> {
    let mut out = alloc::vec![VERSION];
    v2::put_pipeline(pipeline, &mut out);
    out
}

/// The id of a pipeline: XXH64 (seed 0) of its canonical form, version byte included, then the id of the pipeline of
/// whose ladder it is a rung (0 if of none) and the nonce, 8 bytes each, least significant first. The nonce is 0 for the
/// first that is so defined, and a random number for one that goes on apart from those before it.
///
/// A pipeline that version 2 can express keeps its form of version 2 in whatever version follows, so that its id does
/// not change.
pub fn fingerprint(pipeline: &Pipeline, coarser_of: Option<PipelineId>, nonce: u64) -> PipelineId {
    let mut form = emit_pipeline(pipeline);
    form.extend_from_slice(&coarser_of.unwrap_or(PipelineId::NONE).0.to_le_bytes());
    form.extend_from_slice(&nonce.to_le_bytes());
    let hash = hash(&form);
    // Below are the numbers of version 1.
    PipelineId(if hash < PipelineId::NUMBERS { !hash } else { hash })
}

/// Reads a pipeline and checks it.
pub fn parse_pipeline(bytes: &[u8]) -> Result<Pipeline, WireFault> {
    let pipeline = v2::take_pipeline(of_this_version(bytes)?)?;
    pipeline.check().map_err(WireFault::Invalid)?;
    Ok(pipeline)
}

/// What stands behind the version byte.
fn of_this_version(bytes: &[u8]) -> Result<&[u8], WireFault> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&other, _)) => Err(WireFault::Version(other)),
        None => Err(WireFault::Truncated),
    }
}

//! What devices' own numbers say of a reading.

use catchment_common::key::SEPARATOR;
use catchment_common::metrics::Reason;
use catchment_common::plan::Pipeline;
use catchment_common::time::Now;

use super::view::{Read, Seen, View};
use crate::decode::convert;
use crate::log::journal::Journal;
use crate::source::dedupe::{Dedupe, IDENTITY_BYTES_MAX};

/// A reading's topic and number of its own, room to put an identity together, and the devices.
pub(super) type Numbers<'n> = ((&'n str, u64), &'n mut Vec<u8>, &'n mut Dedupe);

impl View {
    /// Reads one reading, and refuses it when its device's number says that it was taken before, if the pipeline asks
    /// for numbers.
    #[inline]
    pub(super) fn read_new(
        &mut self,
        seen: Seen<'_>,
        pipeline: &Pipeline,
        now: Now,
        ((topic, stamp), identity, dedupe): Numbers<'_>,
        journal: &mut Journal,
    ) -> Result<Read, Reason> {
        let read = self.read(seen, pipeline, now)?;
        let Some(path) = self.sequence.filter(|_| read.unwanted.is_none()) else {
            return Ok(read);
        };
        let number = convert::sequence(seen.raw(path))?;
        identify(identity, topic, self.key_buffer.as_bytes())?;
        if dedupe.take(identity, number, stamp, journal) {
            Ok(read)
        } else {
            Err(Reason::Repeated)
        }
    }
}

/// Puts a device's identity together: its topic and its key.
fn identify(identity: &mut Vec<u8>, topic: &str, key: &[u8]) -> Result<(), Reason> {
    if topic.len() + 1 + key.len() > IDENTITY_BYTES_MAX {
        return Err(Reason::BadKey);
    }
    identity.clear();
    identity.extend_from_slice(topic.as_bytes());
    identity.push(SEPARATOR);
    identity.extend_from_slice(key);
    Ok(())
}

//! What devices' own numbers say of a reading.

use catchment_common::counter::Reason;
use catchment_common::key::SEPARATOR;

use super::view::{Seen, View};
use crate::devices::{Devices, IDENTITY_BYTES_MAX};
use crate::journal::Journal;
use crate::reading;

/// Refuses a reading that its device's number says was taken before, if the slice asks for numbers.
pub(super) fn check_number(
    seen: Seen<'_>,
    view: &View,
    (topic, stamp): (&str, u64),
    identity: &mut Vec<u8>,
    devices: &mut Devices,
    journal: &mut Journal,
) -> Result<(), Reason> {
    let Some(path) = view.sequence else { return Ok(()) };
    let number = reading::sequence(seen.raw(path))?;
    identify(identity, topic, view.key_buffer.as_bytes())?;
    if devices.take(identity, number, stamp, journal) {
        Ok(())
    } else {
        Err(Reason::Repeated)
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

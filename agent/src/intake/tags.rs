//! Where tags come from, and the tags that sketches watch.

use catchment_common::limits::TAGS_MAX;
use catchment_common::plan::KeyPart;

use super::Message;
use crate::decode::PathTree;
use crate::reading;
use crate::sketches::TagValues;

/// Where one tag of a message is.
#[derive(Clone, Copy, Debug)]
pub(super) enum TagFrom {
    Capture(usize),
    Path(usize),
}

impl TagFrom {
    pub(super) fn all(parts: &[KeyPart], tree: &mut PathTree) -> Vec<Self> {
        let one = |part: &KeyPart| match part {
            KeyPart::Capture(index) => Self::Capture(usize::from(*index).min(TAGS_MAX - 1)),
            KeyPart::Payload(path) => Self::Path(tree.add(path)),
        };
        parts.iter().map(one).collect()
    }
}

/// Reads the watched tags of one reading; returns how many are not there. A tag of another type is none: readings are
/// not told apart by it, so the reading counts all the same.
pub(super) fn watch(watched: &[TagFrom], message: &Message<'_>, reading: usize, tags: &mut TagValues) -> u64 {
    tags.clear();
    let mut absent = 0;
    for tag in watched {
        let is_there = match *tag {
            TagFrom::Capture(index) => tags.push(Some(message.captures[index].as_bytes())),
            TagFrom::Path(path) => match reading::tag(message.decoded.raw(message.text, reading, path)) {
                Ok(tag) => tags.push(Some(tag.as_bytes())),
                Err(_) => tags.push(None),
            },
        };
        absent += u64::from(!is_there);
    }
    absent
}

//! Where a value is in a message: a path into the payload, or a capture of the topic.

use alloc::string::String;
use alloc::vec::Vec;

/// A dotted path into a payload, split at the dots. A number leads into an array, whose first item is 0.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    /// The object keys to follow, outermost first.
    pub segments: Vec<String>,
}

impl Path {
    /// Splits `text` at its dots; whether the result is usable is for [`crate::plan::Plan::validate`] to say.
    pub fn parse(text: &str) -> Self {
        Self {
            segments: text.split('.').map(String::from).collect(),
        }
    }
}

impl core::fmt::Display for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(segment)?;
        }
        Ok(())
    }
}

/// Where one tag of a key comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeyPart {
    /// The n-th capture of the topic.
    Capture(u8),
    /// A value in the payload.
    Payload(Path),
}

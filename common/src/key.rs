//! Keys: the ordered tag values that a reading is grouped by.
//!
//! A key's bytes are its tag values joined by NUL, so that equal tags give equal bytes and byte order is the order of
//! tags. [`KeyBuffer`] builds them on the stack.

use crate::limits::KEY_BYTES_MAX;

/// What stands between two tag values.
pub const SEPARATOR: u8 = 0;

/// A key while it is put together: bytes on the stack, at most [`KEY_BYTES_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct KeyBuffer {
    bytes: [u8; KEY_BYTES_MAX],
    length: usize,
    tags: usize,
}

/// Why a tag value cannot be part of a key: it is empty, has a NUL, or makes the key longer than [`KEY_BYTES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadTag;

impl Default for KeyBuffer {
    fn default() -> Self {
        Self {
            bytes: [0; KEY_BYTES_MAX],
            length: 0,
            tags: 0,
        }
    }
}

impl KeyBuffer {
    /// Starts anew.
    pub fn clear(&mut self) {
        (self.length, self.tags) = (0, 0);
    }

    /// Appends a tag value.
    #[inline]
    pub fn push(&mut self, tag: &str) -> Result<(), BadTag> {
        let separator = usize::from(self.tags > 0);
        let end = self.length + separator + tag.len();
        if tag.is_empty() || end > KEY_BYTES_MAX || tag.as_bytes().contains(&SEPARATOR) {
            return Err(BadTag);
        }
        if separator == 1 {
            self.bytes[self.length] = SEPARATOR;
        }
        self.bytes[self.length + separator..end].copy_from_slice(tag.as_bytes());
        self.length = end;
        self.tags += 1;
        Ok(())
    }

    /// The key so far.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The tag values of a key of `tags` tags, or `None` if the bytes are not such a key. A key without tags is empty.
pub fn tags_of(key: &[u8], tags: usize) -> Option<impl Iterator<Item = &str>> {
    let text = core::str::from_utf8(key).ok()?;
    let count = if key.is_empty() {
        0
    } else {
        1 + key.iter().filter(|&&byte| byte == SEPARATOR).count()
    };
    let values = text.split(char::from(SEPARATOR));
    (count == tags && (tags == 0 || values.clone().all(|value| !value.is_empty()))).then(|| values.take(tags))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn tags_and_bytes() {
        let mut key = KeyBuffer::default();
        assert_eq!(key.push("berlin"), Ok(()));
        assert_eq!(key.push("dev-1"), Ok(()));
        assert_eq!(key.as_bytes(), b"berlin\0dev-1");
        let tags: Vec<&str> = tags_of(key.as_bytes(), 2).unwrap().collect();
        assert_eq!(tags, ["berlin", "dev-1"]);
        assert!(tags_of(key.as_bytes(), 1).is_none());
        assert!(tags_of(b"", 1).is_none());
        assert_eq!(tags_of(b"", 0).unwrap().count(), 0);
        assert!(tags_of(b"a\0", 2).is_none());
        assert!(tags_of(b"\xff", 1).is_none());
    }

    #[test]
    fn bad_tags_are_refused() {
        let mut key = KeyBuffer::default();
        assert_eq!(key.push(""), Err(BadTag));
        assert_eq!(key.push("a\0b"), Err(BadTag));
        assert_eq!(key.push(&"x".repeat(KEY_BYTES_MAX + 1)), Err(BadTag));
        assert_eq!(key.push(&"x".repeat(KEY_BYTES_MAX)), Ok(()));
        assert_eq!(key.push("y"), Err(BadTag));
    }
}

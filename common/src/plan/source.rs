//! What sources of agents are called.

use crate::limits::SOURCE_NAME_BYTES_MAX;

/// Whether a source may have this name: 1 to 64 letters, digits, `_`, `-` and `.` of ASCII. It stands in configurations,
/// plans, client ids and tables.
pub fn is_source_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=SOURCE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["plant", "line-1", "Hall_2.north", "7"] {
            assert!(is_source_name(good), "{good}");
        }
        let long = "x".repeat(SOURCE_NAME_BYTES_MAX + 1);
        for bad in ["", "a b", "a/b", "a:b", "ä", "a\n", &long] {
            assert!(!is_source_name(bad), "{bad}");
        }
    }
}

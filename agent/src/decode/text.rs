//! Values as JSON writes them, into the arena.

use std::fmt::Write as _;

use catchment_common::number::decimal::{Value, ValueFault};

/// A text, in quotes.
pub(super) fn quoted(arena: &mut String, text: &str) {
    quoted_from(arena, text.chars());
}

/// A text of these characters, in quotes.
pub(super) fn quoted_from(arena: &mut String, characters: impl Iterator<Item = char>) {
    arena.push('"');
    for character in characters {
        match character {
            '"' | '\\' => {
                arena.push('\\');
                arena.push(character);
            }
            control if control < ' ' => {
                let _ = write!(arena, "\\u{:04x}", control as u32);
            }
            plain => arena.push(plain),
        }
    }
    arena.push('"');
}

/// A cell of a format that does not tell numbers from texts: what looks like a number is one. Spaces around it do not
/// count, and an empty cell is nothing.
pub(super) fn cell(arena: &mut String, text: &str) {
    let text = text.trim();
    match Value::parse(text.as_bytes()) {
        Ok(_) | Err(ValueFault::OutOfRange) => arena.push_str(text),
        Err(_) if text.is_empty() => {}
        Err(_) => quoted(arena, text),
    }
}

pub(super) fn float(arena: &mut String, float: f64) {
    finite(arena, float.is_finite(), format_args!("{float:e}"));
}

pub(super) fn single(arena: &mut String, float: f32) {
    finite(arena, float.is_finite(), format_args!("{float:e}"));
}

/// A float of 16 bits: as for the others, the shortest decimal that is nearer to it than to any other.
pub(super) fn half(arena: &mut String, bits: u16) {
    let exact = half_value(bits);
    if !exact.is_finite() {
        return finite(arena, false, format_args!(""));
    }
    // Neighbours in magnitude; both distances are exact in a double.
    let (size, magnitude) = (bits & 0x7fff, exact.abs());
    let above = if size == 0x7bff {
        65_536.0
    } else {
        half_value(size + 1)
    };
    let below = if size == 0 { -above } else { half_value(size - 1) };
    let is_nearest = |text: &str| {
        let read: f64 = text.parse().unwrap_or(f64::NAN);
        read > f64::midpoint(below, magnitude) && read < f64::midpoint(magnitude, above)
    };
    let mut short = Short::default();
    for digits in 0..6 {
        short = Short::default();
        let _ = write!(short, "{magnitude:.digits$e}");
        if is_nearest(short.as_str()) {
            break;
        }
    }
    if bits & 0x8000 != 0 {
        arena.push('-');
    }
    arena.push_str(short.as_str());
}

fn half_value(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1_024.0 + fraction) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Numbers that are not finite have no JSON; as texts they are told apart from other texts.
fn finite(arena: &mut String, is_finite: bool, text: std::fmt::Arguments<'_>) {
    if is_finite {
        let _ = arena.write_fmt(text);
    } else {
        arena.push_str("\"NaN\"");
    }
}

/// A short text on the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Short {
    bytes: [u8; 48],
    length: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self {
            bytes: [0; 48],
            length: 0,
        }
    }
}

impl Short {
    pub(crate) fn of(number: impl std::fmt::Display) -> Self {
        let mut short = Self::default();
        // Numbers have fewer than 48 digits; of longer texts the beginning would be no number.
        let _ = write!(short, "{number}");
        short
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let Some(room) = self.bytes.get_mut(self.length..end) else {
            self.length = 0;
            return Err(std::fmt::Error);
        };
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut arena = String::new();
        write(&mut arena);
        arena
    }

    #[test]
    fn halves_have_their_shortest_decimal() {
        for (bits, text) in [
            (0x0000, "0e0"),
            (0x3c00, "1e0"),
            (0xc000, "-2e0"),
            (0x2e66, "1e-1"),
            (0x3555, "3.333e-1"),
            (0x7bff, "6.55e4"),
            (0x0001, "6e-8"),
            (0x4d60, "2.15e1"),
            (0x7c00, "\"NaN\""),
            (0x7e01, "\"NaN\""),
        ] {
            assert_eq!(written(|arena| half(arena, bits)), text, "{bits:04x}");
        }
    }

    #[test]
    fn cells_are_numbers_when_they_look_like_one() {
        for (text, expected) in [
            (" 21.50 ", "21.50"),
            ("+.5", "+.5"),
            ("1e30", "1e30"),
            ("berlin", "\"berlin\""),
            ("a\"b\\\n", "\"a\\\"b\\\\\""),
            ("a\tb", "\"a\\u0009b\""),
            ("NaN", "\"NaN\""),
            ("  ", ""),
            ("2026-01-01T00:00:00Z", "\"2026-01-01T00:00:00Z\""),
        ] {
            assert_eq!(written(|arena| cell(arena, text)), expected, "{text:?}");
        }
    }
}

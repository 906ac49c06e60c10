//! Bare words in JSON for values that are not finite, as `printf` and Python's `json` write them: `nan`, `-Infinity`.

/// The words, in any case and behind a sign or none.
const WORDS: [&[u8]; 3] = [b"nan", b"infinity", b"inf"];
/// What is written in the place of one: a text that says that there is no finite value.
const QUOTED: &str = "\"NaN\"";

/// Copies a text with each bare word replaced by a quoted one; returns whether there was any. Words within strings stay
/// as they are. Takes one pass and no memory but that of the copy.
pub(super) fn quote(text: &str, out: &mut String) -> bool {
    out.clear();
    let bytes = text.as_bytes();
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'+' | b'-' | b'a'..=b'z' | b'A'..=b'Z' => {
                let end = token_end(bytes, at + 1);
                if is_word(&bytes[at..end]) {
                    out.push_str(&text[copied..at]);
                    out.push_str(QUOTED);
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    copied > 0
}

/// Where a string ends that starts at `at`: behind its closing quote, or with the text.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return bytes.len(),
        }
    }
}

/// Where the run of letters, digits and other characters of words and numbers ends.
fn token_end(bytes: &[u8], from: usize) -> usize {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    let length = bytes[from..].iter().position(|byte| !is_part(byte));
    length.map_or(bytes.len(), |length| from + length)
}

fn is_word(token: &[u8]) -> bool {
    let unsigned = match token {
        [b'+' | b'-', rest @ ..] => rest,
        _ => token,
    };
    WORDS.iter().any(|word| unsigned.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str) -> Option<String> {
        let mut out = String::from("something else");
        quote(text, &mut out).then_some(out)
    }

    #[test]
    fn words_are_quoted_and_nothing_else_is() {
        for (text, expected) in [
            (r#"{"a":nan,"b":1}"#, r#"{"a":"NaN","b":1}"#),
            (r"[NaN, -Infinity , +inf]", r#"["NaN", "NaN" , "NaN"]"#),
            (r#"{"nan":-NAN}"#, r#"{"nan":"NaN"}"#),
            (r#"{"a\"":nan}"#, r#"{"a\"":"NaN"}"#),
            ("nan", r#""NaN""#),
        ] {
            assert_eq!(quoted(text).as_deref(), Some(expected));
        }
        for text in [
            r#"{"nan":1}"#,
            r#"{"a":"b, nan"}"#,
            r#"{"a":"b\", nan"}"#,
            r#"{"a":nano,"b":banana,"c":nan_,"d":-1e5}"#,
            r#"{"a":"nan"#,
            r#"{"a":"nan\"#,
            "",
        ] {
            assert_eq!(quoted(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_json_already_stays_what_it_is(text in r#"[\[\]{}:,"nai\\ ü0-9.+-]{0,40}"#) {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert_eq!(quoted(&text), None);
            }
        }
    }
}

//! Lengths of time as people write them, and those that mean something else than they look like.

use catchment_common::time::Span;
use toml::Spanned;

use super::Faults;

/// What stands for a length that could not be read, so that the other parts are checked all the same.
const NOTHING: Span = Span::from_secs(1);

/// Units that are no fixed time: `humantime` takes a month for 30.44 days and a year for 365.25.
const MONTHS: [&str; 3] = ["M", "month", "months"];
const YEARS: [&str; 4] = ["y", "year", "years", "yr"];
const WEEKS: [&str; 3] = ["w", "week", "weeks"];

/// A length of time. `M` is refused: whoever writes it may mean minutes or months.
pub(super) fn duration(text: &Spanned<String>, faults: &mut Faults) -> Span {
    if units(text.get_ref()).any(|unit| unit == "M") {
        let message = format!(
            "`{}` may mean minutes or months; write {} for minutes, or days such as 30d",
            text.get_ref(),
            text.get_ref().replace('M', "m")
        );
        faults.push((text.span().start, message));
        return NOTHING;
    }
    read(text, faults)
}

/// The length of a window or of a part of one. Months and years are refused, which would be 30.44 and 365.25 days.
pub(super) fn of_window(text: &Spanned<String>, faults: &mut Faults) -> Span {
    let is_month = units(text.get_ref()).any(|unit| MONTHS.contains(&unit));
    let is_year = units(text.get_ref()).any(|unit| YEARS.contains(&unit));
    if !is_month && !is_year {
        return read(text, faults);
    }
    let (what, other) = if is_month {
        ("month", "`1m` is a minute, ")
    } else {
        ("year", "")
    };
    let message = format!(
        "`{}` is no fixed length: a {what} has more days or fewer; {other}write size = \"1mo\" with a `timezone` for \
         months of the calendar, or days such as 30d",
        text.get_ref()
    );
    faults.push((text.span().start, message));
    NOTHING
}

/// The size or step of a window. Weeks are refused: these windows are counted from 1970, which began on a Thursday.
pub(super) fn aligned(text: &Spanned<String>, faults: &mut Faults) -> Span {
    if !units(text.get_ref()).any(|unit| WEEKS.contains(&unit)) {
        return of_window(text, faults);
    }
    let days = humantime::parse_duration(text.get_ref()).map_or(7, |span| span.as_secs() / 86_400);
    let message = format!(
        "weeks without a time zone would begin on Thursdays; write size = \"1w\" with a `timezone` for weeks from Monday, \
         or {days}d for so many days counted from 1970-01-01"
    );
    faults.push((text.span().start, message));
    NOTHING
}

fn read(text: &Spanned<String>, faults: &mut Faults) -> Span {
    let micros =
        humantime::parse_duration(text.get_ref()).map(|duration| i64::try_from(duration.as_micros()));
    let message = match micros {
        Ok(Ok(micros)) => return Span::from_micros(micros),
        Ok(Err(_)) => format!("`{}` is too long", text.get_ref()),
        Err(error) => format!(
            "`{}` is not a duration: {error}; write 10s, 5m or 1h",
            text.get_ref()
        ),
    };
    faults.push((text.span().start, message));
    NOTHING
}

/// The words of a length.
fn units(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphabetic())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn fault(lines: &str) -> String {
        let text = format!(
            "[[query]]\nname = \"a\"\ntopic = \"s/+\"\nkey = []\nfields = {{ temp = \"temp\" }}\naggregates = [\"mean\"]\n{lines}\n"
        );
        parse(&text, "p").map_or_else(|errors| errors.to_string(), |_| "none".into())
    }

    #[test]
    fn lengths_that_look_like_others_are_refused() {
        for (size, hint) in [
            ("1M", "`1m` is a minute, write size = \"1mo\" with a `timezone`"),
            (
                "2months",
                "`2months` is no fixed length: a month has more days or fewer",
            ),
            ("1y", "a year has more days or fewer; write size = \"1mo\""),
            (
                "1w",
                "write size = \"1w\" with a `timezone` for weeks from Monday, or 7d",
            ),
            ("2weeks 1h", "or 14d"),
        ] {
            let fault = fault(&format!("window = {{ size = \"{size}\" }}"));
            assert!(
                fault.starts_with("p:7:19: ") && fault.contains(hint),
                "{size}: {fault}"
            );
        }
        assert!(fault("window = { size = \"28d\", every = \"1w\" }").contains("Thursdays"));
        assert!(fault("window = { session = \"1y\" }").contains("no fixed length"));
        assert!(
            fault("window = { size = \"1m\" }\nallowed_lateness = \"5M\"")
                .contains("may mean minutes or months; write 5m for minutes")
        );
        assert_eq!(fault("window = { session = \"1w\" }"), "none");
        assert_eq!(fault("window = { size = \"7d\" }\nretention = \"1y\""), "none");
        assert_eq!(
            fault("window = { size = \"1w\", timezone = \"Europe/Berlin\" }"),
            "none"
        );
    }

    #[test]
    fn paths_of_other_languages_are_refused_wherever_they_stand() {
        let window = "window = { size = \"1m\" }";
        let with = |lines: &str| fault(&format!("{lines}\n{window}"));
        assert_eq!(
            with("time = { path = \"a[0].ts\", unit = \"ms\" }"),
            "p:7:17: path `a[0].ts` is written as in another language and would match nothing; write `a.0.ts`: names and \
             numbers with dots between them, and the first item of a list is 0"
        );
        assert!(with("tags = { room = \"a.#.room\" }").starts_with("p:7:17: path `a.#.room`"));
        assert!(with("dedupe = \"$.seq\"").contains("write `seq`"));
    }
}

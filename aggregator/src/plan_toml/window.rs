//! `window = { … }`: which kind it is, and its lengths.

use catchment_common::limits::COUNT_MAX;
use catchment_common::plan::{Hopping, Period, Window};
use catchment_common::time::Span;
use toml::Spanned;

use super::Faults;
use super::duration::{aligned, of_window};
use super::raw::RawWindow;
use crate::io::config::nearest;
use crate::window::{UnknownZone, Zone};

/// What stands for a window that could not be read, so that the other parts are checked all the same.
const NOTHING: Window = Window::tumbling(Span::from_secs(1));

pub(super) fn convert(raw: &Spanned<RawWindow>, faults: &mut Faults) -> Window {
    let place = raw.span().start;
    let raw = raw.get_ref();
    if let Some(count) = &raw.count {
        let others = [
            ("size", &raw.size),
            ("every", &raw.every),
            ("offset", &raw.offset),
            ("session", &raw.session),
            ("timezone", &raw.timezone),
        ];
        let why = "it ends when it has so many readings";
        refuse(&others, "a window with `count` has no", why, faults);
        let readings = u32::try_from(*count.get_ref()).ok();
        let readings = readings.filter(|readings| (1..=COUNT_MAX).contains(readings));
        if readings.is_none() {
            let message = format!(
                "a window has 1 to {COUNT_MAX} readings, not {}; write window = {{ count = 100 }}, or cut by time with `size`",
                count.get_ref()
            );
            faults.push((count.span().start, message));
        }
        return Window::Count {
            readings: readings.unwrap_or(1),
        };
    }
    if let Some(gap) = &raw.session {
        let others = [
            ("size", &raw.size),
            ("every", &raw.every),
            ("offset", &raw.offset),
            ("timezone", &raw.timezone),
        ];
        refuse(
            &others,
            "a session has no",
            "it lasts from one pause to the next",
            faults,
        );
        return Window::Session {
            gap: of_window(gap, faults),
        };
    }
    let Some(size) = &raw.size else {
        let message = "the window has no `size`; write window = { size = \"60s\" }, { session = \"5m\" } or { count = 100 }";
        faults.push((place, message.into()));
        return NOTHING;
    };
    if let Some(zone) = &raw.timezone {
        let others = [("every", &raw.every), ("offset", &raw.offset)];
        refuse(
            &others,
            "windows in a time zone have no",
            "they are days, weeks or months",
            faults,
        );
        return calendar(size, zone, faults);
    }
    let size = aligned(size, faults);
    let mut length =
        |text: &Option<Spanned<String>>, default| text.as_ref().map_or(default, |text| aligned(text, faults));
    Window::Hopping(Hopping {
        size,
        every: length(&raw.every, size),
        offset: length(&raw.offset, Span::ZERO),
    })
}

/// Keys that do not belong to a kind of window.
fn refuse(keys: &[(&str, &Option<Spanned<String>>)], which: &str, why: &str, faults: &mut Faults) {
    for (name, text) in keys {
        if let Some(text) = text {
            faults.push((text.span().start, format!("{which} `{name}`: {why}; drop it")));
        }
    }
}

fn calendar(size: &Spanned<String>, zone: &Spanned<String>, faults: &mut Faults) -> Window {
    const PERIODS: [Period; 3] = [Period::Day, Period::Week, Period::Month];
    let period = PERIODS.into_iter().find(|period| period.name() == size.get_ref());
    if period.is_none() {
        let message = format!(
            "`{}` is no period of a calendar; with a time zone write 1d, 1w (from Monday) or 1mo",
            size.get_ref()
        );
        faults.push((size.span().start, message));
    }
    let found = Zone::find(zone.get_ref())
        .map_err(|UnknownZone { known }| {
            let near = nearest(zone.get_ref(), known.iter().map(String::as_str));
            let hint = near.map_or_else(
                || "write a name of the IANA database, such as Europe/Berlin".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("there is no time zone `{}`; {hint}", zone.get_ref());
            faults.push((zone.span().start, message));
        })
        .ok();
    let (Some(period), Some(found)) = (period, found) else {
        return NOTHING;
    };
    Window::Calendar {
        period,
        zone: found.name().to_owned(),
        pane: found.pane(),
    }
}

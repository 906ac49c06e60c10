//! `window = { … }`: which kind it is, and its lengths.

use std::ops::Range;

use catchment_common::plan::{Hopping, Window};
use catchment_common::time::Span;
use toml::Spanned;

use super::raw::RawWindow;
use super::{Faults, duration};

/// What stands for a window that could not be read, so that the other parts are checked all the same.
const NOTHING: Window = Window::tumbling(Span::from_secs(1));

pub(super) fn convert(raw: &Spanned<RawWindow>, faults: &mut Faults) -> Window {
    let place = raw.span().start;
    let raw = raw.get_ref();
    let later = [
        ("session", raw.session.as_ref().map(Spanned::span)),
        ("count", raw.count.as_ref().map(Spanned::span)),
        ("timezone", raw.timezone.as_ref().map(Spanned::span)),
    ];
    let unsupported: Vec<(&str, Range<usize>)> = later
        .into_iter()
        .filter_map(|(name, span)| Some((name, span?)))
        .collect();
    for (name, span) in &unsupported {
        let message = format!("windows with `{name}` are not supported yet; use `size` and `every`");
        faults.push((span.start, message));
    }
    let Some(size) = &raw.size else {
        if unsupported.is_empty() {
            faults.push((
                place,
                "the window has no `size`; write window = { size = \"60s\" }".into(),
            ));
        }
        return NOTHING;
    };
    let size = duration(size, faults);
    let mut length = |text: &Option<Spanned<String>>, default| {
        text.as_ref().map_or(default, |text| duration(text, faults))
    };
    Window::Hopping(Hopping {
        size,
        every: length(&raw.every, size),
        offset: length(&raw.offset, Span::ZERO),
    })
}

//! SenML (RFC 8428), in JSON and CBOR: records whose names, times and values are relative to base values before them.
//!
//! The pack is taken apart like any other payload of its kind; then each record is resolved and becomes a reading with
//! the paths `n` (the full name), `bn` and `name` (its two parts), `u`, `v`, `vs`, `vb`, `vd`, `s`, `t` and `ut`.
//! A time below 2²⁸ counts from now, and a record without one is of now.

use catchment_common::metrics::Reason;
use catchment_common::number::decimal::Value;
use catchment_common::plan::Path;

use super::{Context, Decoded, PathTree, Raw, cbor, json, text, walk};
use crate::decode::convert;

/// The labels of records, in JSON and in CBOR.
const LABELS: [(&str, &str); 15] = [
    ("bver", "-1"),
    ("bn", "-2"),
    ("bt", "-3"),
    ("bu", "-4"),
    ("bv", "-5"),
    ("bs", "-6"),
    ("n", "0"),
    ("u", "1"),
    ("v", "2"),
    ("vs", "3"),
    ("vb", "4"),
    ("s", "5"),
    ("t", "6"),
    ("ut", "7"),
    ("vd", "8"),
];
const BVER: usize = 0;
const BN: usize = 1;
const BT: usize = 2;
const BU: usize = 3;
const BV: usize = 4;
const BS: usize = 5;
const N: usize = 6;
const U: usize = 7;
const V: usize = 8;
const VS: usize = 9;
const VB: usize = 10;
const S: usize = 11;
const T: usize = 12;
const UT: usize = 13;
const VD: usize = 14;

/// The version that this is written for.
const VERSION_MAX: Value = match Value::from_units(10 * catchment_common::number::decimal::ONE) {
    Some(version) => version,
    None => Value::ZERO,
};
/// Times below count from now, in seconds.
const ABSOLUTE_FROM: i128 = (1 << 28) * catchment_common::number::decimal::ONE;
/// One microsecond of a second, in units.
const MICRO: i128 = catchment_common::number::decimal::ONE / 1_000_000;

/// A decoder of packs.
#[derive(Debug)]
pub(super) struct Senml {
    is_cbor: bool,
    tree: PathTree,
    records: Decoded,
}

/// What the records before have set.
#[derive(Clone, Copy, Default)]
struct Base<'p> {
    name: &'p str,
    unit: Option<&'p str>,
    time: Value,
    value: Option<Value>,
    sum: Option<Value>,
}

impl Senml {
    pub(super) fn json() -> Self {
        Self::new(false)
    }

    pub(super) fn cbor() -> Self {
        Self::new(true)
    }

    fn new(is_cbor: bool) -> Self {
        let mut tree = PathTree {
            refuses_unknown: true,
            ..PathTree::default()
        };
        for (json, cbor) in LABELS {
            tree.add(&Path {
                segments: vec![if is_cbor { cbor } else { json }.into()],
            });
        }
        Self {
            is_cbor,
            tree,
            records: Decoded::default(),
        }
    }

    pub(super) fn decode(
        &mut self,
        out: &mut Decoded,
        tree: &PathTree,
        payload: &[u8],
        context: Context<'_>,
    ) -> Result<(), Reason> {
        let records = &mut self.records;
        records.clear(&self.tree);
        let body = if self.is_cbor {
            walk::decode(records, &self.tree, cbor::Items::new(payload))?;
            super::Body::Arena
        } else {
            json::decode(records, &self.tree, payload)?
        };
        for &(reason, count) in records.unreadable() {
            (0..count).try_for_each(|_| out.give_up_part(reason))?;
        }
        let text = records.text(body);
        let mut base = Ok(Base::default());
        for nth in 0..records.readings() {
            let record = Record { records, text, nth };
            record.check_version()?;
            base = base.and_then(|base| record.rebase(base));
            if base.is_ok() && !record.is_reading() {
                continue;
            }
            let begun = out.readings();
            let resolved = base.and_then(|base| record.resolve(&base, out, tree, context));
            match resolved {
                Ok(()) => {}
                Err(Reason::OversizedPayload) => return Err(Reason::OversizedPayload),
                Err(reason) if out.readings() > begun => out.give_up_reading(reason),
                Err(reason) => out.give_up_part(reason)?,
            }
        }
        Ok(())
    }
}

/// One record of a pack.
#[derive(Clone, Copy)]
struct Record<'p> {
    records: &'p Decoded,
    text: &'p str,
    nth: usize,
}

impl<'p> Record<'p> {
    fn raw(self, label: usize) -> Raw<'p> {
        self.records.raw(self.text, self.nth, label)
    }

    fn number(self, label: usize) -> Result<Option<Value>, Reason> {
        match convert::value(self.raw(label), None) {
            Ok(value) => Ok(value.map(|(value, _)| value)),
            Err(why) => Err(why.reason()),
        }
    }

    /// A text between its quotes.
    fn string(self, label: usize) -> Result<Option<&'p str>, Reason> {
        match self.raw(label) {
            Raw::Absent => Ok(None),
            Raw::Text(text) => match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                Some(inner) => Ok(Some(inner)),
                None => Err(Reason::WrongType),
            },
            Raw::Blocked => Err(Reason::WrongType),
        }
    }

    /// Whether it is more than base values for the records behind it.
    fn is_reading(self) -> bool {
        [V, VS, VB, VD, S]
            .into_iter()
            .any(|label| self.raw(label) != Raw::Absent)
    }

    /// A pack of a version that this is not written for cannot be read at all.
    fn check_version(self) -> Result<(), Reason> {
        match self.number(BVER)? {
            Some(version) if version > VERSION_MAX => Err(Reason::MalformedPayload),
            _ => Ok(()),
        }
    }

    /// The base values from this record on. Where one cannot be read, no record from here on can be resolved.
    fn rebase(self, base: Base<'p>) -> Result<Base<'p>, Reason> {
        Ok(Base {
            name: self.string(BN)?.unwrap_or(base.name),
            unit: self.string(BU)?.or(base.unit),
            time: self.number(BT)?.unwrap_or(base.time),
            value: self.number(BV)?.or(base.value),
            sum: self.number(BS)?.or(base.sum),
        })
    }

    fn resolve(
        self,
        base: &Base<'_>,
        out: &mut Decoded,
        tree: &PathTree,
        context: Context<'_>,
    ) -> Result<(), Reason> {
        let name = self.string(N)?.unwrap_or_default();
        if name.is_empty() && base.name.is_empty() {
            return Err(Reason::MissingField);
        }
        let row = out.start_reading()?;
        let mut put = |label: &str, parts: [&str; 2], quote: &str| match tree.named(label) {
            Some(path) => out.put(row, path, |arena| {
                arena.extend([quote, parts[0], parts[1], quote]);
            }),
            None => Ok(()),
        };
        // Still escaped as JSON wants it, so that the parts can be put together as they are.
        put("n", [base.name, name], "\"")?;
        put("bn", [base.name, ""], "\"")?;
        put("name", [name, ""], "\"")?;
        if let Some(unit) = self.string(U)?.or(base.unit) {
            put("u", [unit, ""], "\"")?;
        }
        for (label, at) in [("vs", VS), ("vb", VB), ("vd", VD), ("ut", UT)] {
            if let Raw::Text(text) = self.raw(at) {
                put(label, [text, ""], "")?;
            }
        }
        let mut sum = |label: &str, own: Option<Value>, base: Option<Value>, lone: bool| {
            let Some(path) = tree
                .named(label)
                .filter(|_| own.is_some() || (lone && base.is_some()))
            else {
                return Ok(());
            };
            let units = own.map_or(0, Value::units) + base.map_or(0, Value::units);
            out.put(row, path, |arena| write_units(arena, units))
        };
        let has_other = [VS, VB, VD]
            .into_iter()
            .any(|label| self.raw(label) != Raw::Absent);
        sum("v", self.number(V)?, base.value, !has_other)?;
        sum("s", self.number(S)?, base.sum, false)?;
        let time = self.number(T)?.map_or(0, Value::units) + base.time.units();
        let now = i128::from(context.now.wall.as_micros()) * MICRO;
        let time = if time < ABSOLUTE_FROM { now + time } else { time };
        match tree.named("t") {
            Some(path) => out.put(row, path, |arena| write_units(arena, time)),
            None => Ok(()),
        }
    }
}

/// Writes a sum of two values, which may be out of their range.
fn write_units(arena: &mut String, units: i128) {
    match Value::from_units(units) {
        Some(value) => arena.push_str(text::Short::of(value).as_str()),
        None => arena.push_str("1e18"),
    }
}

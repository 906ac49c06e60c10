//! What expressions mean, which are refused and where, and that whatever is decoded is safe to run.

use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::plan::{Field, FieldSource};

/// Values by name, for expressions over paths of one segment.
struct Values<'v>(&'v [(&'v str, &'v str)], &'v Expression);

impl Operands for Values<'_> {
    fn number(&mut self, operand: usize) -> Option<Value> {
        let name = self.1.operands()[operand].to_string();
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| Value::parse(text.as_bytes()).unwrap().value)
    }

    fn matches(&mut self, test: usize) -> Option<bool> {
        let TextTest { source, text } = &self.1.tests()[test];
        match source {
            KeyPart::Capture(0) => Some("berlin" == text),
            KeyPart::Capture(_) => None,
            KeyPart::Payload(path) => Some(path.to_string() == *text),
        }
    }
}

fn fields() -> Vec<Field> {
    let field = |name: &str, source, resolution| Field {
        name: name.into(),
        source,
        resolution,
        kind: crate::plan::FieldKind::Gauge,
    };
    let mut fields = vec![
        field("temp", FieldSource::path("temp"), None),
        field("hum", FieldSource::path("data.hum"), Some(10_i128.pow(18))),
    ];
    let scope = Scope {
        own: Some("dew"),
        fields: &fields,
        ..Scope::default()
    };
    let dew = Expression::parse("temp - (100 - hum) / 5", &scope, Kind::Number).unwrap();
    fields.push(field("dew", dew.into(), Some(10_i128.pow(17))));
    fields
}

fn parse(text: &str, kind: Kind) -> Result<Expression, ExpressionFault> {
    let fields = fields();
    let scope = Scope {
        own: Some("raw"),
        fields: &fields,
        below: &["later"],
        tags: &[("site", KeyPart::Capture(0)), ("line", KeyPart::Capture(1))],
    };
    Expression::parse(text, &scope, kind)
}

const VALUES: [(&str, &str); 4] = [
    ("temp", "21.5"),
    ("data.hum", "40.4"),
    ("zero", "0"),
    ("raw", "7"),
];

fn show(expression: &Expression) -> String {
    match expression.evaluate(&mut Values(&VALUES, expression)) {
        Outcome::Number(value) => value.to_string(),
        Outcome::Truth(truth) => truth.to_string(),
        Outcome::Absent => "absent".into(),
        Outcome::Fault(fault) => alloc::format!("{fault:?}"),
    }
}

fn number(text: &str, expected: &str) {
    let expression = parse(text, Kind::Number).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
    assert_eq!(show(&expression), expected, "{text}");
}

fn condition(text: &str, expected: &str) {
    let expression = parse(text, Kind::Truth).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
    assert_eq!(show(&expression), expected, "{text}");
}

#[test]
fn operators_bind_as_in_school() {
    number("1 + 2 * 3", "7");
    number("(1 + 2) * 3", "9");
    number("10 - 3 - 2", "5");
    number("12 / 2 * 3", "18");
    number("-2 * -3 + 1", "7");
    number("- temp", "-21.5");
    number("7 % 3 - -7 % 3", "2");
    condition("1 + 1 == 2 && 2 * 2 != 5", "true");
    condition("true || false && false", "true");
    condition("!(1 < 2) || 2 >= 2", "true");
}

#[test]
fn names_are_fields_and_paths_are_marked() {
    number("temp", "21.5");
    number("hum", "40");
    number("data.hum", "40.4");
    number("$.temp + $.'temp'", "43");
    number("dew * 10", "95");
    number("raw + 1", "8");
    number("$.missing + 1", "absent");
}

#[test]
fn functions_do_what_they_say() {
    number("min(3, 1, 2) + max(3, 9, 2)", "10");
    number("abs(-3) + clamp(12, 0, 10) + clamp(-1, 0, 10)", "13");
    number("floor(-1.5) + ceil(-1.5)", "-3");
    number("round(2.5) + round(3.5)", "6");
    number("round(21.37, 0.05)", "21.35");
    number("sqrt(2)", "1.414213562373095049");
    number("sqrt(900000000000000000)", "948683298.050513799599668063");
    number("if(temp > 20, 1, 0)", "1");
    number("default($.missing, 3) + default(1 / $.zero, 4)", "7");
    condition("has(temp) && !has($.missing)", "true");
}

#[test]
fn what_is_absent_or_has_no_value_spreads_as_far_as_it_matters() {
    number("1 / 0", "DivisionByZero");
    number("temp % $.zero", "DivisionByZero");
    number("sqrt(0 - temp)", "NegativeRoot");
    number("999999999999999999 + 1", "OutOfRange");
    number("999999999999999999 * 999999999999999999", "OutOfRange");
    number("1 / 1e-18 / 1e-18", "OutOfRange");
    number("1e9 * 1e9 / 2", "OutOfRange");
    number("if($.missing > 0, 1, 0)", "absent");
    number("if(true, 1, 1 / 0)", "1");
    condition("$.missing > 0", "absent");
    condition("$.missing > 0 && false", "false");
    condition("true || 1 / 0 > 1", "true");
    condition("$.zero != 0 && temp / $.zero > 1", "false");
    condition("$.missing > 0 || 1 / 0 > 1", "DivisionByZero");
}

#[test]
fn products_and_quotients_round_half_to_even() {
    number("1e-18 * 0.5", "0");
    number("3e-18 * 0.5", "0.000000000000000002");
    number("(0 - 3e-18) * 0.5", "-0.000000000000000002");
    number("1e-18 / 2", "0");
    number("3e-18 / 2", "0.000000000000000002");
    number(
        "123456789012345678.9 * 1.000000000000000001",
        "123456789012345679.023456789012345679",
    );
    number("123456789012345678.9 / 3", "41152263004115226.3");
    number(
        "1 / 999999999999999999.999999999999999999",
        "0.000000000000000001",
    );
}

#[test]
fn texts_are_compared() {
    condition("site == 'berlin'", "true");
    condition("site != \"berlin\"", "false");
    condition("$.state == 'state' && temp > 0", "true");
    condition("line == 'a'", "absent");
}

fn refused(text: &str, kind: Kind, at: usize, message: &str, hint: &str) {
    let fault = parse(text, kind).expect_err(text);
    let shown = match fault.hint {
        Hint::Say(hint) => hint.to_string(),
        Hint::Nearest {
            wanted,
            known,
            otherwise,
        } => {
            alloc::format!("{wanted} of {}: {otherwise}", known.join(" "))
        }
    };
    assert_eq!(
        (fault.at, &*fault.message, &*shown),
        (at, message, hint),
        "{text}"
    );
}

#[test]
fn names_and_types_that_are_wrong_are_shown_with_a_hint() {
    let number = |text, at, message, hint| refused(text, Kind::Number, at, message, hint);
    let condition = |text, at, message, hint| refused(text, Kind::Truth, at, message, hint);
    number(
        "1 + tmep",
        4,
        "there is no field or tag `tmep`",
        "tmep of temp hum dew site line: write `$.tmep` for a value of the payload that is no field",
    );
    number(
        "mni(1, 2)",
        0,
        "there is no function `mni`",
        "mni of min max abs round floor ceil clamp sqrt has default if: known are min, max, abs, round, floor, ceil, \
         clamp, sqrt, has, default and if",
    );
    number(
        "later + 1",
        0,
        "field `later` is computed further down",
        "move it above this one",
    );
    condition(
        "temp + 1",
        0,
        "this is a number, where a condition is needed",
        "compare it: `temp > 0`",
    );
    condition(
        "temp > 1 && hum",
        12,
        "this is a number, where a condition is needed",
        "compare it: `temp > 0`",
    );
    number(
        "temp > 1",
        0,
        "this is a condition, where a number is needed",
        "write `if(condition, 1, 0)` to make a number of it",
    );
    condition(
        "1 < temp < 3",
        9,
        "this is a condition, where a number is needed",
        "write `1 < x && x < 3` for `1 < x < 3`",
    );
}

#[test]
fn words_that_cannot_stand_where_they_do_are_shown() {
    let number = |text, at, message, hint| refused(text, Kind::Number, at, message, hint);
    let condition = |text, at, message, hint| refused(text, Kind::Truth, at, message, hint);
    condition("temp > 1 and hum > 2", 9, "`and` cannot stand here", "write `&&`");
    condition("temp = 1", 5, "`=` cannot stand here", "write `==` to compare");
    condition(
        "temp > 1 & hum > 2",
        9,
        "`&` means nothing in an expression",
        "write `&&` for and",
    );
    number(
        "temp 2",
        5,
        "`2` cannot stand here",
        "an operator is missing before it",
    );
    number("2 ^ 3", 2, "`^` cannot stand here", "write `x * x` for a power");
    number(
        "1 +",
        3,
        "the expression ends where a value is needed",
        "complete it, such as `temp > 0`",
    );
    number("(1 + 2", 6, "a `)` is missing at the end", "close it");
    number("1 + 2)", 5, "`)` cannot stand here", "it closes nothing");
    number(
        "",
        0,
        "the expression ends where a value is needed",
        "complete it, such as `temp > 0`",
    );
    number(
        "* 2",
        0,
        "`*` stands where a value is needed",
        "write a field, a number or `(`",
    );
}

#[test]
fn what_numbers_functions_and_texts_must_be_is_said() {
    let number = |text, at, message, hint| refused(text, Kind::Number, at, message, hint);
    let condition = |text, at, message, hint| refused(text, Kind::Truth, at, message, hint);
    number("1.2.3", 0, "`1.2.3` is not a number", "write 12.5 or 1e-3");
    number("1e18", 0, "`1e18` is not below 10^18", "");
    number(
        "1e-19",
        0,
        "`1e-19` has digits finer than 10^-18",
        "values have 18 digits behind the point",
    );
    number(
        "abs(1, 2)",
        7,
        "`abs` has another number of arguments",
        " of : write abs(x)",
    );
    number(
        "min(1)",
        0,
        "`min` has another number of arguments",
        " of : write min(x, y, …)",
    );
    number(
        "round(1, temp)",
        9,
        "the step of `round` must be a number above 0",
        "write `round(x, 0.5)`",
    );
    number(
        "round(1, 0)",
        9,
        "the step of `round` must be a number above 0",
        "write `round(x, 0.5)`",
    );
    number(
        "$ + 1",
        0,
        "`$` is the payload, not a value in it",
        "write `$.temp`",
    );
    number(
        "$.a..b",
        3,
        "a path has an empty segment",
        "write `$.outer.inner`, and quote what is no plain word: `$.'flow-rate'`",
    );
    number("$.a.b.c.d.e.f.g.h.i", 0, "the path is deeper than 8 levels", "");
    condition("site == 'berlin", 8, "this quote has no end", "close it");
    condition(
        "'berlin' == site",
        0,
        "a text can only stand to the right of `==` or `!=`",
        "write `site == 'berlin'`",
    );
    condition(
        "site > 1",
        0,
        "tag `site` is a text, and texts can only be compared",
        "write `site == 'berlin'`",
    );
    condition(
        "temp + 1 == 'x'",
        0,
        "only a tag or a value of the payload can be compared with a text",
        "write `site == 'berlin'` or `$.state == 'on'`",
    );
    number(
        "é",
        0,
        "`é` means nothing in an expression",
        "quote a name that is no plain word: `$.'Außen.°C'`",
    );
    number("~", 0, "`~` means nothing in an expression", "");
}

#[test]
fn length_depth_and_count_are_bounded() {
    let fault = |text: &str| parse(text, Kind::Number).expect_err(text);
    assert_eq!(
        fault(&"1".repeat(1_025)).message,
        "the expression is longer than 1024 bytes"
    );
    let deep = alloc::format!("{}1{}", "(".repeat(500), ")".repeat(500));
    assert_eq!(
        fault(&deep).message,
        "the expression is nested deeper than 32 levels"
    );
    assert_eq!(
        fault(&"-".repeat(1_000)).message,
        "the expression is nested deeper than 32 levels"
    );
    let long = alloc::format!("1{}", "+1".repeat(200));
    assert_eq!(fault(&long).message, "the expression has more than 64 operations");
    let wide = (0..17).fold(String::new(), |text, index| text + &alloc::format!("$.f{index}+"));
    assert_eq!(
        fault(&(wide + "1")).message,
        "the expression looks at more than 16 values"
    );
    // Within the nesting that is allowed, and too much for the stack.
    let stacked = |depth| alloc::format!("{}1{}", "max(0, ".repeat(depth), ")".repeat(depth));
    assert_eq!(
        fault(&stacked(16)).message,
        "an expression that is nested too deeply"
    );
    assert_eq!(show(&parse(&stacked(15), Kind::Number).unwrap()), "1");
}

#[test]
fn what_is_not_sound_is_not_decoded() {
    let refused = |ops: Vec<Op>, message| {
        let parts = Parts {
            ops,
            ..Parts::default()
        };
        assert_eq!(Expression::new(parts.clone()), Err(message));
    };
    let one = Op::Number(1);
    refused(vec![], "an expression without one result");
    refused(vec![one, one], "an expression without one result");
    refused(vec![one, Op::Add], "an expression that lacks an operand");
    refused(
        vec![one, Op::Truth(true), Op::Add],
        "an expression with a mismatch of types",
    );
    refused(vec![Op::Load(0)], "an expression with a bad constant or operand");
    refused(
        vec![Op::Number(Value::LIMIT)],
        "an expression with a bad constant or operand",
    );
    refused(
        vec![one, Op::Round(0)],
        "an expression with a bad constant or operand",
    );
    refused(vec![one; 17], "an expression that is nested too deeply");
    refused(vec![one; 65], "an expression with too many operations");
    let deep = Parts {
        ops: vec![Op::Load(0)],
        operands: vec![Path { segments: Vec::new() }],
        ..Parts::default()
    };
    assert_eq!(Expression::new(deep), Err("an expression with a bad path"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[-+*/%!&|<>=().,$'a-z0-9 ]{0,125}") {
        for kind in [Kind::Number, Kind::Truth] {
            if let Ok(expression) = parse(&text, kind) {
                show(&expression);
            }
        }
    }
}

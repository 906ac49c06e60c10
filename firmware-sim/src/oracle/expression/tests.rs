//! The agents' evaluator and this one on random expressions: two programs that share nothing but the operations.

use catchment_common::expression::{Kind, Operands, Outcome, Scope};
use catchment_common::number::decimal::Value;
use catchment_common::plan::{Field, FieldSource};
use proptest::prelude::*;

use super::*;

/// The fields that random expressions name.
const FIELDS: [&str; 4] = ["a", "b", "c", "d"];

/// Units of 10⁻¹⁸ as a number is written in an expression; negative ones in brackets.
fn written(units: i128) -> String {
    let value = Value::from_units(units).unwrap();
    if units < 0 {
        format!("({value})")
    } else {
        value.to_string()
    }
}

fn node(op: Op, inputs: Vec<Tree>) -> Tree {
    Tree { op, inputs }
}

/// A random expression of a type, as text with all brackets and as the tree it must be.
fn text_and_tree(depth: u32, kind: Kind) -> BoxedStrategy<(String, Tree)> {
    let leaf = |op: Op, text: String| (text, node(op, Vec::new()));
    let number = number().prop_map(move |units| leaf(Op::Number(units), written(units)));
    let field = (0..FIELDS.len()).prop_map(move |index| leaf(Op::Load(index as u8), FIELDS[index].into()));
    let truth = any::<bool>().prop_map(move |truth| leaf(Op::Truth(truth), truth.to_string()));
    if depth == 0 {
        return match kind {
            Kind::Number => prop_oneof![1 => number, 3 => field].boxed(),
            Kind::Truth => truth.boxed(),
        };
    }
    let inner = move |kind| text_and_tree(depth - 1, kind);
    let unary = |op: Op, name: &'static str, input: BoxedStrategy<(String, Tree)>| {
        let write = move |(text, tree)| (format!("{name}({text})"), node(op, vec![tree]));
        input.prop_map(write).boxed()
    };
    let binary = |op: Op, name: &'static str, kind: Kind| {
        let write = move |((left, a), (right, b))| {
            let text = if name.starts_with(|first: char| first.is_alphabetic()) {
                format!("{name}({left}, {right})")
            } else {
                format!("({left}) {name} ({right})")
            };
            (text, node(op, vec![a, b]))
        };
        (inner(kind), inner(kind)).prop_map(write).boxed()
    };
    match kind {
        Kind::Number => {
            let round = (inner(Kind::Number), 1..10_i128.pow(20)).prop_map(|((text, tree), step)| {
                let text = format!("round({text}, {})", written(step));
                (text, node(Op::Round(step), vec![tree]))
            });
            let choice = (inner(Kind::Truth), inner(Kind::Number), inner(Kind::Number));
            let choice = choice.prop_map(|((p, a), (x, b), (y, c))| {
                (format!("if({p}, {x}, {y})"), node(Op::If, vec![a, b, c]))
            });
            prop_oneof![
                1 => number,
                2 => field,
                1 => unary(Op::Abs, "abs", inner(kind)),
                1 => unary(Op::Floor, "floor", inner(kind)),
                1 => unary(Op::Ceil, "ceil", inner(kind)),
                1 => unary(Op::Root, "sqrt", inner(kind)),
                1 => binary(Op::Add, "+", kind),
                1 => binary(Op::Subtract, "-", kind),
                2 => binary(Op::Multiply, "*", kind),
                2 => binary(Op::Divide, "/", kind),
                1 => binary(Op::Remainder, "%", kind),
                1 => binary(Op::Min, "min", kind),
                1 => binary(Op::Max, "max", kind),
                1 => binary(Op::Default, "default", kind),
                1 => round,
                1 => choice,
            ]
            .boxed()
        }
        Kind::Truth => prop_oneof![
            truth,
            unary(Op::Not, "!", inner(kind)),
            unary(Op::Has, "has", inner(Kind::Number)),
            binary(Op::And, "&&", kind),
            binary(Op::Or, "||", kind),
            binary(Op::Less, "<", Kind::Number),
            binary(Op::LessOrEqual, "<=", Kind::Number),
            binary(Op::Greater, ">", Kind::Number),
            binary(Op::GreaterOrEqual, ">=", Kind::Number),
            binary(Op::Equal, "==", Kind::Number),
            binary(Op::NotEqual, "!=", Kind::Number),
        ]
        .boxed(),
    }
}

/// Numbers of every size: small ones, sensor values, halves of the last digit, and the largest.
fn number() -> BoxedStrategy<i128> {
    let limit = 10_i128.pow(36);
    prop_oneof![
        -3..4_i128,
        (-4_000..4_000_i128).prop_map(|hundredths| hundredths * 10_i128.pow(16)),
        (-9..10_i128).prop_map(|whole| whole * 10_i128.pow(18)),
        -limit + 1..limit,
        (-limit + 1..limit).prop_map(|units| units / 10_i128.pow(18)),
    ]
    .boxed()
}

struct Reading<'r>(&'r [Option<i128>], &'r Expression);

impl Operands for Reading<'_> {
    fn number(&mut self, operand: usize) -> Option<Value> {
        let name = &self.1.operands()[operand].segments[0];
        let index = FIELDS.iter().position(|field| field == name).unwrap();
        self.0[index].and_then(Value::from_units)
    }

    fn matches(&mut self, _: usize) -> Option<bool> {
        None
    }
}

fn shown(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Number(value) => of_units(&value.units().into()),
        Outcome::Truth(truth) => Answer::Truth(truth),
        Outcome::Absent => Answer::Absent,
        Outcome::Fault(_) => Answer::Fault,
    }
}

fn scope_fields() -> Vec<Field> {
    let field = |name: &&str| Field {
        name: (*name).into(),
        source: FieldSource::path(name),
        resolution: None,
        kind: catchment_common::plan::FieldKind::Gauge,
    };
    FIELDS.iter().map(field).collect()
}

fn compare(text: &str, tree: &Tree, kind: Kind, values: &[Option<i128>]) -> Result<(), TestCaseError> {
    let fields = scope_fields();
    let scope = Scope {
        fields: &fields,
        ..Scope::default()
    };
    let Ok(expression) = Expression::parse(text, &scope, kind) else {
        // Too long or too deep, as random ones may be.
        return Ok(());
    };
    let found = shown(expression.evaluate(&mut Reading(values, &expression)));
    let by_name = |index: usize| values[index].map(BigInt::from);
    prop_assert_eq!(&found, &tree.answer(&by_name, &|_| None), "{}", text);
    // The tree of the operations, whose operands are numbered in their own order, says the same.
    let by_operand = |index: usize| {
        let name = &expression.operands()[index].segments[0];
        by_name(FIELDS.iter().position(|field| field == name).unwrap())
    };
    prop_assert_eq!(
        found,
        Tree::of(&expression).answer(&by_operand, &|_| None),
        "{}",
        text
    );
    Ok(())
}

fn values() -> impl Strategy<Value = Vec<Option<i128>>> {
    prop::collection::vec(
        prop_oneof![1 => Just(None), 4 => number().prop_map(Some)],
        FIELDS.len(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn numbers_are_computed_alike((text, tree) in text_and_tree(3, Kind::Number), values in values()) {
        compare(&text, &tree, Kind::Number, &values)?;
    }

    #[test]
    fn conditions_are_decided_alike((text, tree) in text_and_tree(4, Kind::Truth), values in values()) {
        compare(&text, &tree, Kind::Truth, &values)?;
    }
}

#[test]
fn the_rules_by_hand() {
    let check = |text: &str, expected: &str| {
        let fields = scope_fields();
        let scope = Scope {
            fields: &fields,
            ..Scope::default()
        };
        let expression = Expression::parse(text, &scope, Kind::Number).unwrap();
        let answer = Tree::of(&expression).answer(&|_| None, &|_| None);
        let shown = match answer {
            Answer::Number(number) => {
                let units = (number * power_of_ten(18)).to_integer();
                Value::from_units(units.try_into().unwrap()).unwrap().to_string()
            }
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected, "{text}");
    };
    check("1 / 3", "0.333333333333333333");
    check("2 / 3", "0.666666666666666667");
    check("1e-18 * 0.5", "0");
    check("3e-18 * 0.5", "0.000000000000000002");
    check("-7 % 3", "-1");
    check("sqrt(2)", "1.414213562373095049");
    check("a + 1", "Absent");
    check("1 / 0", "Fault");
}

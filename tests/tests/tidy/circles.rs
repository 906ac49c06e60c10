//! No files that import each other in a circle: whoever reads one of them would have to read all.
//!
//! Imports are read from the text: `use` declarations, and paths in the code that begin at `crate`, `super` or `self`. An
//! item that a module only hands on (`pub use`) is looked for where it is defined. A module and the modules inside it
//! share types by design, so no arrow is drawn between them.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, report};

/// A module's path within its crate: `["window", "rows"]`.
type Module = Vec<String>;

/// The production files of one crate, by module.
struct Krate {
    texts: BTreeMap<Module, String>,
    /// What each module hands on: name, and where it says that the item is.
    exports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

/// Circles that were there when the rule came. An entry that is gone must be taken out.
const KNOWN: [&str; 7] = [
    "common: plan/aggregate, plan/check/validate, plan/pipeline, plan/sketch",
    "common: wire/batch, wire/loss, wire/named",
    "common: wire/section, wire/series, wire/sketch, wire/stats/read, wire/stats/write",
    "agent: aggregate/count_windows, log/journal, source/dedupe",
    "aggregator: catalog, window/aligned, window/merged, window/rows, window/session",
    "tests: sim/case, sim/drawn, sim/plans",
    "tests: sim/centre, sim/gateway, sim/link, sim/world",
];

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut faults = Vec::new();
    for krate in ["common", "agent", "aggregator", "firmware-sim", "tests"] {
        let arrows = Krate::read(krate).arrows();
        for circle in circles(&arrows) {
            let names: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
            faults.push(format!("{krate}: {}", names.join(", ")));
        }
    }
    let gone = KNOWN
        .iter()
        .filter(|known| !faults.iter().any(|fault| fault == **known));
    let gone: Vec<String> = gone
        .map(|known| format!("{known}: is gone; take it out of KNOWN"))
        .collect();
    faults.retain(|fault| !KNOWN.contains(&fault.as_str()));
    report(&gone, "the list of known circles only shrinks");
    report(&faults, "move what ties them to a file below both");
}

#[test]
fn a_circle_is_found() {
    let texts = [
        ("a", "use crate::b::{c::Item, Other};\n"),
        ("b", "pub use c::Handed;\npub struct Other;\n"),
        ("b/c", "use super::super::d::Thing;\n"),
        ("d", "fn f() { crate::a::go(); }\n"),
        ("e", "use crate::b::Handed;\n"),
    ];
    let texts = texts.map(|(path, text)| (path.split('/').map(String::from).collect(), text.to_owned()));
    let arrows = Krate::of(BTreeMap::from(texts)).arrows();
    let found: Vec<Vec<String>> = circles(&arrows)
        .into_iter()
        .map(|circle| circle.iter().map(|module| module.join("/")).collect())
        .collect();
    assert_eq!(found, [["a", "b/c", "d"]]);
    let of_e: Vec<String> = arrows[&vec!["e".to_owned()]]
        .iter()
        .map(|module| module.join("/"))
        .collect();
    assert_eq!(of_e, ["b/c"], "the item is where it is defined");
}

impl Krate {
    fn read(krate: &str) -> Self {
        let root = format!("{krate}/src/");
        let texts = files(&["rs"]).into_iter().filter_map(|(path, text)| {
            let inside = path.strip_prefix(&root)?.strip_suffix(".rs")?;
            let module: Module = match inside {
                "lib" => Vec::new(),
                "main" => return None,
                inside => inside.split('/').map(String::from).collect(),
            };
            let is_test = module
                .iter()
                .any(|part| part == "tests" || part == "testing" || part == "bin");
            (!is_test).then(|| (module, production(&text)))
        });
        Self::of(texts.collect())
    }

    fn of(texts: BTreeMap<Module, String>) -> Self {
        let mut krate = Self {
            texts,
            exports: BTreeMap::new(),
        };
        for (module, text) in &krate.texts {
            let mut exports = BTreeMap::new();
            for (path, is_handed_on) in uses(text) {
                if let (true, Some(name)) = (is_handed_on, path.last()) {
                    exports.insert(name.clone(), krate.absolute(module, &path));
                }
            }
            krate.exports.insert(module.clone(), exports);
        }
        krate
    }

    /// Which modules each module takes something from.
    fn arrows(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut arrows: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, text) in &self.texts {
            let imported = uses(text).filter(|(_, is_handed_on)| !is_handed_on);
            let paths = imported.map(|(path, _)| path).chain(paths_in_code(text));
            let targets = paths.filter_map(|path| self.home(self.absolute(module, &path)));
            let apart = |target: &Module| !target.starts_with(module) && !module.starts_with(target);
            arrows.insert(module.clone(), targets.filter(apart).collect());
        }
        arrows
    }

    /// A path as seen from `module`, from the crate's root; empty if it leads out of the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Vec<String> {
        let mut base = module.clone();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest = &path[1..];
            }
            Some("self") => rest = &path[1..],
            Some("super") => {
                while let Some((first, behind)) = rest.split_first()
                    && first == "super"
                {
                    base.pop();
                    rest = behind;
                }
            }
            // A child module, or another crate.
            Some(first) => {
                base.push(first.to_owned());
                if !self.texts.contains_key(&base) {
                    return Vec::new();
                }
                rest = &path[1..];
            }
            None => {}
        }
        base.extend(rest.iter().cloned());
        base
    }

    /// The module that defines what an absolute path names.
    fn home(&self, mut path: Vec<String>) -> Option<Module> {
        // Longer chains of `pub use` than this would be a fault of their own.
        for _ in 0..8 {
            let depth = (1..=path.len())
                .rev()
                .find(|&depth| self.texts.contains_key(&path[..depth]))?;
            let module = path[..depth].to_vec();
            let handed_on = path
                .get(depth)
                .and_then(|item| self.exports.get(&module)?.get(item))
                .filter(|target| !target.is_empty() && **target != path);
            match handed_on {
                Some(target) => path = target.clone(),
                None => return Some(module),
            }
        }
        None
    }
}

/// The text before its tests, without comments.
fn production(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let code = lines.map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// All paths that `use` declarations name, and whether they are handed on.
fn uses(text: &str) -> impl Iterator<Item = (Vec<String>, bool)> {
    let mut found = Vec::new();
    let mut declaration: Option<(String, bool)> = None;
    for line in text.lines() {
        if declaration.is_none() {
            let (plain, is_handed_on) = match line.trim_start().strip_prefix("pub") {
                Some(rest) => (rest.split_once("use ").map(|(_, rest)| rest), true),
                None => (line.trim_start().strip_prefix("use "), false),
            };
            // Not a function with `use` in its name or text.
            let begins = plain.filter(|_| {
                line.trim_start().starts_with("use ")
                    || line.starts_with("pub use ")
                    || line.starts_with("pub(")
            });
            declaration = begins.map(|rest| (rest.to_owned(), is_handed_on));
        } else if let Some((text, _)) = &mut declaration {
            text.push_str(line.trim());
        }
        if let Some((text, is_handed_on)) = declaration.take_if(|(text, _)| text.contains(';')) {
            let tree: String = text
                .split(';')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            expand(&tree, &[], is_handed_on, &mut found);
        }
    }
    found.into_iter()
}

/// The paths of a use tree such as `a::{b, c::{d, e as f}}`.
fn expand(tree: &str, before: &[String], is_handed_on: bool, found: &mut Vec<(Vec<String>, bool)>) {
    let mut path = before.to_vec();
    let mut rest = tree;
    while let Some((first, behind)) = rest.split_once("::") {
        if first.contains('{') {
            break;
        }
        path.push(first.to_owned());
        rest = behind;
    }
    let Some(group) = rest.strip_prefix('{').and_then(|group| group.strip_suffix('}')) else {
        if rest != "self" && rest != "*" {
            path.push(rest.to_owned());
        }
        found.push((path, is_handed_on));
        return;
    };
    let (mut depth, mut start) = (0_usize, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&group[start..at], &path, is_handed_on, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < group.len() {
        expand(&group[start..], &path, is_handed_on, found);
    }
}

/// Paths in the code, outside of `use` declarations, that begin at a module of the crate.
fn paths_in_code(text: &str) -> impl Iterator<Item = Vec<String>> {
    let is_of_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    text.split(move |character: char| !is_of_path(character))
        .filter(|word| {
            ["crate::", "super::", "self::"]
                .iter()
                .any(|start| word.starts_with(start))
        })
        .map(|word| word.split("::").map(String::from).collect())
}

/// The groups of modules that reach each other.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for target in arrows.get(&module).into_iter().flatten() {
                if reached.insert(target.clone()) {
                    next.push(target.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        arrows.keys().map(|module| (module, reach(module))).collect();
    let groups: BTreeSet<BTreeSet<Module>> = reached
        .iter()
        .filter(|(module, reached)| reached.contains(**module))
        .map(|(module, own)| {
            let back = |other: &&Module| {
                reached
                    .get(*other)
                    .is_some_and(|reached| reached.contains(*module))
            };
            own.iter().filter(back).cloned().collect()
        })
        .collect();
    groups.into_iter().collect()
}

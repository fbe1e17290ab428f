//! Rules of the repository that no compiler checks, as tests over the manifests, the sources and the documents.
//!
//! Which crate may use which is read from the table in `docs/architecture.md`, so that the page cannot be wrong. Links from
//! the documents into the sources have to name things that are there.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// Lines that a file may have.
const LONGEST_FILE: usize = 1000;

/// Who may make threads, and why: `(file or folder, reason)`.
const THREADS: &[(&str, &str)] = &[
    (
        "crates/runtime/src/",
        "workers, and pumps for sources that do I/O",
    ),
    (
        "crates/engine/src/log/mod.rs",
        "the log's writer waits for the disk so that sessions need not",
    ),
    (
        "crates/state/src/maintenance.rs",
        "merging layers and writing RocksDB must not hold up a worker",
    ),
    ("crates/server/src/serve.rs", "the threads of tokio"),
    (
        "crates/server/src/tools.rs",
        "the same for a tool that reads storage",
    ),
    ("crates/bench/src/", "clients that generate load"),
    (
        "crates/state/examples/",
        "measures tables beside whoever reads their runs",
    ),
];
const MAKES_THREADS: &[&str] = &[
    "thread::spawn",
    "thread::scope",
    "thread::Builder",
    "runtime::Builder::",
    "Runtime::new()",
    "timely::execute",
];

/// What an operator must not know of.
const NOT_IN_DATAFLOW: &[&str] = &[
    "async-trait",
    "chrono",
    "core_affinity",
    "crossbeam-channel",
    "fs4",
    "futures",
    "libc",
    "object_store",
    "parking_lot",
    "prometheus-client",
    "rand",
    "rand_chacha",
    "timely",
    "tokio",
    "tracing",
    "uuid",
];
const NOT_IN_DATAFLOW_SOURCES: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::sync::mpsc",
    "std::thread",
    "std::time",
    "Instant::now",
    "SystemTime",
    "rand::",
    "tokio::",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// A crate of the workspace with its direct dependencies, ours without the prefix `tidegate-`.
struct Crate {
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
}

/// Crates by the name of their folder. Development dependencies are left out.
fn crates() -> BTreeMap<String, Crate> {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap();
        // Runners of tests outside of crates/ may use whatever they like.
        if folder.parent() != Some(&root().join("crates")) {
            continue;
        }
        let (mut ours, mut others) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let name = dependency["name"].as_str().unwrap();
            match name.strip_prefix("tidegate-") {
                Some(name) => ours.insert(name.to_owned()),
                None => others.insert(name.to_owned()),
            };
        }
        let folder = folder.file_name().unwrap().to_str().unwrap();
        let name = package["name"].as_str().unwrap();
        let expected = match folder {
            "server" => "tidegate".to_owned(),
            _ => format!("tidegate-{folder}"),
        };
        assert_eq!(
            name, expected,
            "a folder holds the package of the same name"
        );
        crates.insert(folder.to_owned(), Crate { ours, others });
    }
    crates
}

/// Everything of ours that a crate is built with, itself included.
fn closure(crates: &BTreeMap<String, Crate>, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([name.to_owned()]);
    let mut waiting = vec![name.to_owned()];
    while let Some(next) = waiting.pop() {
        for dependency in &crates[&next].ours {
            if found.insert(dependency.clone()) {
                waiting.push(dependency.clone());
            }
        }
    }
    found
}

/// A source file, its path relative to the repository.
struct Source {
    path: String,
    text: String,
    /// Compiled for tests only.
    is_test: bool,
}

impl Source {
    /// Lines of code that are part of the product, with their numbers: no comments, no tests.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{'));
        let end = match (self.is_test, tests) {
            (true, _) => 0,
            (false, Some(line)) => line,
            (false, None) => lines.len(),
        };
        lines
            .into_iter()
            .take(end)
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    files(&root.join("crates"), "rs", &mut paths);
    files(&root.join("tests"), "rs", &mut paths);
    paths.sort();
    let texts: Vec<(PathBuf, String)> = paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    let tests: Vec<PathBuf> = texts
        .iter()
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    texts
        .into_iter()
        .map(|(path, text)| Source {
            is_test: path.starts_with(root.join("tests"))
                || tests
                    .iter()
                    .any(|t| path.starts_with(t) || path == t.with_extension("rs")),
            path: path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            text,
        })
        .collect()
}

/// The modules that a file declares for tests, as the folders that hold (or would hold) them.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let children = match stem {
        "lib" | "main" | "mod" => folder.to_owned(),
        stem => folder.join(stem),
    };
    let mut modules = Vec::new();
    let mut for_tests = false;
    for line in text.lines().map(str::trim) {
        let declared = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ");
        if let (true, Some(name)) = (for_tests, declared.strip_prefix("mod ")) {
            modules.extend(name.strip_suffix(';').map(|name| children.join(name)));
        }
        for_tests = line == "#[cfg(test)]" || (for_tests && line.starts_with("#["));
    }
    modules
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The table of crates in `docs/architecture.md`.
fn allowed_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = page
        .lines()
        .skip_while(|l| !l.starts_with("| crate | holds | may use |"))
        .skip(2)
        .take_while(|l| l.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let allowed = cells[2].split_whitespace().map(str::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), allowed)
    })
    .collect()
}

#[test]
fn crates_use_what_the_architecture_allows() {
    let (crates, allowed) = (crates(), allowed_dependencies());
    let names: Vec<_> = crates.keys().collect();
    assert_eq!(
        names,
        allowed.keys().collect::<Vec<_>>(),
        "the crates and the table differ"
    );
    let mut broken = Vec::new();
    for (name, found) in &crates {
        for dependency in &found.ours {
            if dependency != "unify" && !allowed[name].contains(dependency) {
                broken.push(format!("{name} uses {dependency}"));
            }
        }
        if name != "unify" && !found.ours.contains("unify") {
            broken.push(format!(
                "{name} does not use unify: building it alone builds its dependencies again"
            ));
        }
    }
    report("docs/architecture.md does not allow this", &broken);
}

#[test]
fn planner_and_runtime_meet_only_in_the_plan() {
    let crates = crates();
    let common: BTreeSet<_> = closure(&crates, "planner")
        .intersection(&closure(&crates, "runtime"))
        .cloned()
        .collect();
    let plan = ["plan", "types", "unify"].map(str::to_owned);
    assert_eq!(common, BTreeSet::from(plan));
}

#[test]
fn the_engine_is_usable_without_the_frontend() {
    let used = closure(&crates(), "engine");
    for above in ["frontend", "server", "testkit", "bench"] {
        assert!(!used.contains(above), "the engine uses {above}");
    }
}

#[test]
fn the_product_does_not_contain_the_testkit() {
    assert!(!closure(&crates(), "server").contains("testkit"));
}

#[test]
fn only_the_runtime_knows_timely() {
    for (name, found) in crates() {
        let knows = found.others.contains("timely");
        assert_eq!(
            knows,
            ["runtime", "unify"].contains(&name.as_str()),
            "{name} and timely"
        );
    }
}

#[test]
fn nothing_is_called_common() {
    for name in crates().keys() {
        assert!(
            !["common", "core", "util", "utils", "helpers"].contains(&name.as_str()),
            "a crate exists for a boundary, and {name} is none"
        );
    }
}

#[test]
fn operators_are_deterministic() {
    let crates = crates();
    let mut broken = Vec::new();
    for dependency in NOT_IN_DATAFLOW {
        if crates["dataflow"].others.contains(*dependency) {
            broken.push(format!("dataflow depends on {dependency}"));
        }
    }
    for source in sources() {
        if !source.path.starts_with("crates/dataflow/src/") {
            continue;
        }
        for (number, line) in source.product_lines() {
            for word in NOT_IN_DATAFLOW_SOURCES {
                if line.contains(word) {
                    broken.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    report(
        "operators know no runtime, I/O, threads, clock or randomness",
        &broken,
    );
}

#[test]
fn threads_are_made_where_there_is_a_reason() {
    let mut broken = Vec::new();
    let mut used = HashSet::new();
    for source in sources() {
        let reason = THREADS
            .iter()
            .find(|(place, _)| source.path.starts_with(place));
        for (number, line) in source.product_lines() {
            if !MAKES_THREADS.iter().any(|call| line.contains(call)) {
                continue;
            }
            match reason {
                Some((place, _)) => {
                    used.insert(*place);
                }
                None => broken.push(format!("{}:{number}: {}", source.path, line.trim())),
            }
        }
    }
    report(
        "only the runtime makes threads, and those listed in tidy.rs with a reason",
        &broken,
    );
    for place in ["crates/runtime/src/", "crates/engine/src/log/mod.rs"] {
        assert!(
            used.contains(place),
            "no thread is found in {place}: does this test still see them?"
        );
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    let broken: Vec<String> = sources()
        .iter()
        // Tests beside a module are about that module, which says what it promises.
        .filter(|s| !s.is_test && !s.text.starts_with("//!"))
        .map(|s| s.path.clone())
        .collect();
    report("every module begins with //!", &broken);
}

#[test]
fn files_are_of_readable_length() {
    let broken: Vec<String> = sources()
        .iter()
        .map(|s| (s.text.lines().count(), &s.path))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    report("a file has at most 1000 lines", &broken);
}

#[test]
fn what_is_left_to_do_has_a_number() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            for word in words {
                let unnumbered = line
                    .match_indices(word)
                    .any(|(at, _)| !is_numbered(&line[at + word.len()..]));
                if unnumbered {
                    broken.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
                }
            }
        }
    }
    report("what is left to do names an issue, as in (#12)", &broken);
}

fn is_numbered(rest: &str) -> bool {
    let number = rest
        .strip_prefix("(#")
        .and_then(|rest| rest.split_once(')'));
    number
        .is_some_and(|(digits, _)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// `[text](target)` outside of code blocks, with line numbers.
fn links(page: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in page.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let mut rest = line;
        while let (false, Some(middle)) = (in_code, rest.find("](")) {
            let text = rest[..middle].rsplit_once('[').map_or("", |(_, text)| text);
            let after = &rest[middle + 2..];
            let Some((target, behind)) = after.split_once(')') else {
                break;
            };
            found.push((index + 1, text, target));
            rest = behind;
        }
    }
    found
}

/// Whether a source defines the last part of `Type::name`, or is itself the module of that name.
fn defines(path: &Path, text: &str, name: &str) -> bool {
    let name = name.trim_end_matches("()");
    let last = name.rsplit("::").next().unwrap();
    let kinds = [
        "fn", "struct", "enum", "trait", "type", "const", "static", "mod", "impl",
    ];
    let is_module = path.file_stem().is_some_and(|stem| stem == last)
        || path
            .parent()
            .and_then(Path::file_name)
            .is_some_and(|f| f == last);
    is_module
        || kinds.iter().any(|kind| {
            let start = format!("{kind} {last}");
            text.match_indices(&start).any(|(at, _)| {
                !text[at + start.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
}

#[test]
fn documents_name_what_is_there() {
    let root = root();
    let mut pages = vec![root.join("README.md")];
    files(&root.join("docs"), "md", &mut pages);
    let mut broken = Vec::new();
    let mut into_sources = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for (line, label, target) in links(&text) {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let place = format!("{}:{line}", page.strip_prefix(&root).unwrap().display());
            let path = page
                .parent()
                .unwrap()
                .join(target.split('#').next().unwrap());
            if !path.exists() {
                broken.push(format!("{place}: {target} does not exist"));
                continue;
            }
            let is_name = label.starts_with('`') && label.ends_with('`') && !label.contains('/');
            if path.extension().is_some_and(|e| e == "rs") && is_name {
                into_sources += 1;
                let source = std::fs::read_to_string(&path).unwrap();
                let name = label.trim_matches('`');
                if !defines(&path.canonicalize().unwrap(), &source, name) {
                    broken.push(format!("{place}: {target} has no {name}"));
                }
            }
        }
    }
    report("documents name what is not there", &broken);
    assert!(
        into_sources > 20,
        "only {into_sources} links into the sources are seen"
    );
}

#[test]
fn the_checks_notice() {
    assert!(is_numbered("(#12): later") && !is_numbered(": later") && !is_numbered("(#)"));
    let here = Path::new("a/tidy.rs");
    assert!(defines(here, "pub fn one() {}", "X::one"));
    assert!(!defines(here, "pub fn one_more() {}", "one"));
    assert_eq!(
        links("see [`a`](b.rs) and [c](d)"),
        [(1, "`a`", "b.rs"), (1, "c", "d")]
    );
    let modules = test_modules(
        Path::new("a/b.rs"),
        "#[cfg(test)]\nmod tests;\nmod other;\n",
    );
    assert_eq!(modules, [PathBuf::from("a/b/tests")]);
    let source = Source {
        path: String::new(),
        text: "// thread::spawn\nlet a;\n#[cfg(test)]\nmod tests {\nthread::spawn".to_owned(),
        is_test: false,
    };
    assert_eq!(source.product_lines().collect::<Vec<_>>(), [(2, "let a;")]);
}

//! Checks the sources against ARCHITECTURE.md: layers, names that only some files may
//! write, sizes, texts. The tests below show that each rule can fail.
//!
//! In: the repository's files. Out: every breach at once, with its remedy.

#[path = "tidy/pure.rs"]
mod pure;
#[path = "tidy/texts.rs"]
mod texts;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pure::PURE;

/// Modules of the program from the lowest to the highest. A file names modules of
/// earlier rows and its own; modules of one row do not know each other. The compiler
/// ensures that crates below `crates/` know none of them.
const ORDER: [&[&str]; 16] = [
    &["clock", "seed", "warning_limit"],
    &["model"],
    &["facts", "load", "tables"],
    &["telemetry"],
    &["reload", "streams"],
    &["registry"],
    &["settings", "marks"],
    &["backend_channel", "catalog", "register"],
    &[
        "health",
        "health_check",
        "hosts",
        "load_reports",
        "persist",
        "policy",
        "readiness",
        "replica",
    ],
    &["placements"],
    &["balancer", "xds", "dns", "admin"],
    &["serve"],
    &["config"],
    &["app"],
    &["cli"],
    &["main"],
];

/// Names that only some files may write, outside of their tests.
const NAMES: &[Names] = &[
    Names {
        files: Files::In(PURE),
        words: &[
            "tokio",
            "tokio_stream",
            "tokio_util",
            "tonic::transport",
            "hyper::",
            "axum::",
            "socket2",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "Instant::now",
            ".elapsed(",
            "SystemTime",
            "rand::",
            "getrandom",
            "Mutex",
            "RwLock",
            "std::env",
            "env::var",
            "std::fs",
            "std::thread",
            "tracing",
            "println!",
            "eprintln!",
        ],
        remedy: "this file is pure: take the time, the seed or the value as an argument",
    },
    Names {
        files: Files::In(&["src/model.rs", "src/model/"]),
        words: &["bytes::", "http::", "prost", "pb::", "serde", "serde_json", "tonic", "anyhow"],
        remedy: "the model needs std and thiserror only",
    },
    Names {
        files: Files::NotIn(&["src/balancer.rs", "src/balancer/"]),
        words: &["balancer::pb", "include_proto!(\"grpc.lb"],
        remedy: "only the balancer names grpclb's protobuf types",
    },
    Names {
        files: Files::NotIn(&["src/xds.rs", "src/xds/"]),
        words: &["xds::pb", "pb::envoy"],
        remedy: "only xds names the protobuf types of xDS",
    },
    Names {
        files: Files::NotIn(&[
            "src/registry/etcd",
            "crates/embedded-etcd/",
            "src/register.rs",
            "src/register/",
            "src/replica.rs",
        ]),
        words: &["etcd_client", "etcdserverpb", "mvccpb"],
        remedy: "etcd's types end in registry/etcd, register and replica",
    },
    Names {
        files: Files::NotIn(&["src/catalog.rs", "src/balancer/clients.rs"]),
        words: &["dashmap", "DashMap"],
        remedy: "only catalog.rs and balancer/clients.rs share a map",
    },
    Names {
        files: Files::NotIn(&[
            "src/app.rs",
            "src/app/backends.rs",
            "src/app/replicas.rs",
            "src/app/skydns.rs",
            "src/app/tasks.rs",
            "src/cli.rs",
            "src/cli/",
            "src/register.rs",
            // Tasks that list a page of keys; the caller awaits them.
            "src/registry/etcd/list.rs",
            "src/serve.rs",
        ]),
        words: &["spawn", "spawn_local", "spawn_blocking", "JoinSet"],
        remedy: "tasks start in app.rs, so that every death is noticed; return a future",
    },
    Names {
        files: Files::NotIn(&["src/seed.rs", "crates/embedded-etcd/src/data.rs"]),
        words: &["RandomState", "rand::", "getrandom"],
        remedy: "chance comes from seed, which a simulation can fix",
    },
    Names {
        files: Files::NotIn(&[]),
        words: &["unbounded_channel", "std::sync::mpsc::channel", "mpsc::unbounded"],
        remedy: "every queue has a bound",
    },
];

/// Words that no Rust file contains, tests and comments included.
const BANNED: [(&str, &str); 6] = [
    ("todo!", "do it or leave it out"),
    ("unimplemented!", "do it or leave it out"),
    ("#[ignore", "a test runs, or skips by support::skip"),
    ("TODO", "do it now, or open an issue"),
    ("FIXME", "fix it now, or open an issue"),
    ("XXX", "say what is meant"),
];

/// The beginnings of calls that contain a text for people, which is in quotes.
const ERRORS: [&str; 6] =
    ["#[error(", "anyhow!(", "bail!(", "ensure!(", ".context(", ".with_context("];
const LOGS: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];

/// A text for people.
struct Text<'a> {
    words: &'a str,
    logged: bool,
}

/// Words that `files` must not write.
struct Names {
    files: Files,
    words: &'static [&'static str],
    remedy: &'static str,
}

/// Files, chosen by the beginnings of their paths.
enum Files {
    In(&'static [&'static str]),
    /// All sources of the program and of the crates except these.
    NotIn(&'static [&'static str]),
}

#[test]
fn the_sources_keep_the_rules() {
    let mut breaches = String::new();
    for path in sources() {
        let text = std::fs::read_to_string(root().join(&path)).expect("a source is text");
        for breach in check(&path, &text) {
            writeln!(breaches, "  {path}: {breach}").expect("a string takes it");
        }
    }
    assert!(breaches.is_empty(), "\n{breaches}");
}

#[test]
fn the_map_is_true() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    assert!(text.lines().count() <= 150, "ARCHITECTURE.md: at most 150 lines, it is a map");
    let words = text.split_whitespace().count();
    assert!(words <= 2_600, "ARCHITECTURE.md has {words} words: details belong to heads of files");
    let long = text.lines().find(|line| line.chars().count() > 400);
    assert_eq!(long, None, "ARCHITECTURE.md: at most 400 characters in a line");
    let breaches = check_map(&text, &sources());
    assert!(breaches.is_empty(), "ARCHITECTURE.md:\n  {}", breaches.join("\n  "));
}

/// Returns every breach in one file.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_test =
        path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
    let limit = if is_test { 600 } else { 400 };
    let lines = text.lines().count();
    if lines > limit {
        breaches.push(format!("{lines} lines, at most {limit}: it is two responsibilities"));
    }
    if !text.starts_with("//!") {
        breaches.push("begins without //!: its one job, what comes in, what goes out".to_owned());
    }
    if path.ends_with("/mod.rs") {
        breaches.push("a module foo is foo.rs, its parts are in foo/".to_owned());
    }
    // This file contains the words that it bans.
    if path != "tests/tidy.rs" {
        for (word, remedy) in BANNED.iter().filter(|(word, _)| has_word(text, word)) {
            breaches.push(format!("{word}: {remedy}"));
        }
    }
    if is_shipped(path) && !is_test {
        let code = code(text);
        for Names { files, words, remedy } in NAMES.iter().filter(|rule| rule.files.hold(path)) {
            for word in words.iter().filter(|word| has_word(&code, word)) {
                breaches.push(format!("{word}: {remedy} ({files})"));
            }
        }
        if path.starts_with("src/") {
            breaches.extend(check_order(path, &code));
        }
        breaches.extend(texts(&code).into_iter().filter_map(check_text));
    }
    breaches
}

/// Returns whether a file is part of the program or of one of its crates.
fn is_shipped(path: &str) -> bool {
    let in_crate = path.strip_prefix("crates/").and_then(|path| path.split_once('/'));
    in_crate.map_or(path, |(_, path)| path).starts_with("src/")
}

/// Returns a breach for each other module of the same or a higher row that `code` names.
fn check_order(path: &str, code: &str) -> Vec<String> {
    let module = module(path);
    if module == "lib" {
        return Vec::new();
    }
    let rank = |name: &str| ORDER.iter().position(|row| row.contains(&name));
    let Some(own) = rank(module) else {
        return vec![format!("module {module} has no place in ORDER of tests/tidy.rs")];
    };
    let mut named = roots(code, "crate::");
    if !path["src/".len()..].contains('/') {
        // In a file at the top, `super` is the crate.
        named.extend(roots(code, "super::"));
    }
    let higher = |name: &&String| *name != module && rank(name).is_some_and(|rank| rank >= own);
    named.iter().filter(higher).map(|name| format!("{module} must not know {name}")).collect()
}

/// Returns the module at the crate's root that a file under `src/` belongs to.
fn module(path: &str) -> &str {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split_once('/').map_or(path, |(first, _)| first)
}

/// Returns the names after each `start` in `code`: `crate::a` and `crate::{a::B, c}`.
fn roots(code: &str, start: &str) -> Vec<String> {
    let name = |text: &str| -> String { text.trim_start().chars().take_while(is_word).collect() };
    let mut names = Vec::new();
    for (at, _) in code.match_indices(start) {
        let rest = &code[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        names.push(name(group));
        let mut depth = 1;
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => names.push(name(&group[at + 1..])),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// Returns the texts of errors and logs.
fn texts(code: &str) -> Vec<Text<'_>> {
    let mut texts = Vec::new();
    for start in ERRORS.into_iter().chain(LOGS) {
        for (at, _) in code.match_indices(start) {
            let own = start.starts_with(['#', '.']) || !code[..at].ends_with(|c| is_word(&c));
            // The call ends at its closing parenthesis; parentheses in texts are paired.
            let rest = &code[at + start.len()..];
            let mut depth = 1;
            let end = rest.find(|character| {
                depth += i32::from(character == '(') - i32::from(character == ')');
                depth == 0
            });
            let call = &rest[..end.unwrap_or(rest.len())];
            // Fields come before the text and have values of their own.
            let quote = call.match_indices('"').map(|(at, _)| at).step_by(2).find(|&at| {
                let before = call[..at].trim_end();
                before.is_empty() || before.ends_with([',', '|']) || before.ends_with("format!(")
            });
            if let Some(quote) = quote.filter(|_| own) {
                let words = &call[quote + 1..];
                let words = &words[..words.find('"').unwrap_or(words.len())];
                texts.push(Text { words, logged: LOGS.contains(&start) });
            }
        }
    }
    texts
}

fn check_text(Text { words, logged }: Text<'_>) -> Option<String> {
    let mut letters = words.chars();
    let capital = letters.next().is_some_and(char::is_uppercase)
        && letters.next().is_some_and(char::is_lowercase);
    let stop = words.ends_with('.') && !words.ends_with("..");
    if capital || stop {
        return Some(format!("{words:?}: lower case, no full stop"));
    }
    (logged && words.contains('{')).then(|| format!("{words:?}: log fields, interpolate nothing"))
}

/// Checks that every path in the map exists and that every source has its row.
fn check_map(text: &str, sources: &[String]) -> Vec<String> {
    let sources: Vec<_> = sources.iter().filter(|path| is_shipped(path)).collect();
    let mut breaches = Vec::new();
    let mut mapped = Vec::new();
    let is_row = |line: &&str| line.starts_with("| `src/") || line.starts_with("| `crates/");
    for row in text.lines().filter(is_row) {
        let cell = row.split('|').nth(1).expect("a row has cells");
        let paths: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        // Further paths of a row are relative to the folder of its first.
        let (parent, _) = paths[0].rsplit_once('/').expect("it begins with src/ or crates/");
        for (index, path) in paths.iter().enumerate() {
            let path = if index == 0 { (*path).to_owned() } else { format!("{parent}/{path}") };
            if !sources.iter().any(|source| covers(&path, source)) {
                breaches.push(format!("{path} is in the map and not there"));
            }
            mapped.push(path);
        }
    }
    for source in sources.iter().filter(|source| !mapped.iter().any(|path| covers(path, source))) {
        breaches.push(format!("{source} is there and not in the map"));
    }
    breaches
}

/// `src/a.rs` covers itself; `src/a/*` covers all files below.
fn covers(mapped: &str, source: &str) -> bool {
    mapped.strip_suffix('*').map_or(mapped == source, |folder| source.starts_with(folder))
}

/// Returns a file without comments and without its tests, which come last.
fn code(text: &str) -> String {
    let mut code = String::new();
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    for line in text[..end].lines() {
        if !line.trim_start().starts_with("//") {
            code.push_str(line.split(" // ").next().unwrap_or_default());
            code.push('\n');
        }
    }
    code
}

/// Returns whether `word` occurs other than as a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let closed = |edge: Option<char>, other: Option<char>| {
        !(edge.is_some_and(|c| is_word(&c)) && other.is_some_and(|c| is_word(&c)))
    };
    text.match_indices(word).any(|(at, _)| {
        closed(word.chars().next(), text[..at].chars().next_back())
            && closed(word.chars().next_back(), text[at + word.len()..].chars().next())
    })
}

fn is_word(character: &char) -> bool {
    character.is_alphanumeric() || *character == '_'
}

impl Files {
    fn hold(&self, path: &str) -> bool {
        match self {
            Self::In(starts) => starts.iter().any(|start| path.starts_with(start)),
            Self::NotIn(starts) => !starts.iter().any(|start| path.starts_with(start)),
        }
    }
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::In(_) => f.write_str("see ARCHITECTURE.md, Layers"),
            Self::NotIn(starts) => write!(f, "allowed in {}", starts.join(", ")),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the project's Rust files, relative to the root.
fn sources() -> Vec<String> {
    let mut folders: Vec<PathBuf> = ["src", "tests", "examples", "benches", "crates"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        // Some of the folders may not exist.
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(root()).expect("it is below the root");
                sources.push(path.to_str().expect("our names are text").to_owned());
            }
        }
    }
    sources.sort();
    sources
}

/// Returns the breaches of a file `path` that contains `code` after a head comment.
fn breaches(path: &str, code: &str) -> Vec<String> {
    check(path, &format!("//! One job.\n{code}\n"))
}

#[test]
fn pure_files_name_nothing_impure() {
    let at = |path: &str, code: &str| breaches(path, code).len();
    assert_eq!(at("src/policy/passes.rs", "use tokio::time;"), 1);
    assert_eq!(at("src/policy.rs", "let now = std::time::Instant::now();"), 1);
    assert_eq!(at("src/registry/record/qsf.rs", "tracing::debug!(key, \"seen\");"), 1);
    assert_eq!(at("src/dns/answer.rs", "static A: Mutex<u8> = Mutex::new(0);"), 1);
    assert_eq!(at("src/model/name.rs", "use bytes::Bytes;"), 1);
    assert_eq!(at("src/policy.rs", "use std::time::Instant; fn f(now: Instant) {}"), 0);
    assert_eq!(at("src/policy.rs", "// tokio\n/// tokio\nlet operand = 1; // tokio"), 0);
    assert_eq!(at("src/policy.rs", "#[cfg(test)]\nmod tests {\n    use tokio::test;\n}"), 0);
    assert_eq!(at("src/policy/tests.rs", "use tokio::test;"), 0);
    assert_eq!(at("src/registry/etcd.rs", "use tokio::time;"), 0);
    assert_eq!(at("crates/http2/src/frame.rs", "use tokio::time;"), 1);
    assert_eq!(at("crates/http2/src/timer.rs", "use tokio::time;"), 0);
}

#[test]
fn only_some_files_name_some_things() {
    for (word, allowed, forbidden) in [
        ("use dashmap::DashMap;", "src/catalog.rs", "src/load.rs"),
        ("use etcd_client::Client;", "src/registry/etcd/watch.rs", "src/registry/record.rs"),
        ("let a = balancer::pb::Server {};", "src/balancer/stream.rs", "src/admin.rs"),
        ("tokio::spawn(task);", "src/app.rs", "src/catalog.rs"),
        ("let mut set = JoinSet::new();", "src/cli/demo.rs", "src/dns.rs"),
    ] {
        assert!(breaches(allowed, word).is_empty(), "{word}");
        assert!(!breaches(forbidden, word).is_empty(), "{word}");
    }
}

#[test]
fn lower_layers_do_not_name_higher_ones() {
    let at = |path: &str, code: &str| check_order(path, code).len();
    assert_eq!(at("src/catalog/index.rs", "use crate::balancer::Session;"), 1);
    assert_eq!(at("src/dns/answer.rs", "use crate::{model::{Name, admin}, admin::Page};"), 1);
    assert_eq!(at("src/dns.rs", "use super::balancer;"), 1);
    assert_eq!(at("src/balancer.rs", "let config: crate::config::Config = todo();"), 1);
    assert_eq!(at("src/surprise.rs", ""), 1);
    assert_eq!(at("src/balancer/views.rs", "use crate::{catalog::Known, policy, balancer::T};"), 0);
    assert_eq!(at("src/registry/etcd.rs", "use super::Event; use crate::model::Name;"), 0);
    assert_eq!(at("src/lib.rs", "pub use crate::app;"), 0);
}

#[test]
fn files_have_a_head_a_size_and_no_leftovers() {
    assert_eq!(check("tests/a.rs", "fn a() {}").len(), 1);
    assert_eq!(breaches("src/model/mod.rs", "").len(), 1);
    let long = "fn a() {}\n".repeat(500);
    assert_eq!(breaches("examples/a.rs", &long).len(), 1);
    assert_eq!(breaches("tests/a.rs", &long).len(), 0);
    for leftover in ["todo!()", "unimplemented!()", "#[ignore]", "// TODO: x", "// FIXME", "// XXX"]
    {
        assert_eq!(breaches("tests/a.rs", leftover).len(), 1, "{leftover}");
    }
    let unbounded = "let (a, b) = mpsc::unbounded_channel();";
    assert_eq!(breaches("src/app.rs", unbounded).len(), 1);
    assert_eq!(breaches("crates/http2/src/lib.rs", unbounded).len(), 1);
    assert_eq!(breaches("crates/http2/tests/a.rs", unbounded).len(), 0);
}

#[test]
fn texts_are_lower_case_without_a_full_stop() {
    let at = |code: &str| breaches("src/app.rs", code).len();
    assert_eq!(at("#[error(\"Port {0} is taken\")]"), 1);
    assert_eq!(at("#[error(\"port {0} is taken.\")]"), 1);
    assert_eq!(at("tracing::info!(peer = \"A b\", \"stream opened.\");"), 1);
    assert_eq!(at("file.read().context(\"Cannot read\")?;"), 1);
    assert_eq!(at("bail!(\"No such service\")"), 1);
    assert_eq!(at("file.read().with_context(|| format!(\"x\"))?; fn f() { \"Any. \" }"), 0);
    assert_eq!(at("f().with_context(|| format!(\"Cannot read {p}\"))"), 1);
    assert_eq!(at("tracing::info!(\"stream {id} opened\");"), 1);
    assert_eq!(at("#[error(\"TLS needs a key\")]"), 0);
    assert_eq!(at("tracing::warn!(name = \"A.\", count = f(\"B.\"), \"list cut\");"), 0);
    assert_eq!(at("myerror!(\"Not ours.\")"), 0);
}

#[test]
fn the_map_and_the_sources_agree() {
    let map = "| `src/main.rs`, `lib.rs` | x |\n| `src/dns/a.rs`, `b/*` | x |\n\
               | `crates/a/src/*` | x |\n";
    let sources = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let all = [
        "src/main.rs",
        "src/lib.rs",
        "src/dns/a.rs",
        "src/dns/b/c.rs",
        "crates/a/src/lib.rs",
        "crates/a/tests/x.rs",
    ];
    assert!(check_map(map, &sources(&all)).is_empty());
    assert_eq!(check_map(map, &sources(&all[1..])).len(), 1);
    assert_eq!(check_map(map, &sources(&[&all[..], &["src/new.rs"]].concat())).len(), 1);
    assert_eq!(check_map(map, &sources(&[&all[..3], &all[4..]].concat())).len(), 1);
    assert_eq!(check_map(map, &sources(&all[..4])).len(), 1);
}

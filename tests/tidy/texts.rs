//! Checks every text of the project, documents included.

use std::path::PathBuf;

use super::{root, sources};

/// Hosts of package registries. Links must lead to the project itself. (The names are in
/// parts, because this file is checked too.)
const REGISTRIES: [[&str; 2]; 9] = [
    ["pypi", ".org"],
    ["pythonhosted", ".org"],
    ["crates", ".io"],
    ["npmjs", ".com"],
    ["npmjs", ".org"],
    ["rubygems", ".org"],
    ["mvnrepository", ".com"],
    ["repo1.maven", ".org"],
    ["proxy.golang", ".org"],
];

#[test]
fn no_text_names_a_package_registrys_host() {
    let mut breaches = Vec::new();
    for path in texts_of_ours() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for host in REGISTRIES.map(|parts| parts.concat()) {
            if text.contains(&host) {
                let path = path.strip_prefix(root()).expect("it is below the root").display();
                breaches.push(format!("{path} names {host}: link to the project's own pages"));
            }
        }
    }
    assert!(breaches.is_empty(), "\n  {}", breaches.join("\n  "));
}

/// Documents that name the tests which hold a promise.
const NAMING_TESTS: [&str; 7] = [
    "tests/README.md",
    "tests/clients/README.md",
    "docs/clients.md",
    "docs/faults.md",
    "docs/reliability.md",
    "docs/replicas.md",
    "docs/security.md",
];

#[test]
fn the_tests_that_documents_name_exist() {
    let mut known = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(root().join(path)).expect("a source is text");
        known.extend(text.split("fn ").skip(1).map(|after| first_word(after).to_owned()));
    }
    let mut breaches = Vec::new();
    for path in NAMING_TESTS {
        let text = std::fs::read_to_string(root().join(path)).expect("it is there");
        // The section after this heading names tests that were removed.
        let text = text.split("## Where tests went").next().unwrap_or_default();
        for (at, line) in text.lines().enumerate() {
            for name in named_tests(line).filter(|name| !exists(name, &known)) {
                breaches.push(format!("{path}:{}: there is no test {name}", at + 1));
            }
            for file in named_files(line).filter(|file| !root().join(file).exists()) {
                breaches.push(format!("{path}:{}: there is no file {file}", at + 1));
            }
        }
    }
    assert!(breaches.is_empty(), "\n  {}", breaches.join("\n  "));
}

/// Returns the names in backticks that are sentences, as names of tests are. An ellipsis
/// or an asterisk may end one.
fn named_tests(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    // Options of gRPC and names of metrics look alike.
    let spans = spans.filter(|span| !span.starts_with("grpc.") && !span.starts_with("lookaside_"));
    let words = spans.flat_map(|span| span.split(|c: char| !is_part(c) && c != '…' && c != '*'));
    words.filter(|word| word.matches('_').count() >= 3 && !word.starts_with('_'))
}

/// Returns the Rust files in backticks, less the test that may follow.
fn named_files(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    let paths = spans.map(|span| span.split("::").next().unwrap_or_default());
    let ours = |path: &&str| ["src/", "tests/", "crates/"].iter().any(|at| path.starts_with(at));
    paths.filter(ours).filter(|path| path.ends_with(".rs") && !path.contains(['*', '{']))
}

/// Returns whether a test is called so. An ellipsis or an asterisk stands for any text.
fn exists(name: &str, known: &[String]) -> bool {
    let part = name.trim_matches(['…', '*']);
    known.iter().any(|known| {
        let begins = known.starts_with(part) || !name.starts_with(part);
        let ends = known.ends_with(part) || !name.ends_with(part);
        begins && ends && known.contains(part)
    })
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !is_part(c)).next().unwrap_or_default()
}

fn is_part(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[test]
fn a_name_of_a_test_is_told_from_other_words() {
    let line = "`a::b_c_d_e`, `x_y_z_…` and `grpc.a_b_c_d`, `--a-b`, not_in_any_ticks";
    assert_eq!(named_tests(line).collect::<Vec<_>>(), ["b_c_d_e", "x_y_z_…"]);
    let line = "`src/a.rs::b`, `tests/c.rs`, `crates/d/*.rs`, `e.rs`";
    assert_eq!(named_files(line).collect::<Vec<_>>(), ["src/a.rs", "tests/c.rs"]);
    let known = ["x_y_z_w".to_owned()];
    assert!(exists("x_y_z_…", &known) && !exists("x_y_z_", &known));
}

/// Returns the files that people write, without output of tools and builds.
fn texts_of_ours() -> Vec<PathBuf> {
    const TOOLS: [&str; 7] =
        ["target", ".git", "node_modules", "Cargo.lock", "package-lock.json", "go.sum", "corpus"];
    let mut folders = vec![root().to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("a folder can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ours = !TOOLS.contains(&name.as_str()) && !path.is_symlink();
            match ours {
                true if path.is_dir() => folders.push(path),
                true => files.push(path),
                false => {}
            }
        }
    }
    files
}

//! Commands that are named and not run, because they are too long or are what runs the tests:
//! their targets, scripts, tests, subcommands and flags exist. JSON in the text is JSON.

use std::collections::BTreeMap;
use std::process::Command;

use super::page::{Block, inline, pages, read, root};
use super::world::World;
use crate::support::lookaside::program;

/// Checks the commands of a block that no scene runs.
pub(super) fn names(_: &mut World, block: &Block) {
    for command in block.commands() {
        let (command, _) = command.text.split_once('#').unwrap_or((&command.text, ""));
        let wrong = breach(command.trim(), &mut BTreeMap::new());
        assert_eq!(wrong, None, "{}: {command}", block.at());
    }
}

/// Returns what is wrong with inline code of the pages, with page and line.
pub(super) fn breaches() -> Vec<String> {
    let mut helps = BTreeMap::new();
    let mut breaches = Vec::new();
    // A changelog may name commands that no longer exist.
    for page in pages().iter().filter(|page| *page != "CHANGELOG.md") {
        for (line, code) in inline(page) {
            if let Some(breach) = breach(&code, &mut helps) {
                breaches.push(format!("{page}:{line}: `{code}`: {breach}"));
            }
        }
    }
    breaches
}

/// Returns what is wrong with a command. Gathers the program's help texts in `helps`.
fn breach(code: &str, helps: &mut BTreeMap<String, String>) -> Option<String> {
    let is_variable = |word: &&str| word.contains('=') && word.starts_with(char::is_uppercase);
    let words: Vec<_> = code.split_whitespace().collect();
    let (variables, words) = words.split_at(words.iter().take_while(|w| is_variable(w)).count());
    match *words {
        ["make", target, ..] => {
            let makefile = read("Makefile");
            if !makefile.contains(&format!("\n{target}:")) {
                return Some("the Makefile has no such target".into());
            }
            unread(variables, &makefile)
        }
        ["cargo", "test", "--test", name, ref tests @ ..] if name != "NAME" => {
            let path = format!("tests/{name}.rs");
            if !read("Cargo.toml").contains(&format!("path = \"{path}\"")) {
                return Some("Cargo.toml has no such test".into());
            }
            // One binary has the tests of many files.
            let modules = tests.iter().filter_map(|test| test.split("::").next());
            let files = modules.map(|module| format!("tests/{module}.rs"));
            let files = files.filter(|file| root().join(file).exists()).map(|file| read(&file));
            unread(variables, &files.fold(read(&path), |all, file| all + &file))
        }
        ["lookaside", ..] => unknown_to_the_program(words, helps),
        [script, ref arguments @ ..] if script.starts_with("scripts/") => {
            if !root().join(script).exists() {
                return Some("there is no such script".into());
            }
            // cargo's and clap's own flag is in no text.
            let flags =
                arguments.iter().filter(|word| word.starts_with("--") && **word != "--help");
            let text = read(script);
            let mut unknown = flags.filter(|flag| !text.contains(**flag));
            let unknown = unknown.next().map(|flag| format!("the script's text has no {flag}"));
            unknown.or_else(|| unread(variables, &text))
        }
        _ if code.starts_with("{\"") || code.starts_with("grpc_config=") => {
            // An ellipsis stands for a value, or for the fields of an object.
            let json = code.trim_start_matches("grpc_config=");
            let json = json.replace("{…}", "{}").replace(":…", ":null");
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&json);
            parsed.err().map(|error| error.to_string())
        }
        _ => None,
    }
}

/// Returns the first variable that a text does not name.
fn unread(variables: &[&str], text: &str) -> Option<String> {
    let names = variables.iter().filter_map(|variable| Some(variable.split_once('=')?.0));
    let mut unread = names.filter(|name| !text.contains(name));
    unread.next().map(|name| format!("nothing there reads {name}"))
}

/// Returns the first word of `lookaside ...` that is no subcommand or flag.
fn unknown_to_the_program(words: &[&str], helps: &mut BTreeMap<String, String>) -> Option<String> {
    let is_name = |word: &&&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let mut subcommands: Vec<_> =
        words[1..].iter().take_while(is_name).take_while(|word| !word.starts_with('-')).collect();
    // Only `settings` has commands of its own; other names are arguments.
    let depth = if subcommands.first() == Some(&&"settings") { 2 } else { 1 };
    subcommands.truncate(depth);
    let path: Vec<&str> = subcommands.into_iter().copied().collect();
    let help = helps.entry(path.join(" ")).or_insert_with(|| {
        let output = Command::new(program()).args(&path).arg("--help").output();
        let output = output.expect("lookaside runs");
        match output.status.success() {
            true => String::from_utf8_lossy(&output.stdout).into_owned(),
            false => String::new(),
        }
    });
    if help.is_empty() {
        return Some(format!("there is no command {path:?}"));
    }
    let flags = words[1..].iter().take_while(|word| **word != "--");
    let flags = flags.map(|word| word.trim_matches(['[', ']']));
    let flags = flags.map(|word| word.split('=').next().expect("a split has a part"));
    // A flag's name ends where the help has another character.
    let known = |flag: &str| {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        flag == "--help"
            || help
                .match_indices(flag)
                .any(|(at, _)| !help[at + flag.len()..].starts_with(of_a_name))
    };
    let mut flags = flags.filter(|word| word.starts_with("--") && word.len() > 2);
    flags.find(|flag| !known(flag)).map(|flag| format!("no flag {flag}"))
}

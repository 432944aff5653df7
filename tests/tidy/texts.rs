//! Rules for every text of the project, documents included.

use std::path::PathBuf;

use super::root;

/// Registries' own pages: a link leads to the project itself. (Written in parts,
/// for this file is looked at too.)
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

/// Files that people write: not what tools wrote or built.
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

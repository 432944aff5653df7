//! The difference of two documents, for people. Pure.
//!
//! In: two documents. Out: each setting that differs, with both values.

use std::collections::BTreeMap;

use super::Document;

/// Returns the settings that differ, sorted: `[service."pay"] guard: 40 -> none`.
#[must_use]
pub fn changes(before: Option<&Document>, after: Option<&Document>) -> Vec<String> {
    let (before, after) = (settings(before), settings(after));
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let mut changes: Vec<String> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            let text = |all: &BTreeMap<String, String>| all.get(name).cloned();
            let none = || "none".to_owned();
            let (old, new) = (text(&before), text(&after));
            format!("{name}: {} -> {}", old.unwrap_or_else(none), new.unwrap_or_else(none))
        })
        .collect();
    changes.sort_unstable();
    changes
}

/// Returns the value of each setting after its table and key, as the document writes them.
fn settings(document: Option<&Document>) -> BTreeMap<String, String> {
    let text = document.map(ToString::to_string).unwrap_or_default();
    let (mut all, mut table) = (BTreeMap::new(), "");
    for line in text.lines() {
        match line.split_once(" = ") {
            Some((key, value)) => drop(all.insert(format!("{table} {key}"), value.to_owned())),
            None => table = line,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_differs_is_named_with_both_values() {
        let document = |text: &str| Document::parse(text).unwrap();
        let before = document(
            "[service.pay]\nguard = 40\nclients = 'nobody'\n[service.a]\nguard = 1\n\
             [zones]\n'10.0.0.0/8' = 'a'\n",
        );
        let after = document(
            "[service.pay]\nguard = 40\nclients = ['10.0.0.0/8']\n[registrants]\n'/a/' = ['a']\n\
             [zones]\n'10.0.0.0/8' = 'b'\n",
        );
        let expected = [
            r#"[registrants] "/a/": none -> ["a"]"#,
            r#"[service."a"] guard: "1" -> none"#,
            r#"[service."pay"] clients: "nobody" -> "10.0.0.0/8""#,
            r#"[zones] "10.0.0.0/8": "a" -> "b""#,
        ];
        assert_eq!(changes(Some(&before), Some(&after)), expected);
        assert_eq!(changes(Some(&before), Some(&before)), [""; 0]);
        assert_eq!(changes(None, Some(&after)).len(), 4);
        assert_eq!(changes(None, None), [""; 0]);
    }
}

//! Reads the table `[registrants]` of a settings document, and collects all problems. Pure.
//!
//! In: the TOML of the table. Out: [`Registrants`] of all that could be read.

use std::sync::Arc;

use toml::de::DeValue;

use super::super::{Pattern, Registrants};
use super::REGISTRANTS;
use super::reader::{Reader, short};
use crate::tables::Value;

/// The most prefixes. Each may be compared with each key.
const PREFIXES_MAX: usize = 256;
/// The most patterns of a prefix.
const PATTERNS_MAX: usize = 128;

impl Reader<'_, '_> {
    pub(super) fn registrants(&mut self, value: &Value<'_>) -> Registrants {
        let DeValue::Table(rows) = value.get_ref() else {
            let found = value.get_ref().type_str();
            let told = format!(
                "registrants is {found}: write [registrants] and \"/team-a/\" = [\"a/*\"] below it"
            );
            self.problems.add(value.span(), told);
            return Registrants::default();
        };
        if rows.len() > PREFIXES_MAX {
            let told = format!(
                "[{REGISTRANTS}] has {} prefixes: at most {PREFIXES_MAX} are allowed",
                rows.len()
            );
            self.problems.add(value.span(), told);
            return Registrants::default();
        }
        let mut all = Vec::new();
        for (prefix, value) in rows {
            let text: &str = prefix.get_ref();
            // Without it, "/team" would also be the prefix of "/team-b/".
            if !text.ends_with(['/', ':']) || text.trim_matches('/').is_empty() {
                let told = format!(
                    "[{REGISTRANTS}]: {:?} is no prefix of keys: write one that ends with a \
                     slash or a colon, such as /etcd3_naming/team-a/",
                    short(text)
                );
                self.problems.add(prefix.span(), told);
                continue;
            }
            let patterns = self.patterns(value);
            all.push((Arc::from(text), patterns.into()));
        }
        Registrants::new(all)
    }

    fn patterns(&mut self, value: &Value<'_>) -> Vec<Pattern> {
        let DeValue::Array(all) = value.get_ref() else {
            let found = value.get_ref().type_str();
            let told = format!(
                "[{REGISTRANTS}]: it is {found}: write a list of patterns, or [] for nothing"
            );
            self.problems.add(value.span(), told);
            return Vec::new();
        };
        if all.len() > PATTERNS_MAX {
            let told = format!(
                "[{REGISTRANTS}]: {} patterns: at most {PATTERNS_MAX} are allowed",
                all.len()
            );
            self.problems.add(value.span(), told);
            return Vec::new();
        }
        let mut patterns = Vec::new();
        for one in all {
            let pattern = match one.get_ref() {
                DeValue::String(text) => Pattern::parse(text).map_err(|error| error.to_string()),
                other => Err(format!("{} is in the list: write a pattern", other.type_str())),
            };
            match pattern {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    self.problems.add(one.span(), format!("[{REGISTRANTS}]: {}", short(&error)));
                }
            }
        }
        patterns
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Document;
    use crate::model::ServiceName;
    use crate::settings::{ServiceSettings, Settings};

    const TEXT: &str = "
        [service.pay]
        clients = ['spiffe://prod/web', 'dns:*.web.example', '10.0.0.0/8']
        [service.'dev/*']
        clients = 'nobody'
        [registrants]
        '/team-a/' = ['a/*', 'shared']
        '/other/' = []
    ";

    #[test]
    fn rules_of_clients_and_registrants_are_read_and_written() {
        let document = Document::parse(TEXT).unwrap();
        assert_eq!(Document::parse(&document.to_string()).unwrap(), document);
        let settings = Settings::new(ServiceSettings::DEFAULT).with(Some(Arc::new(document)), None);
        let clients = |name: &str| settings.for_canonical(name).clients.to_string();
        assert_eq!(clients("pay"), "spiffe://prod/web, dns:*.web.example, 10.0.0.0/8");
        assert_eq!((clients("x.dev"), clients("other")), ("nobody".into(), "all".into()));
        let found = settings.rule_of_certificates();
        let expected = ("[service.\"pay\"] clients", "spiffe://prod/web");
        assert_eq!(found, Some((expected.0.to_owned(), expected.1.to_owned())));
        let pay = ServiceName::new("pay").unwrap();
        assert!(settings.registrants().problem(b"/other/1", &pay).is_some());
        assert!(settings.registrants().problem(b"/third/1", &pay).is_none());
        // A document that says only this is not empty.
        assert!(!Document::parse("[registrants]\n'/a/' = []").unwrap().is_empty());
        let store = Document::parse("[registrants]\n'/other/' = ['*']").unwrap();
        let both = settings
            .with(settings.document(crate::settings::Layer::File).cloned(), Some(Arc::new(store)));
        assert!(both.registrants().problem(b"/other/1", &pay).is_none());
    }

    #[test]
    fn wrong_rules_are_refused_with_their_places() {
        for (text, expected) in [
            (
                "[service.a]\nclients = []",
                "2:11: [service.\"a\"] clients: the list is empty: write \"nobody\"",
            ),
            ("[service.a]\nclients = ['a,b']", "\"a,b\" has a comma"),
            ("[service.a]\nclients = [1]", "integer is in the list"),
            ("[service.a]\nclients = ['web']", "\"web\" names no client"),
            ("[service.a]\nclients = true", "it is boolean"),
            ("[service.a]\nguard = ['1']", "it is array"),
            ("registrants = 1", "1:15: registrants is integer: write [registrants]"),
            ("[registrants]\n'/a' = []", "2:1: [registrants]: \"/a\" is no prefix of keys"),
            ("[registrants]\n'/' = []", "is no prefix of keys"),
            ("[registrants]\n'/a/' = 'a'", "it is string: write a list of patterns"),
            ("[registrants]\n'/a/' = ['a', 'x..y']", "2:15: [registrants]: the pattern \"x..y\""),
            ("[registrants]\n'/a/' = [1]", "integer is in the list"),
        ] {
            let problems = Document::parse(text).unwrap_err();
            assert!(problems[0].to_string().contains(expected), "{text}: {problems:?}");
        }
        let many = vec!["'a'"; 129].join(",");
        let problems = Document::parse(&format!("[registrants]\n'/a/' = [{many}]")).unwrap_err();
        assert!(problems[0].text.contains("129 patterns"), "{problems:?}");
        let many: String = (0..257).map(|n| format!("'/{n}/' = []\n")).collect();
        let problems = Document::parse(&format!("[registrants]\n{many}")).unwrap_err();
        assert!(problems[0].text.contains("257 prefixes"), "{problems:?}");
    }
}

//! The text of a value as a tree that paths point into, whatever its syntax.
//!
//! In: a value's text. Out: JSON-like trees and what a JSON pointer (RFC 6901)
//! finds in them. Text that holds JSON is walked through: some registrants put
//! JSON into strings.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Syntax {
    /// `host:port`, or a URL; the tree is that text.
    #[default]
    Text,
    /// `grpc://host:port/path?key=value`; see [`url`].
    Url,
    /// `key=value&key=value`: an object of texts.
    Query,
    /// JSON.
    Json,
    /// The value says nothing; the key says it all.
    Nothing,
}

/// The tree of a value.
pub(super) fn parse(syntax: Syntax, text: &str) -> Result<Value, String> {
    match syntax {
        Syntax::Text => Ok(Value::String(text.trim().to_owned())),
        Syntax::Url => url(text.trim()).ok_or_else(|| "the value is no URL".to_owned()),
        Syntax::Query => Ok(query(text.trim(), true)),
        Syntax::Json => match serde_json::from_str(text) {
            Ok(tree @ Value::Object(_)) => Ok(tree),
            Ok(_) => Err("the value is JSON but no object".to_owned()),
            Err(error) => Err(format!("the value is no JSON: {error}")),
        },
        Syntax::Nothing => Ok(Value::Null),
    }
}

/// `{"scheme", "address", "path", "query": {…}}`; none of it checked yet.
pub(super) fn url(text: &str) -> Option<Value> {
    let (scheme, rest) = text.split_once("://")?;
    let (rest, queried) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = authority.rsplit('@').next().unwrap_or_default();
    // A plus is a plus: nobody encodes forms into these.
    let query = query(queried, false);
    Some(json!({ "scheme": scheme, "address": address, "path": path, "query": query }))
}

fn query(text: &str, form: bool) -> Value {
    let decode = |text: &str| {
        let text = if form { text.replace('+', " ") } else { text.to_owned() };
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), Value::String(decode(value)))
    };
    Value::Object(pairs.map(pair).collect::<Map<_, _>>())
}

/// What a pointer finds; null is nothing. Where a string on the way holds JSON,
/// it goes on in there.
pub(super) fn find<'a>(tree: &'a Value, pointer: &str) -> Option<Cow<'a, Value>> {
    let (mut value, mut rest) = (tree, pointer);
    while let Some(below) = rest.strip_prefix('/') {
        let token = below.split('/').next().unwrap_or_default();
        let Some(next) = step(value, token) else {
            let inner = held(value)?;
            return find(&inner, rest).map(|found| Cow::Owned(found.into_owned()));
        };
        (value, rest) = (next, &below[token.len()..]);
    }
    (rest.is_empty() && !value.is_null()).then_some(Cow::Borrowed(value))
}

/// One token further, as RFC 6901 has it. `Value::pointer` does the same, but
/// copies every token twice.
fn step<'a>(value: &'a Value, token: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) if token.contains('~') => {
            map.get(&token.replace("~1", "/").replace("~0", "~"))
        }
        Value::Object(map) => map.get(token),
        Value::Array(list) => {
            let number = token.bytes().all(|byte| byte.is_ascii_digit());
            let plain = number && (token == "0" || !token.starts_with('0'));
            list.get(plain.then(|| token.parse::<usize>().ok())??)
        }
        _ => None,
    }
}

/// The JSON object or list that a text holds.
pub(super) fn held(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim_start();
    let inner = text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten()?;
    matches!(inner, Value::Object(_) | Value::Array(_)).then_some(inner)
}

/// A value as metadata holds it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_queries_are_trees() {
        let tree = url("tri://u@10.0.0.1:1/com.x.Svc?a=1%202&b=x+y&c").unwrap();
        let expected = json!({
            "scheme": "tri", "address": "10.0.0.1:1", "path": "com.x.Svc",
            "query": { "a": "1 2", "b": "x+y", "c": "" },
        });
        assert_eq!(tree, expected);
        assert_eq!(url("10.0.0.1:1"), None);
        assert_eq!(parse(Syntax::Query, "w=7&s=a+b%"), Ok(json!({ "w": "7", "s": "a b%" })));
    }

    #[test]
    fn pointers_walk_through_text() {
        let tree = json!({ "m": { "e": "[{\"port\":7}]", "n": null }, "a/b": 1 });
        let found = |pointer: &str| find(&tree, pointer).map(|value| text(&value));
        assert_eq!(found("/m/e/0/port").as_deref(), Some("7"));
        assert_eq!(found("/a~1b").as_deref(), Some("1"));
        assert_eq!(found("/m/n"), None);
        assert_eq!(found("/m/e/9"), None);
        assert_eq!(found("/x"), None);
        assert_eq!(found("m"), None);
        let list = json!(["a", "b"]);
        let found = |pointer: &str| find(&list, pointer).map(|value| text(&value));
        assert_eq!(found("/1").as_deref(), Some("b"));
        for none in ["/01", "/+1", "/-", "/", "/2", "/1/0"] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}

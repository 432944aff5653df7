//! Parses the text of a value, in any syntax, into a tree that JSON pointers (RFC 6901)
//! search.
//!
//! In: the text of a value. Out: a JSON-like tree, and what a pointer finds in it. Some
//! registrants put JSON into strings: [`expand`] parses those that a path leads
//! through, once.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, json};

/// The syntax of a value.
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
    /// The value is ignored; the key holds everything.
    Nothing,
}

/// The greatest depth of a tree. Deeper parts are left out: no registration uses them,
/// and the size of the stack must not depend on a value.
pub(super) const DEPTH_MAX: usize = 32;

/// Parses a value. Returns its tree, and whether a part was nested too deep and left
/// out. With `wanted`, reads only those fields of a JSON object.
pub(super) fn parse(
    syntax: Syntax,
    text: &str,
    wanted: Option<&[&str]>,
) -> Result<(Value, bool), String> {
    let whole = |tree| Ok((tree, false));
    match syntax {
        Syntax::Text => whole(Value::String(text.trim().to_owned())),
        Syntax::Url => match url(text.trim()) {
            Some(tree) => whole(tree),
            None => Err("the value is no URL".to_owned()),
        },
        Syntax::Query => whole(query(text.trim(), true)),
        Syntax::Json => json_object(text, wanted),
        Syntax::Nothing => whole(Value::Null),
    }
}

/// Parses a JSON object; otherwise returns the reason why the text is none.
pub(super) fn json_object(text: &str, wanted: Option<&[&str]>) -> Result<(Value, bool), String> {
    match read(text, wanted) {
        Ok((tree @ Value::Object(_), cut)) => Ok((tree, cut)),
        Ok(_) => Err("the value is JSON but no object".to_owned()),
        Err(error) => Err(format!("the value is no JSON: {error}")),
    }
}

fn read(text: &str, wanted: Option<&[&str]>) -> serde_json::Result<(Value, bool)> {
    let cut = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let tree = Branch { left: DEPTH_MAX, wanted, cut: &cut }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((tree, cut.get()))
}

/// Reads a part of a tree that is at most `left` levels deep.
struct Branch<'a> {
    left: usize,
    wanted: Option<&'a [&'a str]>,
    cut: &'a Cell<bool>,
}

impl Branch<'_> {
    /// Returns the seed of the next level, or `None` if that is too deep.
    fn below(&self) -> Option<Branch<'_>> {
        let left = self.left.checked_sub(1);
        self.cut.set(self.cut.get() || left.is_none());
        Some(Branch { left: left?, wanted: None, cut: self.cut })
    }
}

impl<'de> DeserializeSeed<'de> for Branch<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Branch<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(below) = self.below() {
            match all.next_element_seed(below)? {
                Some(one) => list.push(one),
                None => return Ok(Value::Array(list)),
            }
        }
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = all.next_key::<String>()? {
            let wanted = self.wanted.is_none_or(|wanted| wanted.contains(&name.as_str()));
            match self.below().filter(|_| wanted) {
                Some(below) => drop(object.insert(name, all.next_value_seed(below)?)),
                None => drop(all.next_value::<IgnoredAny>()?),
            }
        }
        Ok(if self.left == 0 { Value::Null } else { Value::Object(object) })
    }
}

/// Splits a URL into `{"scheme", "address", "path", "query": {…}}` without checking the
/// parts.
pub(super) fn url(text: &str) -> Option<Value> {
    let (scheme, rest) = text.split_once("://")?;
    let (rest, queried) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = authority.rsplit('@').next().unwrap_or_default();
    // A plus stays a plus: these URLs are not form-encoded.
    let query = query(queried, false);
    Some(json!({ "scheme": scheme, "address": address, "path": path, "query": query }))
}

fn query(text: &str, form: bool) -> Value {
    let decode = |text: &str| {
        let text = if form { text.replace('+', " ") } else { text.to_owned() };
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let mut object = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // If a key occurs more than once, the first value is used, as with Go's
        // `url.Values`.
        object.entry(decode(key)).or_insert_with(|| Value::String(decode(value)));
    }
    Value::Object(object)
}

/// Returns the value that a pointer finds. Null counts as nothing.
pub(super) fn find<'a>(tree: &'a Value, pointer: &str) -> Option<&'a Value> {
    let (mut value, mut rest) = (tree, pointer);
    while let Some(below) = rest.strip_prefix('/') {
        let token = below.split('/').next().unwrap_or_default();
        (value, rest) = (step(value, token)?, &below[token.len()..]);
    }
    (rest.is_empty() && !value.is_null()).then_some(value)
}

/// Parses texts that hold JSON and that a pointer leads through. With `whole`, also the
/// text that it leads to. Returns whether a part was nested too deep.
pub(super) fn expand(tree: &mut Value, pointer: &str, whole: bool) -> bool {
    let (mut value, mut rest, mut cut) = (tree, pointer, false);
    loop {
        if (whole || !rest.is_empty())
            && let Some((inner, deep)) = embedded_json(value)
        {
            (*value, cut) = (inner, cut || deep);
        }
        let Some(below) = rest.strip_prefix('/') else { return cut };
        let token = below.split('/').next().unwrap_or_default();
        let next = match value {
            Value::Object(map) => map.get_mut(&*unescaped(token)),
            Value::Array(list) => place(token).and_then(|at| list.get_mut(at)),
            _ => None,
        };
        let Some(next) = next else { return cut };
        (value, rest) = (next, &below[token.len()..]);
    }
}

/// Goes one token further, as RFC 6901 says. `Value::pointer` does the same, but copies
/// every token twice.
fn step<'a>(value: &'a Value, token: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(&*unescaped(token)),
        Value::Array(list) => list.get(place(token)?),
        _ => None,
    }
}

fn unescaped(token: &str) -> Cow<'_, str> {
    match token.contains('~') {
        true => token.replace("~1", "/").replace("~0", "~").into(),
        false => token.into(),
    }
}

fn place(token: &str) -> Option<usize> {
    let number = token.bytes().all(|byte| byte.is_ascii_digit());
    let plain = number && (token == "0" || !token.starts_with('0'));
    plain.then(|| token.parse().ok())?
}

/// Returns the JSON object or list that a text holds, and whether a part was nested too
/// deep.
pub(super) fn embedded_json(value: &Value) -> Option<(Value, bool)> {
    let text = value.as_str()?.trim_start();
    let found = text.starts_with(['{', '[']).then(|| read(text, None).ok()).flatten()?;
    matches!(found.0, Value::Object(_) | Value::Array(_)).then_some(found)
}

/// Returns a value as text, as metadata holds it.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
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
        let query = parse(Syntax::Query, "w=7&s=a+b%&w=8", None).unwrap().0;
        assert_eq!(query, json!({ "w": "7", "s": "a b%" }));
    }

    #[test]
    fn pointers_walk_through_text() {
        let mut tree = json!({ "m": { "e": "[{\"port\":7}]", "n": null }, "a/b": 1, "t": "[2]" });
        assert_eq!(find(&tree, "/m/e/0/port"), None);
        for pointer in ["/m/e/0/port", "/x/y", "/t", "/a~1b/z"] {
            assert!(!expand(&mut tree, pointer, false));
        }
        let found =
            |tree: &Value, pointer: &str| find(tree, pointer).map(|value| text(value).into_owned());
        assert_eq!(found(&tree, "/m/e/0/port").as_deref(), Some("7"));
        assert_eq!(found(&tree, "/a~1b").as_deref(), Some("1"));
        assert_eq!(found(&tree, "/t/0"), None);
        for none in ["/m/n", "/m/e/9", "/x", "m"] {
            assert_eq!(found(&tree, none), None, "{none}");
        }
        expand(&mut tree, "/t", true);
        assert_eq!(found(&tree, "/t/0").as_deref(), Some("2"));
        let list = json!(["a", "b"]);
        assert_eq!(found(&list, "/1").as_deref(), Some("b"));
        for none in ["/01", "/+1", "/-", "/", "/2", "/1/0"] {
            assert_eq!(found(&list, none), None, "{none}");
        }
    }

    #[test]
    fn depth_is_bounded_and_what_nobody_wants_is_not_kept() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let object = |depth| format!(r#"{{"a":{},"b":7}}"#, nested(depth));
        let (tree, cut) = json_object(&object(DEPTH_MAX - 1), None).unwrap();
        assert!(!cut && find(&tree, "/a/0").is_some());
        // Deeper than the stack would bear if it were used.
        for depth in [DEPTH_MAX + 1, 500_000] {
            let (tree, cut) = json_object(&object(depth), None).unwrap();
            assert!(cut);
            assert_eq!(tree["b"], 7);
            let (tree, cut) = json_object(&object(depth), Some(&["b"])).unwrap();
            assert_eq!((tree, cut), (json!({ "b": 7 }), false));
        }
        assert!(json_object("[1]", None).unwrap_err().contains("no object"));
        assert!(json_object("{} x", None).unwrap_err().contains("trailing characters"));
    }
}

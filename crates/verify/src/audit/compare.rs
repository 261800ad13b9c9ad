//! Where two JSON values begin to differ.

use serde_json::Value;

/// The first place at which `found` is not what `expected` says, as a field path with both values.
pub(crate) fn first_difference(expected: &Value, found: &Value) -> Option<String> {
    differ(expected, found, &mut String::new())
}

fn differ(expected: &Value, found: &Value, path: &mut String) -> Option<String> {
    match (expected, found) {
        (Value::Object(left), Value::Object(right)) => {
            for (name, value) in left {
                let Some(other) = right.get(name) else {
                    return Some(format!("field {} is missing", join(path, name)));
                };
                if let Some(difference) = within(path, name, |path| differ(value, other, path)) {
                    return Some(difference);
                }
            }
            let extra = right.keys().find(|name| !left.contains_key(*name))?;
            Some(format!("field {} is not in the entry", join(path, &clip(extra))))
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(at, (left, right))| {
                within(path, &at.to_string(), |path| differ(left, right, path))
            })
        }
        _ if expected == found => None,
        _ => {
            let (expected, found) = (clip(&expected.to_string()), clip(&found.to_string()));
            Some(format!("field {path}: the entry says {expected}, the view {found}"))
        }
    }
}

fn within<T>(path: &mut String, name: &str, inside: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    *path = join(path, name);
    let result = inside(path);
    path.truncate(length);
    result
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Enough of a value to recognise it.
fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(expected: &str, found: &str) -> Option<String> {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        first_difference(&parse(expected), &parse(found))
    }

    #[test]
    fn names_the_first_field_that_differs() {
        let entry = r#"{"a":1,"b":{"c":[1,{"d":"x"}]}}"#;
        assert_eq!(difference(entry, r#"{"b":{"c":[1,{"d":"x"}]}, "a":1}"#), None);
        let cases = [
            (r#"{"a":2,"b":{"c":[1,{"d":"x"}]}}"#, "field a: the entry says 1, the view 2"),
            (r#"{"a":1,"b":{"c":[1,{"d":"y"}]}}"#, "field b.c.1.d: the entry says \"x\", the view \"y\""),
            (r#"{"a":1,"b":{}}"#, "field b.c is missing"),
            (r#"{"a":1,"b":{"c":[1,{"d":"x","e":0}]}}"#, "field b.c.1.e is not in the entry"),
        ];
        for (found, expected) in cases {
            assert_eq!(difference(entry, found).as_deref(), Some(expected), "{found}");
        }
        assert!(difference(entry, r#"{"a":1,"b":{"c":[1]}}"#).unwrap().starts_with("field b.c: "));
    }
}

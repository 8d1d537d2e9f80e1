//! JSON merge patches (RFC 7396).
//!
//! Pure.

use serde_json::{Map, Value};

pub(crate) fn patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut changes = Map::new();
    for (key, value) in to {
        let before = from.get(key).unwrap_or(&Value::Null);
        if before != value {
            changes.insert(key.clone(), patch(before, value));
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    Value::Object(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patch_holds_differences_and_null_for_removed_keys() {
        let from =
            json!({ "same": 1, "gone": { "a": 1 }, "inside": { "same": 1, "gone": 2 }, "list": [1, 2] });
        let to = json!({ "same": 1, "inside": { "same": 1, "new": 3 }, "list": [1], "added": { "b": 2 } });
        let want =
            json!({ "gone": null, "inside": { "gone": null, "new": 3 }, "list": [1], "added": { "b": 2 } });
        assert_eq!(patch(&from, &to), want);
        assert_eq!(patch(&to, &to), json!({}));
        assert_eq!(patch(&Value::Null, &to), to);
    }
}

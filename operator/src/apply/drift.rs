//! Whether a live object still holds what was applied.
//!
//! Pure. The API server adds defaults: those are no drift. What others add is found by who wrote it (`foreign`). Lists are compared
//! whole, because in a list an addition can change the meaning of what is there.

use serde_json::Value;

/// Whether `live` has every value of `desired`.
pub(super) fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired
            .iter()
            .all(|(key, value)| live.get(key).is_some_and(|live| covers(live, value))),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(live, value)| covers(live, value))
        }
        _ => live == desired,
    }
}

/// What the API server made of `requested`: its values at every place that was requested for, without what it and others added.
///
/// A list of another length is taken whole: somebody adds to it each time, and asking again would not help.
pub(super) fn persisted(requested: &Value, returned: &Value) -> Value {
    match (requested, returned) {
        (Value::Object(requested), Value::Object(returned)) => requested
            .iter()
            .filter_map(|(key, requested)| Some((key.clone(), persisted(requested, returned.get(key)?))))
            .collect(),
        (Value::Array(requested), Value::Array(returned)) if requested.len() == returned.len() => requested
            .iter()
            .zip(returned)
            .map(|(requested, returned)| persisted(requested, returned))
            .collect(),
        _ => returned.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::equal(json!({"a": 1}), true)]
    #[case::a_default_was_added(json!({"a": 1, "b": 2}), true)]
    #[case::a_value_was_changed(json!({"a": 2}), false)]
    #[case::a_value_was_removed(json!({"b": 2}), false)]
    fn of_one_value(#[case] live: Value, #[case] want: bool) {
        assert_eq!(covers(&live, &json!({"a": 1})), want);
    }

    #[test]
    fn an_answer_is_what_was_asked_for_in_the_words_of_the_api_server() {
        let requested = json!({ "cpu": "1000m", "args": [], "ports": [{ "port": 80 }] });
        let returned = json!({ "cpu": "1", "ports": [{ "port": 80, "protocol": "TCP" }], "added": true });
        assert_eq!(
            persisted(&requested, &returned),
            json!({ "cpu": "1", "ports": [{ "port": 80 }] })
        );
        assert_eq!(persisted(&json!([1]), &json!([1, 2])), json!([1, 2]));
    }

    #[rstest]
    #[case::defaults_inside_an_element(json!([{"name": "x", "protocol": "TCP"}]), true)]
    #[case::an_element_was_added(json!([{"name": "x"}, {"name": "y"}]), false)]
    #[case::an_element_was_removed(json!([]), false)]
    #[case::an_element_was_changed(json!([{"name": "y"}]), false)]
    fn of_a_list(#[case] live: Value, #[case] want: bool) {
        assert_eq!(covers(&live, &json!([{"name": "x"}])), want);
    }
}

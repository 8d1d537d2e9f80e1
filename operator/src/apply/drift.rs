//! Whether a live object still holds what was applied.
//!
//! Pure. The API server adds defaults and others add fields of their own: those are no drift. Lists are compared whole, because in
//! a list an addition can change the meaning of what is there.

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

    #[rstest]
    #[case::defaults_inside_an_element(json!([{"name": "x", "protocol": "TCP"}]), true)]
    #[case::an_element_was_added(json!([{"name": "x"}, {"name": "y"}]), false)]
    #[case::an_element_was_removed(json!([]), false)]
    #[case::an_element_was_changed(json!([{"name": "y"}]), false)]
    fn of_a_list(#[case] live: Value, #[case] want: bool) {
        assert_eq!(covers(&live, &json!([{"name": "x"}])), want);
    }
}

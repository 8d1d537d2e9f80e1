//! Drift between a live object and the applied one.
//!
//! Pure. Defaults of the API server are not drift. Fields set by other managers are found in `other_managers`. Lists are compared
//! as a whole, because an additional element can change the meaning of the others.

use serde_json::Value;

/// True when `live` has every value of `desired`.
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

/// The values that the API server persisted for the fields of `requested`, without defaults and additions.
///
/// A list of another length is taken as a whole: an admission webhook adds to it each time, and another apply would not help.
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
    fn drift_of_a_value(#[case] live: Value, #[case] want: bool) {
        assert_eq!(covers(&live, &json!({"a": 1})), want);
    }

    #[test]
    fn persisted_state_has_the_requested_fields_as_normalized_by_the_api_server() {
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
    fn drift_of_a_list(#[case] live: Value, #[case] want: bool) {
        assert_eq!(covers(&live, &json!([{"name": "x"}])), want);
    }
}

//! Templates with named values: `pod {pod} does not exist`.
//!
//! Pure.

use std::collections::BTreeMap;

/// Values of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Returns the values with one more.
    #[must_use]
    pub fn and(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }
}

/// Fills a template. A name without a value stays unchanged.
pub fn fill(template: &str, values: &Values) -> String {
    let mut text = template.to_owned();
    for (name, value) in &values.0 {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}

/// Whether a text contains the template with any values.
pub fn matches(template: &str, text: &str) -> bool {
    let mut rest = text;
    for part in fixed(template) {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    true
}

/// Returns the text between the values.
fn fixed(template: &str) -> impl Iterator<Item = &str> {
    let parts = template.split('{').enumerate();
    parts.filter_map(|(at, part)| match part.split_once('}') {
        Some((_, after)) if at > 0 => Some(after).filter(|after| !after.is_empty()),
        _ => Some(part).filter(|part| !part.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn values_are_filled_by_name() {
        let values = Values::default().and("pod", "a/b").and("n", "7");
        assert_eq!(fill("pod {pod} has {n} of {m}", &values), "pod a/b has 7 of {m}");
    }

    #[rstest]
    #[case("pod {pod} is gone", "the pod a/b is gone now", true)]
    #[case("{pod} is gone", "a is gone", true)]
    #[case("pod {pod} is gone", "the node a/b is gone", false)]
    #[case("pod {pod} is gone", "pod a/b is there", false)]
    #[case("{a} and {b}", "x or y", false)]
    fn a_filled_template_is_recognized(#[case] template: &str, #[case] text: &str, #[case] want: bool) {
        assert_eq!(matches(template, text), want);
    }
}

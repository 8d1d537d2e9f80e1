//! Splits the JSON text of a list into items as it arrives.
//!
//! Pure. A list of ten thousand pods is 24 MB of text; no more than one item of it is in memory, and only the text of items that arrive
//! in pieces is copied. Only strings and brackets are parsed; the parser of an item reports malformed JSON.

/// State of the splitter between pieces of text.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    is_in_items: bool,
    /// The beginning of an incomplete item.
    item: Vec<u8>,
    /// The text around the items.
    envelope: Vec<u8>,
}

impl Splitter {
    /// Parses the next piece; calls `each` with every item that ends in it.
    pub(super) fn feed<E>(
        &mut self,
        text: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = 0;
        for (at, byte) in text.iter().enumerate() {
            if self.is_in_string {
                self.in_string(*byte);
                continue;
            }
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => {
                    if self.is_between_items() {
                        from = at;
                    } else if self.depth == 1 && *byte == b'[' {
                        self.envelope.extend_from_slice(&text[from..=at]);
                        from = at + 1;
                        self.is_in_items = self.names_items();
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    if self.is_between_items() {
                        self.is_in_items = false;
                        from = at;
                    }
                    self.depth = self.depth.saturating_sub(1);
                    if self.is_between_items() {
                        self.item_ends(&text[from..=at], &mut each)?;
                        from = at + 1;
                    }
                }
                _ => {}
            }
        }
        match (self.is_in_items, self.depth) {
            (true, 2) => {}
            (true, _) => self.item.extend_from_slice(&text[from..]),
            (false, _) => self.envelope.extend_from_slice(&text[from..]),
        }
        Ok(())
    }

    /// Returns the text of the list without its items, after the last piece.
    pub(super) fn into_envelope(self) -> Vec<u8> {
        self.envelope
    }

    fn in_string(&mut self, byte: u8) {
        if self.is_escaped {
            self.is_escaped = false;
        } else if byte == b'\\' {
            self.is_escaped = true;
        } else if byte == b'"' {
            self.is_in_string = false;
        }
    }

    fn is_between_items(&self) -> bool {
        self.is_in_items && self.depth == 2
    }

    /// Whether the array that has just begun is the field `items` of the list.
    fn names_items(&self) -> bool {
        let before = self.envelope.trim_ascii_end().strip_suffix(b"[");
        let key = before.and_then(|text| text.trim_ascii_end().strip_suffix(b":"));
        key.is_some_and(|text| text.trim_ascii_end().ends_with(b"\"items\""))
    }

    fn item_ends<E>(&mut self, end: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.item.is_empty() {
            return each(end);
        }
        self.item.extend_from_slice(end);
        each(&std::mem::take(&mut self.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::convert::Infallible;

    /// Splits a text that arrives in pieces of this size into items and envelope.
    fn split(text: &str, size: usize) -> (Vec<String>, String) {
        let (mut splitter, mut items) = (Splitter::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            let take = |item: &[u8]| {
                items.push(String::from_utf8(item.to_vec()).unwrap());
                Ok::<_, Infallible>(())
            };
            splitter.feed(piece, take).unwrap();
        }
        (items, String::from_utf8(splitter.into_envelope()).unwrap())
    }

    #[test]
    fn items_are_found_for_every_size_of_pieces() {
        let text = r#"{"kind":"PodList","metadata":{"resourceVersion":"7","items":["no"]}, "items" : [ {"a":"]}\"\\"} ,{"items":[{"b":[1]}]}, {} ],"more":[{"c":1}]}"#;
        for size in 1..=text.len() {
            let (items, envelope) = split(text, size);
            assert_eq!(
                items,
                [r#"{"a":"]}\"\\"}"#, r#"{"items":[{"b":[1]}]}"#, "{}"],
                "pieces of {size}"
            );
            let envelope: Value = serde_json::from_str(&envelope).unwrap();
            let rest = json!({"kind": "PodList", "metadata": {"resourceVersion": "7", "items": ["no"]}, "items": [], "more": [{"c": 1}]});
            assert_eq!(envelope, rest, "pieces of {size}");
        }
    }

    #[test]
    fn an_empty_list_has_an_envelope_alone() {
        for items in ["[]", "null"] {
            let text = format!(r#"{{"metadata":{{}},"items":{items}}}"#);
            assert_eq!(split(&text, 3), (Vec::new(), text));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            r#"["\\\[\]{},:a-c \n]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(r#"(items|["\\\[{:a]{0,3})"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_objects_are_returned_unchanged(
            items in proptest::collection::vec(any_json(), 0..8),
            metadata in any_json(),
            size in 1..40_usize,
        ) {
            let items: Vec<_> = items.into_iter().map(|spec| json!({"spec": spec})).collect();
            let text = json!({"apiVersion": "v1", "items": items, "metadata": metadata}).to_string();
            let (found, envelope) = split(&text, size);
            let found: Vec<Value> = found.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
            prop_assert_eq!(found, items);
            let envelope: Value = serde_json::from_str(&envelope).unwrap();
            prop_assert_eq!(&envelope["metadata"], &metadata);
        }

        /// No input panics.
        #[test]
        fn any_text_is_accepted_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200), size in 1..20_usize) {
            let mut splitter = Splitter::default();
            for piece in text.chunks(size) {
                splitter.feed(piece, |_| Ok::<_, Infallible>(())).unwrap();
            }
        }
    }
}

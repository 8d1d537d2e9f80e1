//! Elements of sets and maps, and their encoding in the list of a message.
//!
//! Pure. A fill writes tens of thousands of elements and a restart reads as many, so they are encoded and decoded without a value per
//! attribute: the crate's types allocate five times an element and compute each length once per level. Attribute numbers are those of
//! the kernel's `include/uapi/linux/netfilter/nf_tables.h`.

use super::layout::ElementData;
use netlink_packet_core::{DecodeError, DefaultNla, NlaBuffer, NlasIterator};

/// Element of a set; with a value, of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) key: ElementData,
    pub(super) value: Option<ElementData>,
}

const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;

/// Length of the netlink and nfnetlink headers before the attributes of a message.
const HEADERS: usize = 16 + 4;

/// Length of the header of an attribute.
const HEADER: usize = 4;

/// Length of an element with all headers, but without its key and value.
const OF_ELEMENT: usize = 5 * HEADER;

/// Encodes the attribute that lists the elements of a message: at most 64 KiB.
pub(super) fn encode(elements: &[Element]) -> DefaultNla {
    let length = |element: &Element| {
        let value = element.value.as_ref().map_or(0, ElementData::len);
        OF_ELEMENT + element.key.len() + value
    };
    let mut list = Vec::with_capacity(elements.iter().map(length).sum());
    for element in elements {
        nested(&mut list, NFTA_LIST_ELEM, |list| {
            data(list, NFTA_SET_ELEM_KEY, &element.key);
            if let Some(value) = &element.value {
                data(list, NFTA_SET_ELEM_DATA, value);
            }
        });
    }
    DefaultNla::new(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, list)
}

fn data(to: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    nested(to, kind, |to| {
        attribute(to, NFTA_DATA_VALUE, |to| to.extend(bytes));
    });
}

fn nested(to: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    attribute(to, kind, content).set_nested_flag();
}

/// Appends an attribute. All that we write are aligned to 4 bytes: no padding.
fn attribute(to: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) -> NlaBuffer<&mut [u8]> {
    let start = to.len();
    to.extend([0; HEADER]);
    content(to);
    let length = u16::try_from(to.len() - start).expect("a list has at most 64 KiB");
    let mut header = NlaBuffer::new(&mut to[start..]);
    header.set_length(length);
    header.set_kind(kind);
    header
}

/// Decodes the elements of one message.
pub(super) fn decode(message: &[u8]) -> Result<Vec<Element>, DecodeError> {
    let mut elements = Vec::new();
    for list in attributes(
        message.get(HEADERS..).unwrap_or_default(),
        NFTA_SET_ELEM_LIST_ELEMENTS,
    ) {
        for listed in attributes(list?, NFTA_LIST_ELEM) {
            let listed = listed?;
            let Some(key) = value_of(listed, NFTA_SET_ELEM_KEY)? else {
                continue;
            };
            let value = value_of(listed, NFTA_SET_ELEM_DATA)?;
            elements.push(Element { key, value });
        }
    }
    Ok(elements)
}

/// Returns the value in the attribute `kind` of an element; `None` for a verdict.
fn value_of(element: &[u8], kind: u16) -> Result<Option<ElementData>, DecodeError> {
    let mut value = None;
    for data in attributes(element, kind) {
        for bytes in attributes(data?, NFTA_DATA_VALUE) {
            value = Some(ElementData::from_slice(bytes?));
        }
    }
    Ok(value)
}

/// Returns the contents of all attributes of one kind.
fn attributes(of: &[u8], kind: u16) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    NlasIterator::new(of).filter_map(move |attribute| match attribute {
        Ok(attribute) if attribute.kind() == kind => {
            let length = usize::from(attribute.length());
            // The iterator has checked the length.
            Some(Ok(&attribute.into_inner()[HEADER..length]))
        }
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;
    use netlink_packet_netfilter::nftables::{
        DataAttribute, ListAttribute, SetElementAttribute, SetElementList,
    };
    use proptest::prelude::*;

    /// The same list in the types of the crate.
    fn by_the_crate(elements: &[Element]) -> SetElementList {
        let value = |data: &ElementData| DataAttribute::Value(data.to_vec());
        let listed = elements.iter().map(|element| {
            let key = SetElementAttribute::Key(value(&element.key));
            let data = element
                .value
                .as_ref()
                .map(|data| SetElementAttribute::Data(value(data)));
            ListAttribute::Element(std::iter::once(key).chain(data).collect())
        });
        SetElementList::Elements(listed.collect())
    }

    fn emitted(attribute: &impl Emitable) -> Vec<u8> {
        let mut bytes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        bytes
    }

    fn any_element() -> impl Strategy<Value = Element> {
        let bytes = |words| {
            prop::collection::vec(any::<u32>(), words)
                .prop_map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect())
        };
        (bytes(1..12), prop::option::of(bytes(1..6))).prop_map(|(key, value)| Element { key, value })
    }

    proptest! {
        #[test]
        fn a_list_is_encoded_as_the_crate_does_and_decoded_again(elements in prop::collection::vec(any_element(), 0..20)) {
            let encoded = emitted(&encode(&elements));
            prop_assert_eq!(&encoded, &emitted(&by_the_crate(&elements)));
            let message = [vec![0; HEADERS], encoded].concat();
            prop_assert_eq!(decode(&message).unwrap(), elements);
        }

        #[test]
        fn no_message_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&message);
        }
    }
}

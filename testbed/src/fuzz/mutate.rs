//! One small change to an input.

use super::random::Random;
use serde_json::{Number, Value};

/// Lengths and counts that decoders stumble over.
const LENGTHS: [u32; 12] = [0, 1, 3, 4, 5, 7, 8, 0x7f, 0xff, 0x7fff, 0xffff, u32::MAX];

const TEXTS: [&str; 22] = [
    "",
    " ",
    "0",
    "-1",
    "a/b/c",
    "/",
    "..",
    "1.2.3.4",
    "::",
    "::ffff:1.2.3.4",
    "0.0.0.0",
    "255.255.255.255",
    "fe80::1%eth0",
    "TCP",
    "UDP",
    "SCTP",
    "None",
    "IPv6",
    "é\u{202e}",
    "{\"a\":",
    "a,b",
    "!=in (),notin (a)",
];

pub(super) fn mutate_bytes(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len());
    match random.below(9) {
        0 => input.truncate(at),
        1 => insert(random, input, at),
        2 => _ = input.drain(at..at + random.below(input.len() - at + 1).min(16)),
        3 => repeat(random, input, at),
        4 => splice(random, input, at, random_tail(corpus, at)),
        // Attributes are aligned to four bytes and begin with their length.
        5 => overwrite(
            input,
            at & !3,
            &LENGTHS[random.below(LENGTHS.len())].to_ne_bytes()[..2],
        ),
        6 => overwrite(
            input,
            at & !3,
            &LENGTHS[random.below(LENGTHS.len())].to_ne_bytes(),
        ),
        7 => overwrite(input, at, &[random.byte()]),
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

fn random_tail(corpus: &[Vec<u8>], at: usize) -> impl Fn(&mut Random) -> Vec<u8> {
    move |random| {
        let other = random.pick(corpus);
        other[at.min(other.len())..].to_vec()
    }
}

fn splice(random: &mut Random, input: &mut Vec<u8>, at: usize, tail: impl Fn(&mut Random) -> Vec<u8>) {
    input.truncate(at);
    input.extend(tail(random));
}

fn insert(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let bytes: Vec<u8> = (0..=random.below(8)).map(|_| random.byte()).collect();
    input.splice(at..at, bytes);
}

fn repeat(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let length = random.below(input.len() - at + 1).min(64);
    let part = input[at..at + length].to_vec();
    let times = 1 + random.below(32);
    input.splice(at..at, part.repeat(times));
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in input.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

/// Walks to a random part of `value` and changes it.
pub(super) fn mutate_value(random: &mut Random, value: &mut Value) {
    let goes_deeper = random.below(8) != 0;
    match value {
        Value::Object(fields) if goes_deeper && !fields.is_empty() => {
            let key = fields
                .keys()
                .nth(random.below(fields.len()))
                .cloned()
                .unwrap_or_default();
            match random.below(16) {
                0 => _ = fields.remove(&key),
                1 => {
                    let renamed = fields.remove(&key).unwrap_or_default();
                    fields.insert((*random.pick(&TEXTS)).to_owned(), renamed);
                }
                _ => {
                    if let Some(field) = fields.get_mut(&key) {
                        mutate_value(random, field);
                    }
                }
            }
        }
        Value::Array(items) if goes_deeper && !items.is_empty() => {
            let index = random.below(items.len());
            match random.below(8) {
                0 => _ = items.remove(index),
                1 => {
                    let item = items[index].clone();
                    items.extend(std::iter::repeat_n(item, 1 + random.below(130)));
                }
                _ => mutate_value(random, &mut items[index]),
            }
        }
        Value::String(text) if goes_deeper => mutate_text(random, text),
        _ => *value = any_value(random),
    }
}

fn mutate_text(random: &mut Random, text: &mut String) {
    if random.below(3) == 0 {
        (*random.pick(&TEXTS)).clone_into(text);
        return;
    }
    let mut bytes = text.clone().into_bytes();
    let corpus = TEXTS.map(|text| text.as_bytes().to_vec());
    mutate_bytes(random, &mut bytes, &corpus);
    *text = String::from_utf8_lossy(&bytes).into_owned();
}

fn any_value(random: &mut Random) -> Value {
    match random.below(7) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2 => Value::Number(Number::from(LENGTHS[random.below(LENGTHS.len())])),
        3 => Value::Number(Number::from(-1)),
        4 => Value::Array(Vec::new()),
        5 => Value::String("x".repeat(random.below(70_000))),
        _ => Value::String((*random.pick(&TEXTS)).to_owned()),
    }
}

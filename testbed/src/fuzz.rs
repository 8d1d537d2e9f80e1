//! Fuzzing on stable Rust: mutated inputs from a corpus of real ones, for a bounded time.
//!
//! A target is a test that passes what it decodes to [`bytes`] or [`objects`]. It fails when a round panics or takes too long, and
//! prints the input. `FUZZ_SECONDS` is the time of each target, [`DEFAULT_SECONDS`] when it is not set.

mod mutate;
mod random;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use mutate::{mutate_bytes, mutate_value};
use random::Random;
use serde_json::Value;

const DEFAULT_SECONDS: u64 = 1;

/// Longest round. A decoder needs microseconds; a busy machine needs the rest.
const ROUND: Duration = Duration::from_secs(5);

/// Most memory that the process may ever have used, in MiB. Inputs are at most [`MAX_BYTES`] long.
const MEMORY_MIB: usize = 1024;

/// Longest mutated input.
const MAX_BYTES: usize = 64 * 1024;

/// Most mutations of one input.
const MUTATIONS: usize = 6;

/// Calls `decode` with mutations of `corpus`, and first with the corpus as it is.
pub fn bytes(corpus: &[Vec<u8>], decode: impl Fn(&[u8])) {
    assert!(!corpus.is_empty(), "there is no corpus");
    for input in corpus {
        round(|| decode(input), || hex(input));
    }
    until_time_is_up(|random| {
        let mut input = random.pick(corpus).clone();
        for _ in 0..=random.below(MUTATIONS) {
            mutate_bytes(random, &mut input, corpus);
        }
        input.truncate(MAX_BYTES);
        round(|| decode(&input), || hex(&input));
    });
}

/// Calls `read` with all objects of `corpus`, of which one or more are mutated, and first with the corpus as it is.
pub fn objects(corpus: &[Value], read: impl Fn(&[Value])) {
    assert!(!corpus.is_empty(), "there is no corpus");
    round(|| read(corpus), || format!("{corpus:?}"));
    until_time_is_up(|random| {
        let mut input = corpus.to_vec();
        for _ in 0..=random.below(MUTATIONS) {
            let index = random.below(input.len());
            mutate_value(random, &mut input[index]);
        }
        round(|| read(&input), || serde_json::json!(input).to_string());
    });
}

/// [`bytes`] for text: what is no UTF-8 is replaced.
pub fn text(corpus: &[&str], parse: impl Fn(&str)) {
    let corpus: Vec<_> = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
    bytes(&corpus, |input| parse(&String::from_utf8_lossy(input)));
}

/// The same rounds at each call, unless the time is chosen: then other ones each time.
fn until_time_is_up(mut round: impl FnMut(&mut Random)) {
    let chosen = std::env::var("FUZZ_SECONDS").ok();
    let seconds = chosen.as_ref().map_or(DEFAULT_SECONDS, |seconds| {
        seconds.parse().expect("FUZZ_SECONDS is a number of seconds")
    });
    let mut random = chosen.map_or_else(|| Random::new(1), |_| Random::from_clock());
    let (began, mut rounds) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        round(&mut random);
        rounds += 1;
    }
    let peak = peak_mib();
    eprintln!("{rounds} rounds in {seconds} s, {peak} MiB at most");
    assert!(peak < MEMORY_MIB, "the process used {peak} MiB");
}

thread_local! {
    /// Message of the last panic in a round. A decoder may catch panics, and thousands of them would be printed otherwise.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of threads in a round are kept, all others are shown as before.
fn keep_panics_of_rounds() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_kept = PANIC.with_borrow_mut(|kept| kept.as_mut().map(|kept| *kept = panic.to_string()));
            if is_kept.is_none() {
                show(panic);
            }
        }));
    });
}

fn round(work: impl FnOnce(), describe: impl FnOnce() -> String) {
    keep_panics_of_rounds();
    PANIC.set(Some(String::new()));
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let took = began.elapsed();
    let panic_text = PANIC.take().unwrap_or_default();
    if let Err(panic) = outcome {
        eprintln!("{panic_text}\ninput: {}", describe());
        resume_unwind(panic);
    }
    assert!(took < ROUND, "a round took {took:?}, input: {}", describe());
}

/// Reads what [`round`] prints, and fixtures: digits of bytes, one input a line.
pub fn from_hex(text: &str) -> Vec<Vec<u8>> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    lines
        .map(|line| {
            line.as_bytes()
                .chunks(2)
                .map(|pair| byte(pair).expect("hexadecimal digits"))
                .collect()
        })
        .collect()
}

/// Digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn peak_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<usize>().ok());
    peak.unwrap_or_default() >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the planted fault")]
    fn a_panic_in_a_decoder_is_found() {
        // Only a length of zero in a message that is otherwise as it was, or nearly so.
        bytes(&[b"\x08\x00ab\x04\x00".to_vec()], |input| {
            assert!(
                !(input.first() == Some(&0) && input.len() > 4),
                "the planted fault"
            );
        });
    }

    #[test]
    #[should_panic(expected = "the planted fault")]
    fn a_panic_in_a_parser_is_found() {
        let object = serde_json::json!({"spec": {"ports": [{"port": 80}]}});
        objects(&[object], |objects| {
            let port = objects[0].pointer("/spec/ports/0/port");
            assert!(
                port.is_none_or(|port| port.as_u64() != Some(0)),
                "the planted fault"
            );
        });
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let input = vec![0, 9, 0xff];
        assert_eq!(from_hex(&hex(&input)), [input]);
    }
}

//! Log files that another process still writes.
//!
//! Reads: the file, from an offset on.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Returns the complete lines from byte `from` on. A line without its end is still being written: it is left out, also when
/// it ends inside a character. Fails if the file is shorter than `from`: it was rotated.
pub fn complete_lines(path: &Path, from: usize) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() >= from,
        "{} was rotated meanwhile: what is missing is unknown",
        path.display()
    );
    let new = &bytes[from..];
    let end = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    String::from_utf8(new[..end].to_vec()).with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_still_written_is_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (written, from, complete) in [
            (&b""[..], 0, ""),
            (b"one", 0, ""),
            (b"one\ntw", 0, "one\n"),
            (b"one\ntwo\n", 0, "one\ntwo\n"),
            (b"one\ntwo\n", 4, "two\n"),
            ("one\n\u{e9}".as_bytes().split_last().unwrap().1, 0, "one\n"),
        ] {
            fs::write(file.path(), written).unwrap();
            assert_eq!(complete_lines(file.path(), from).unwrap(), complete);
        }
    }
}

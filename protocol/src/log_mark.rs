//! Stage 6 of 8: the mark by which a function process says which call printed a line (docs/operating/logs.md).
//!
//! In: the number of a call.  Out: bytes that stand before the line on stdout or stderr; and back.
//! Always: a line without a mark is a line all the same, of no call that is known.
//! Never: believed for more than it is. Any program can print one, and can mislead the log of its own function by it, no other.
//! Why in the stream: what a process says between two marks stays in its place, also when the process dies in the middle; a
//! descriptor of its own would lose the order, and the ring tells the shim nothing of what was printed when.
//!
//! ```text
//! | 0x1E | the call's number: up to 16 hexadecimal digits in lower case, none: of no call | 0x1F | the line | 0x0A |
//! ```

/// The first byte of a mark: record separator, which text has no use for.
pub const BEGIN: u8 = 0x1E;
/// The last byte of a mark: unit separator.
pub const END: u8 = 0x1F;
/// As many digits as a call's number can have.
const DIGITS_MAX: usize = 16;
/// The longest mark.
pub const SIZE_MAX: usize = DIGITS_MAX + 2;

/// Appends the mark of a call; of none, for a line that begins like a mark and is none.
pub fn encode(call: Option<u64>, out: &mut Vec<u8>) {
    out.push(BEGIN);
    if let Some(call) = call {
        out.extend_from_slice(format!("{call:x}").as_bytes());
    }
    out.push(END);
}

/// Appends what is printed, each line that begins in it with the mark of its call; also one that looks marked by somebody else.
/// `is_within_line`: the last byte before these was no line feed, and the same of the last of these afterwards.
pub fn mark_lines(bytes: &[u8], call: Option<u64>, is_within_line: &mut bool, out: &mut Vec<u8>) {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !*is_within_line && (call.is_some() || piece.first() == Some(&BEGIN)) {
            encode(call, out);
        }
        out.extend_from_slice(piece);
        *is_within_line = piece.last() != Some(&b'\n');
    }
}

/// What a line says of its call, and the line itself.
pub fn decode(line: &[u8]) -> (Option<u64>, &[u8]) {
    let of_no_call = (None, line);
    let Some(marked) = line.strip_prefix(&[BEGIN]) else { return of_no_call };
    let Some(size) = marked.iter().take(DIGITS_MAX + 1).position(|byte| *byte == END) else {
        return of_no_call;
    };
    let (digits, text) = (&marked[..size], &marked[size + 1..]);
    if !digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return of_no_call;
    }
    // Digits are ASCII, and sixteen of them always fit; none are no number.
    let call = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    (call, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_read_back() {
        for call in [None, Some(0), Some(0x1f), Some(u64::MAX)] {
            for text in [&b""[..], b"hello", b"\x1e1f\x1ftwice", &[0xFF, 0, 0x1F]] {
                let mut line = Vec::new();
                encode(call, &mut line);
                assert!(line.len() <= SIZE_MAX);
                line.extend_from_slice(text);
                assert_eq!(decode(&line), (call, text));
            }
        }
    }

    #[test]
    fn a_line_is_of_the_call_in_which_it_began_and_no_mark_of_others_is_believed() {
        let mut is_within_line = false;
        let mut check = |bytes: &[u8], call, expected: &[u8]| {
            let mut out = Vec::new();
            mark_lines(bytes, call, &mut is_within_line, &mut out);
            assert_eq!(out, expected);
        };
        check(b"none\nbegun", None, b"none\nbegun");
        check(b" ended\nnext\n\n", Some(0x1f), b" ended\n\x1e1f\x1fnext\n\x1e1f\x1f\n");
        check(b"\x1e2\x1fforged\n", Some(1), b"\x1e1\x1f\x1e2\x1fforged\n");
        check(b"\x1e2\x1fforged\n", None, b"\x1e\x1f\x1e2\x1fforged\n");
        check(b"", Some(1), b"");
    }

    #[test]
    fn what_is_no_mark_is_text() {
        for line in [
            &b""[..],
            b"plain",
            b"\x1e",
            b"\x1e1f",
            b"\x1e1F\x1fupper case",
            b"\x1e-1\x1fx",
            b"\x1e00000000000000000\x1fseventeen digits",
            b" \x1e1f\x1fnot at the beginning",
        ] {
            assert_eq!(decode(line), (None, line));
        }
    }
}

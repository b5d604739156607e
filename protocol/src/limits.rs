//! Every limit of the wire protocol, with the arithmetic behind its number.

use crate::header::{FRAME_ALIGN, HEADER_SIZE};

/// Room for header and extensions beside the largest payload: a page, of which v1 needs 32 + 112 bytes.
pub const FRAME_ROOM: u32 = 4096;

/// The largest payload unless configured otherwise.
pub const PAYLOAD_SIZE_MAX_DEFAULT: u32 = 1024 * 1024;

/// The largest frame unless configured otherwise: the largest payload and its room.
pub const FRAME_SIZE_MAX_DEFAULT: u32 = PAYLOAD_SIZE_MAX_DEFAULT + FRAME_ROOM;

/// The least `frame_size_max` that a side may ask for: every frame the protocol itself needs (HELLO, a RESOLVE of
/// the longest name, a GOAWAY with the longest reason, a REPLY with all extensions) fits (W-72).
pub const FRAME_SIZE_MAX_FLOOR: u32 = 4096;

/// Outstanding calls of one connection, if the client leaves it to the router: at 100 us a call this still carries
/// ten million calls a second.
pub const CREDITS_DEFAULT: u32 = 1024;

/// The most outstanding calls of one connection, unless the router is configured lower. Bounds the tables that
/// both sides claim per connection.
pub const CREDITS_MAX: u32 = 65_536;

/// Bytes of a function's name (UTF-8).
pub const NAME_SIZE_MAX: usize = 128;

/// Bytes of a GOAWAY's reason (UTF-8). Longer reasons are cut by the sender at a character's boundary.
pub const REASON_SIZE_MAX: usize = 512;

/// The payload that still fits a frame of `frame_size_max` with `extension_size` bytes of extensions.
#[inline]
pub const fn payload_size_max(frame_size_max: u32, extension_size: u16) -> u32 {
    // Rounded down first: a frame is a multiple of 16 even where its limit is not.
    (frame_size_max & !(FRAME_ALIGN as u32 - 1)).saturating_sub(HEADER_SIZE as u32 + extension_size as u32)
}

/// `reason` cut to [`REASON_SIZE_MAX`] bytes at a character's boundary.
pub fn cut_reason(reason: &str) -> &str {
    let mut size = reason.len().min(REASON_SIZE_MAX);
    while !reason.is_char_boundary(size) {
        size -= 1;
    }
    &reason[..size]
}

const _: () = assert!(FRAME_SIZE_MAX_DEFAULT.is_multiple_of(FRAME_ALIGN as u32));
const _: () = assert!(FRAME_SIZE_MAX_FLOOR.is_multiple_of(FRAME_ALIGN as u32));
const _: () = assert!(FRAME_SIZE_MAX_FLOOR <= FRAME_SIZE_MAX_DEFAULT);
const _: () = assert!(HEADER_SIZE + NAME_SIZE_MAX <= FRAME_SIZE_MAX_FLOOR as usize);
const _: () = assert!(HEADER_SIZE + REASON_SIZE_MAX <= FRAME_SIZE_MAX_FLOOR as usize);
const _: () = assert!(CREDITS_DEFAULT <= CREDITS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_room_is_what_header_and_extensions_leave() {
        assert_eq!(payload_size_max(4096, 0), 4064);
        assert_eq!(payload_size_max(4096, 112), 3952);
        assert_eq!(payload_size_max(4111, 0), 4064);
        assert_eq!(payload_size_max(16, 0), 0);
        assert!(payload_size_max(FRAME_SIZE_MAX_DEFAULT, 112) >= PAYLOAD_SIZE_MAX_DEFAULT);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(REASON_SIZE_MAX);
        assert_eq!(cut_reason(&reason).len(), REASON_SIZE_MAX);
        let shifted = format!("x{reason}");
        assert_eq!(cut_reason(&shifted).len(), REASON_SIZE_MAX - 1);
        assert_eq!(cut_reason("short"), "short");
    }
}

//! Random bytes as frames: decoding never panics, and the frames do not depend on how the bytes were cut.
//!
//! In: a stream of bytes, as a client might send them. The golden vectors in `protocol/vectors` are part of the corpus.
//! Checked: sizes add up; what is read back from a frame that we encode anew is the same; HELLO payloads, function
//! names and attach records, which lie in such bytes, are read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::limits::FRAME_SIZE_MAX_DEFAULT;
use protocol::{
    ClientMisbehaved, Frame, FrameParts, FunctionName, Hello, Offer, Status, attach, decode, encode,
};

fuzz_target!(|bytes: &[u8]| {
    for frame_size_max in [FRAME_SIZE_MAX_DEFAULT, 64] {
        let whole = Stream::read_whole(bytes, frame_size_max);
        for seed in 0..3 {
            let cut = Stream::read_in_pieces(bytes, frame_size_max, PieceSizes::of(bytes, seed));
            assert!(cut == whole, "cut otherwise, other frames");
        }
    }
    let _ = attach::decode(bytes);
});

/// What a reader made of a stream of bytes.
#[derive(PartialEq)]
struct Stream {
    /// Where each frame began.
    frame_starts: Vec<usize>,
    end: Result<(), ClientMisbehaved>,
}

impl Stream {
    fn read_whole(bytes: &[u8], frame_size_max: u32) -> Self {
        let mut stream = Self { frame_starts: Vec::new(), end: Ok(()) };
        let mut offset = 0;
        loop {
            match decode(&bytes[offset..], frame_size_max) {
                Ok(Some(frame)) => {
                    check_frame(&frame, &bytes[offset..], frame_size_max);
                    stream.frame_starts.push(offset);
                    offset += frame.size();
                }
                Ok(None) => return stream,
                Err(fault) => {
                    check_fault(fault);
                    stream.end = Err(fault);
                    return stream;
                }
            }
        }
    }

    /// As a connection does it: bytes arrive, frames at the front are consumed, the rest waits for more.
    fn read_in_pieces(bytes: &[u8], frame_size_max: u32, piece_sizes: PieceSizes) -> Self {
        let mut stream = Self { frame_starts: Vec::new(), end: Ok(()) };
        let (mut consumed, mut arrived) = (0, 0);
        for size in piece_sizes {
            arrived = bytes.len().min(arrived + size);
            loop {
                match decode(&bytes[consumed..arrived], frame_size_max) {
                    Ok(Some(frame)) => {
                        stream.frame_starts.push(consumed);
                        consumed += frame.size();
                    }
                    Ok(None) => break,
                    Err(fault) => {
                        stream.end = Err(fault);
                        return stream;
                    }
                }
            }
            if arrived == bytes.len() {
                break;
            }
        }
        stream
    }
}

fn check_frame(frame: &Frame<'_>, bytes: &[u8], frame_size_max: u32) {
    assert!(frame.size() <= bytes.len());
    assert!(frame.size() <= frame_size_max as usize);
    assert!(frame.size().is_multiple_of(protocol::FRAME_ALIGN));
    assert!(protocol::HEADER_SIZE + frame.extensions.len() + frame.payload.len() <= frame.size());
    assert_eq!(frame.payload.len(), frame.header.payload_size as usize);
    check_encoded_anew(frame);
    if let Ok(hello) = Hello::decode(frame.payload) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        let _ = hello.answer(&Offer::default());
    }
    if let Ok(name) = FunctionName::from_bytes(frame.payload) {
        assert_eq!(name.as_bytes(), frame.payload);
    }
}

/// All that this version understands of a frame survives being written by it.
fn check_encoded_anew(frame: &Frame<'_>) {
    let header = &frame.header;
    let Ok(status) = Status::try_from(header.status) else { return };
    let parts = FrameParts {
        kind: frame.kind,
        call_id: header.call_id,
        function_id: header.function_id,
        budget_us: header.budget_us,
        criticality: header.criticality,
        flags: header.flags,
        status,
    };
    let extensions = frame.known_extensions();
    let mut out = Vec::new();
    let size = encode(&mut out, &parts, &extensions, frame.payload);
    assert_eq!(size, out.len());
    let anew = decode(&out, u32::MAX).expect("we wrote it").expect("we wrote all of it");
    assert_eq!(anew.kind, frame.kind);
    assert_eq!(anew.payload, frame.payload);
    assert_eq!(anew.known_extensions(), extensions);
    assert_eq!(anew.header.call_id, header.call_id);
    assert_eq!(anew.header.flags, header.flags);
}

/// Every fault has a status to answer with and words for a log.
fn check_fault(fault: ClientMisbehaved) {
    assert_ne!(fault.status(), Status::Ok);
    assert!(!fault.to_string().is_empty());
}

/// An endless sequence of small sizes that follows from the bytes themselves, so that a corpus file is only bytes.
struct PieceSizes(u64);

impl PieceSizes {
    fn of(bytes: &[u8], seed: u64) -> Self {
        Self(bytes.iter().fold(seed, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)))
    }
}

impl Iterator for PieceSizes {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some(1 + (self.0 >> 58) as usize)
    }
}

use super::*;
use crate::encode::{FrameParts, encode};
use crate::header::encode_header;
use crate::ids::{CallId, FunctionId};
use crate::limits::FRAME_SIZE_MAX_DEFAULT;

/// The smallest good header, to be spoilt.
const GOOD: FrameHeader = FrameHeader {
    frame_size: 48,
    payload_size: 5,
    call_id: CallId::new(3, 1),
    function_id: FunctionId(2),
    budget_us: 50_000,
    kind: Kind::Invoke as u8,
    criticality: 2,
    flags: Flags::NONE,
    status: 0,
    extension_size: 0,
};

#[track_caller]
fn check_fault(header: FrameHeader, expected: ClientMisbehaved) {
    // Given only the header: the fault must not wait for the body.
    assert_eq!(decode(&encode_header(&header), 4096), Err(expected));
}

#[test]
fn a_header_that_is_good_waits_for_its_body() {
    assert_eq!(decode(&encode_header(&GOOD), 4096), Ok(None));
    assert_eq!(decode_header(&encode_header(&GOOD), 4096), Ok(GOOD));
}

#[test]
fn each_fault_is_known_from_the_header_alone() {
    check_fault(
        FrameHeader { frame_size: 4112, payload_size: 4080, ..GOOD },
        ClientMisbehaved::FrameTooLarge { size: 4112, size_max: 4096 },
    );
    check_fault(FrameHeader { frame_size: 31, ..GOOD }, ClientMisbehaved::FrameTooSmall { size: 31 });
    check_fault(FrameHeader { frame_size: 50, ..GOOD }, ClientMisbehaved::FrameSizeUnaligned { size: 50 });
    check_fault(
        FrameHeader { extension_size: 17, ..GOOD },
        ClientMisbehaved::ExtensionSizeUnaligned { size: 17 },
    );
    check_fault(
        FrameHeader { payload_size: u32::MAX, ..GOOD },
        ClientMisbehaved::SizesDisagree { frame_size: 48, extension_size: 0, payload_size: u32::MAX },
    );
    check_fault(
        FrameHeader { flags: Flags::TIMINGS, frame_size: 64, extension_size: 16, ..GOOD },
        ClientMisbehaved::ExtensionsMissing { size: 16, size_needed: 64 },
    );
    check_fault(FrameHeader { kind: 0, ..GOOD }, ClientMisbehaved::UnknownKind(0));
    check_fault(FrameHeader { flags: Flags(0x4000), ..GOOD }, ClientMisbehaved::UnknownCriticalFlag(0x4000));
}

#[test]
fn a_frame_of_exactly_the_limit_is_taken() {
    let header = FrameHeader { frame_size: 4096, payload_size: 4064, ..GOOD };
    assert_eq!(decode_header(&encode_header(&header), 4096), Ok(header));
}

#[test]
fn frames_that_follow_each_other_are_found_by_their_sizes() {
    let mut bytes = Vec::new();
    for payload in [&b"first"[..], b"", b"a third that needs three times sixteen bytes"] {
        encode(&mut bytes, &FrameParts::invoke(CallId::new(0, 0), FunctionId(1)), &Extensions::NONE, payload);
    }
    let mut rest = &bytes[..];
    let mut payloads = Vec::new();
    while let Some(frame) = decode(rest, FRAME_SIZE_MAX_DEFAULT).unwrap() {
        payloads.push(frame.payload);
        rest = &rest[frame.size()..];
    }
    assert_eq!(payloads, [&b"first"[..], b"", b"a third that needs three times sixteen bytes"]);
    assert!(rest.is_empty());
}

//! Recordings: what was written is read again, and whatever else is read is said to be at fault.

use proptest::prelude::*;
use protocol::recording::{
    CALL_SIZE, FILE_HEADER_SIZE, RecordedCall, Recording, RecordingDamaged, encode_end, encode_file_header,
    encode_function, encode_lost,
};

fn call(received_at_ns: u64) -> RecordedCall {
    RecordedCall {
        shard: 1,
        received_at_ns,
        budget_ns: 5_000_000,
        pushed_ns: 10,
        started_ns: 20,
        finished_ns: 90,
        answered_ns: 100,
        function: 1,
        payload_size: 3,
        result_size: 7,
        connection: 4,
        status: 1,
        flags: 2,
        criticality: 3,
    }
}

/// A file with two functions and these calls.
fn file(calls: &[(RecordedCall, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_file_header(true, 77, &mut bytes);
    encode_function("echo", &mut bytes);
    encode_function("thumbnail", &mut bytes);
    calls.iter().for_each(|(call, body)| call.encode(body, &mut bytes));
    encode_lost(0, 5, &mut bytes);
    encode_end(calls.len() as u64, &mut bytes);
    bytes
}

#[test]
fn what_was_written_is_read_in_the_order_of_receipt() {
    let bytes = file(&[(call(30), b"abc"), (call(10), b""), (call(20), b"xyz")]);
    let recording = Recording::read(&bytes).expect("a sound file");
    assert_eq!(recording.functions, ["echo", "thumbnail"]);
    assert_eq!(recording.calls, [call(10), call(20), call(30)]);
    let bodies: Vec<_> = (0..3).map(|index| recording.body(index)).collect();
    assert_eq!(bodies, [&b""[..], b"xyz", b"abc"]);
    assert!(recording.is_complete && recording.has_bodies);
    assert_eq!((recording.lost_count, recording.calls[0].run_ns()), (5, Some(70)));
}

#[test]
fn the_sizes_are_those_of_the_document() {
    let mut bytes = Vec::new();
    encode_file_header(false, 0, &mut bytes);
    assert_eq!(bytes.len(), FILE_HEADER_SIZE);
    call(1).encode(b"", &mut bytes);
    assert_eq!(bytes.len(), FILE_HEADER_SIZE + CALL_SIZE);
    call(1).encode(b"123456789", &mut bytes);
    assert_eq!(bytes.len(), FILE_HEADER_SIZE + 2 * CALL_SIZE + 16);
}

#[test]
fn a_recorder_that_died_leaves_what_it_had_written() {
    let bytes = file(&[(call(10), b"abc"), (call(20), b"xyz")]);
    for size in FILE_HEADER_SIZE + 2 * 24..bytes.len() {
        let recording = Recording::read(&bytes[..size]).expect("a file that was cut off");
        assert!(!recording.is_complete, "{size} of {} bytes", bytes.len());
        assert!(recording.calls.len() <= 2);
    }
}

#[test]
fn every_damage_says_what_it_is() {
    let sound = file(&[(call(10), b"abc")]);
    let call_at = FILE_HEADER_SIZE + 16 + 24;
    let check = |at: usize, value: u8, expected: RecordingDamaged| {
        let mut bytes = sound.clone();
        bytes[at] = value;
        assert_eq!(Recording::read(&bytes), Err(expected));
    };
    check(0, b'X', RecordingDamaged::NotARecording);
    check(8, 9, RecordingDamaged::UnknownVersion { version: 9 });
    check(12, 8, RecordingDamaged::NotARecording);
    check(call_at, 4, RecordingDamaged::BadSize { at: call_at, size: 4 });
    check(call_at + 56, 2, RecordingDamaged::UnknownFunction { function: 2 });
    check(call_at + 76, 4, RecordingDamaged::BadRecord { at: call_at });
    check(call_at + 80, 2, RecordingDamaged::BadRecord { at: call_at });
    assert_eq!(Recording::read(b""), Err(RecordingDamaged::NotARecording));
}

#[test]
fn kinds_of_a_newer_recorder_are_passed_over() {
    let mut bytes = file(&[(call(10), b"abc")]);
    bytes.extend_from_slice(&[16, 0, 0, 0, 99, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    call(20).encode(b"", &mut bytes);
    assert_eq!(Recording::read(&bytes).expect("a file with more in it").calls.len(), 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Recording::read(&bytes);
    }

    #[test]
    fn a_sound_file_with_any_bytes_changed_never_panics(
        changes in proptest::collection::vec((0usize..1000, any::<u8>()), 1..8),
    ) {
        let mut bytes = file(&[(call(10), b"abc"), (call(20), b"")]);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = Recording::read(&bytes);
    }
}

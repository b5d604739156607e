use super::*;
use crate::limits::NAME_SIZE_MAX;
use crate::name::NameInvalid;

fn every_message() -> Vec<Message> {
    let name = FunctionName::new("thumbnail").unwrap();
    let mut messages = vec![
        Message::AttachWorker { name, token: 0x1122_3344_5566_7788, process_id: 4711, lanes_max: 4 },
        Message::AttachShim { config_digest: u64::MAX, process_id: 1 },
        Message::Attached(Attached {
            worker_index: 1,
            generation: 2,
            shard: 3,
            function_id: FunctionId(4),
            slot_count: 64,
            region_size: 1 << 20,
        }),
        Message::ShimAccepted { shard: 9 },
        Message::Stop,
        Message::ShimStop,
        Message::ShimReload,
        Message::EditionServes { name, edition: u64::MAX - 2 },
        Message::PlacesWanted { name, edition: u64::MAX - 3, count: 12, leaving: 4713 },
        Message::FunctionFailing { name, exit_code: 139 },
        Message::AttachClient { process_id: 4712, slot_count: 1024, payload_size_max: 1 << 14 },
        Message::ClientAttached(ClientAttached {
            client_index: 1,
            generation: 2,
            shard: 3,
            slot_count: 64,
            region_size: 1 << 20,
        }),
        Message::Resolve { name },
        Message::Resolved { function_id: FunctionId(7), status: 16 },
        Message::CancelCall { slot: 5, call_id: u64::MAX - 1 },
        Message::Goaway { status: 80 },
        Message::LaneWanted { function_id: FunctionId(7), slot_count: 64, payload_size_max: 1 << 14 },
        Message::LaneOpened(LaneOpened {
            lane_id: 5,
            generation: 6,
            function_id: FunctionId(7),
            slot_count: 64,
            region_size: 1 << 14,
            payload_size_max: 10_000,
            timeout_ns: 30_000_000_000,
        }),
        Message::LaneRevoke { lane_id: 5 },
    ];
    messages.extend(AttachRefused::ALL.map(|reason| Message::Refused { reason }));
    messages.extend(LaneRefused::ALL.map(|reason| Message::LaneRefused { reason }));
    messages.extend(LaneEnd::ALL.map(|reason| Message::LaneClosed { lane_id: 5, reason }));
    messages
}

fn encoded(message: Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert_eq!(message.encode(&mut bytes), bytes.len());
    bytes
}

fn patched(message: Message, offset: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(message);
    bytes[offset..offset + field.len()].copy_from_slice(field);
    bytes
}

#[test]
fn every_message_survives_the_way_and_each_truncation_waits() {
    for message in every_message() {
        let bytes = encoded(message);
        assert_eq!(decode(&bytes), Ok(Some((message, bytes.len()))));
        for size in 0..bytes.len() {
            assert_eq!(decode(&bytes[..size]), Ok(None), "{message:?} cut to {size}");
        }
    }
}

#[test]
fn messages_that_follow_each_other_are_found_by_their_sizes() {
    let mut bytes = Vec::new();
    for message in every_message() {
        message.encode(&mut bytes);
    }
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while let Some((message, size)) = decode(rest).unwrap() {
        found.push(message);
        rest = &rest[size..];
    }
    assert_eq!(found, every_message());
}

#[test]
fn the_hand_written_record_is_that_of_rkyv() {
    use rkyv::ser::{allocator::SubAllocator, writer::Buffer};
    for message in every_message() {
        let record = message.to_record().0;
        let mut space = Align([0; RECORD_SIZE]);
        let written = low::to_bytes_in_with_alloc::<_, _, Failure>(
            &record,
            Buffer::from(&mut *space),
            SubAllocator::empty(),
        );
        assert_eq!(written.unwrap()[..], encode_record(&record)[..], "{message:?}");
    }
}

#[test]
fn what_is_wrong_with_a_record_is_named_before_its_name_arrives() {
    let worker = every_message()[0];
    let cut = |bytes: Vec<u8>| decode(&bytes[..RECORD_SIZE]);
    assert_eq!(
        cut(patched(worker, 0, b"QKFR")),
        Err(AttachPeerMisbehaved::MagicWrong { magic: 0x5246_4B51 })
    );
    assert_eq!(
        cut(patched(worker, 4, &[2, 0])),
        Err(AttachPeerMisbehaved::VersionUnsupported { version: 2 })
    );
    assert_eq!(cut(patched(worker, 6, &[0, 0])), Err(AttachPeerMisbehaved::UnknownKind(0)));
    assert_eq!(cut(patched(worker, 6, &[23, 0])), Err(AttachPeerMisbehaved::UnknownKind(23)));
    assert_eq!(
        cut(patched(worker, 8, &[129, 0])),
        Err(AttachPeerMisbehaved::NameUnexpected { kind: 1, name_size: 129 })
    );
    assert_eq!(
        cut(patched(Message::Stop, 8, &[1, 0])),
        Err(AttachPeerMisbehaved::NameUnexpected { kind: 6, name_size: 1 })
    );
    assert_eq!(
        cut(patched(Message::Refused { reason: AttachRefused::Draining }, 10, &[13, 0])),
        Err(AttachPeerMisbehaved::UnknownReason(13))
    );
}

#[test]
fn a_worker_without_a_name_or_with_a_binary_one_is_refused() {
    let worker = every_message()[0];
    assert_eq!(
        decode(&patched(worker, 8, &[0, 0])),
        Err(AttachPeerMisbehaved::NameInvalid(NameInvalid::Empty))
    );
    assert_eq!(
        decode(&patched(worker, RECORD_SIZE, &[0xff])),
        Err(AttachPeerMisbehaved::NameInvalid(NameInvalid::NotUtf8))
    );
}

#[test]
fn the_longest_name_fits_the_largest_message() {
    let name = FunctionName::new(&"n".repeat(NAME_SIZE_MAX)).unwrap();
    assert_eq!(encoded(Message::FunctionFailing { name, exit_code: 1 }).len(), MESSAGE_SIZE_MAX);
}

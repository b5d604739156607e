use super::*;

fn kept_call(number: u64, function: &str) -> KeptCall {
    KeptCall {
        number,
        function: function.into(),
        status: 67,
        attempts: 2,
        criticality: 3,
        ended_at_ns: 10,
        payload_size: 11,
    }
}

fn every_message() -> Vec<Message> {
    let report = CallReport {
        invocation_id: 1,
        looked_at_ns: 2,
        received_at_ns: 3,
        deadline_at_ns: 4,
        pushed_at_ns: 5,
        blocked_since_ns: 6,
        waits_for: 13,
        ahead: 7,
        process_id: 8,
        stage: 9,
        criticality: 10,
        attempts: 11,
        blocked_on: 12,
    };
    vec![
        Message::Apply { origin: "/q.toml".into(), text: "[router]\n".into(), is_dry_run: true },
        Message::Apply { origin: String::new(), text: "é".into(), is_dry_run: false },
        Message::Applied { taken: "a".into(), needs_restart: "b\nc".into() },
        Message::Refused { reasons: "no".into() },
        Message::Why { invocation_id: u64::MAX },
        Message::Call { report, function: "echo".into() },
        Message::NoSuchCall,
        Message::Stopping,
        Message::List { shelf: Shelf::DeadLetters, after: 3 },
        Message::Listed {
            looked_at_ns: 4,
            calls: vec![kept_call(1, "b"), kept_call(2, "a"), kept_call(3, "b")],
            has_more: true,
        },
        Message::Listed { looked_at_ns: 4, calls: Vec::new(), has_more: false },
        Message::Show { shelf: Shelf::Quarantine, number: 5, offset: 6 },
        Message::Shown { looked_at_ns: 4, call: kept_call(7, "echo"), piece: vec![0xFF, 0] },
        Message::Replay { shelf: Shelf::DeadLetters, number: 8 },
        Message::Replayed {
            status: 1,
            took_ns: 2,
            result_size: 3,
            function: "echo".into(),
            result: vec![0xFF, 0, 1],
        },
        Message::Drop { shelf: Shelf::Quarantine, number: 9 },
        Message::Dropped { looked_at_ns: 4, call: kept_call(9, "echo") },
        Message::Rollback { is_dry_run: true },
        Message::Rollback { is_dry_run: false },
    ]
}

#[test]
fn every_message_reads_back_as_written_and_not_before_it_is_whole() {
    for message in every_message() {
        let bytes = message.encode();
        for size in 0..bytes.len() {
            assert_eq!(decode(&bytes[..size]), Ok(None), "{message:?}, {size} bytes");
        }
        assert_eq!(decode(&bytes), Ok(Some(message)));
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let Message::Call { report, .. } = &every_message()[5] else { panic!("the order changed") };
    let bytes = Message::Call { report: *report, function: "f".into() }.encode();
    assert_eq!(bytes[..8], [b'Q', b'K', b'F', b'C', 1, 0, 5, 0]);
    assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
    let places = [(24, 1), (32, 2), (40, 3), (48, 4), (56, 5), (64, 6), (72, 7), (76, 8)];
    for (place, value) in places.into_iter().chain([(80, 9), (81, 10), (82, 11), (83, 12), (128, b'f')]) {
        assert_eq!(bytes[place], value, "byte {place}");
    }
}

#[test]
fn what_no_honest_peer_sends_is_named() {
    let good = Message::NoSuchCall.encode();
    let check = |place: usize, value: u8, expected| {
        let mut bytes = good.clone();
        bytes[place] = value;
        assert_eq!(decode(&bytes), Err(expected));
    };
    check(0, b'X', AdminPeerMisbehaved::MagicWrong { magic: u32::from_le_bytes(*b"XKFC") });
    check(4, 2, AdminPeerMisbehaved::VersionUnsupported { version: 2 });
    check(6, 0, AdminPeerMisbehaved::UnknownKind(0));
    check(6, 17, AdminPeerMisbehaved::UnknownKind(17));
    check(11, 0xFF, AdminPeerMisbehaved::PartsTooLarge { size: 0xFF00_0000 });
    let mut bytes = Message::Refused { reasons: "x".into() }.encode();
    bytes[RECORD_SIZE] = 0xFF;
    assert_eq!(decode(&bytes), Err(AdminPeerMisbehaved::TextInvalid));
}

#[test]
fn the_bytes_of_kept_calls_are_those_of_the_specification() {
    let shown = Message::Shown { looked_at_ns: 2, call: kept_call(7, "f"), piece: vec![0xAB] }.encode();
    let places =
        [(6, 11), (8, 1), (12, 1), (32, 2), (81, 3), (82, 2), (84, 67), (88, 7), (96, 10), (112, 11)];
    for (place, value) in places.into_iter().chain([(128, b'f'), (129, 0xAB)]) {
        assert_eq!(shown[place], value, "byte {place}");
    }
    let replayed = Message::Replayed {
        status: 1,
        took_ns: 5,
        result_size: 6,
        function: String::new(),
        result: Vec::new(),
    };
    let show = Message::Show { shelf: Shelf::DeadLetters, number: 8, offset: 9 }.encode();
    assert_eq!((show[6], show[16], show[88], show[120]), (10, 2, 8, 9));
    let replayed = replayed.encode();
    assert_eq!((replayed[6], replayed[84], replayed[104], replayed[112]), (13, 1, 5, 6));

    let listed = Message::Listed { looked_at_ns: 0, calls: vec![kept_call(1, "f")], has_more: true }.encode();
    assert_eq!((listed[6], listed[8], listed[12], listed[16]), (9, 2, 32, 4));
    assert_eq!(listed[128..130], *b"f\n");
    let row = &listed[130..];
    let places = [(0, 1), (8, 10), (16, 11), (24, 67), (26, 2), (27, 3), (28, 0)];
    places.into_iter().for_each(|(place, value)| assert_eq!(row[place], value, "byte {place} of a row"));
}

#[test]
fn a_list_that_is_none_is_named() {
    let good = Message::Listed { looked_at_ns: 0, calls: vec![kept_call(1, "f")], has_more: false }.encode();
    let mut names_nothing = good.clone();
    names_nothing[130 + 28] = 1;
    assert_eq!(decode(&names_nothing), Err(AdminPeerMisbehaved::ListInvalid));
    let mut is_cut = good;
    is_cut[12] = 31;
    assert_eq!(decode(&is_cut), Err(AdminPeerMisbehaved::ListInvalid));
    let too_many = vec![kept_call(1, "f"); CALLS_PER_LIST_MAX + 1];
    let bytes = Message::Listed { looked_at_ns: 0, calls: too_many, has_more: false }.encode();
    assert_eq!(decode(&bytes), Err(AdminPeerMisbehaved::ListInvalid));
}

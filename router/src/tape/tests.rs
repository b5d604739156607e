use engine::{Origin, Refused, Request};
use protocol::recording::{Recording, encode_file_header, encode_function};
use protocol::{CallId, Flags, FunctionId, Status};
use shm_ring::HeapMemory;

use super::*;

/// Room for 11 calls.
const RING_SIZE_SMALL: usize = 11 * CELL_SIZE;

fn pair() -> (Tape<HeapMemory>, TapeReader<HeapMemory>, HeapMemory) {
    let memory = HeapMemory::new(place::RING + RING_SIZE_SMALL + SPARE_SIZE);
    let tape = Tape::over(memory.clone(), RING_SIZE_SMALL, 3);
    let reader = TapeReader::over(memory.clone()).expect("a tape that was just made");
    (tape, reader, memory)
}

fn refuse(tape: &mut Tape<HeapMemory>, received_at_ns: u64) {
    let request = Request {
        origin: Origin { connection: 5, connection_generation: 0, call_id: CallId(1) },
        received_at: Nanos(received_at_ns),
        function: FunctionId(0),
        criticality: 2,
        budget_us: 7,
        payload_size: 0,
        flags: Flags::NONE,
    };
    tape.refused(&request, &Refused { status: Status::QueueFull, retry_after_us: 0 });
}

fn recording(records: &[u8]) -> Recording {
    let mut bytes = Vec::new();
    encode_file_header(false, 0, &mut bytes);
    encode_function("echo", &mut bytes);
    bytes.extend_from_slice(records);
    Recording::read(&bytes).expect("records of our own")
}

#[test]
fn nothing_is_recorded_before_a_reader_asks_and_after_it_stopped_asking() {
    let (mut tape, mut reader, _) = pair();
    assert!(!tape.begin_turn(Nanos(10)));
    refuse(&mut tape, 10);

    reader.renew(100, false);
    assert!(tape.begin_turn(Nanos(99)));
    refuse(&mut tape, 99);
    // Expect that a reader that died is forgotten when its time is over.
    assert!(!tape.begin_turn(Nanos(100)));
    refuse(&mut tape, 100);
    tape.end_turn();

    let mut records = Vec::new();
    assert_eq!(reader.drain(&mut records).unwrap(), 1);
    let call = recording(&records).calls[0];
    assert_eq!((call.received_at_ns, call.budget_ns, call.shard, call.connection), (99, 7_000, 3, 5));
    assert_eq!((call.status, call.criticality), (Status::QueueFull as u16, 2));
}

#[test]
fn a_full_ring_loses_calls_counts_them_and_goes_on() {
    let (mut tape, mut reader, _) = pair();
    reader.renew(u64::MAX, false);
    assert!(tape.begin_turn(Nanos(1)));
    (0..15).for_each(|at| refuse(&mut tape, at));
    tape.end_turn();
    let mut records = Vec::new();
    assert_eq!(reader.drain(&mut records).unwrap(), 11);
    assert_eq!(reader.lost_count(), 4);

    (20..25).for_each(|at| refuse(&mut tape, at));
    assert_eq!(reader.drain(&mut records).unwrap(), 0, "the turn has not ended");
    tape.end_turn();
    assert_eq!(reader.drain(&mut records).unwrap(), 5);
    let times: Vec<_> = recording(&records).calls.iter().map(|call| call.received_at_ns).collect();
    assert_eq!(times, (0..11).chain(20..25).collect::<Vec<_>>());
}

#[test]
fn whatever_the_reader_writes_the_shard_only_loses_calls() {
    let (mut tape, mut reader, memory) = pair();
    reader.renew(u64::MAX, false);
    assert!(tape.begin_turn(Nanos(1)));
    (0..11).for_each(|at| refuse(&mut tape, at));
    tape.end_turn();
    assert_eq!(reader.drain(&mut Vec::new()).unwrap(), 11);
    for head in [2_000, 1 << 63, u64::MAX - 5_000] {
        memory.store_u64(place::HEAD, head, Ordering::Relaxed);
        refuse(&mut tape, 2);
    }
    assert_eq!(reader.lost_count(), 3);
    memory.store_u64(place::RING_SIZE, u64::MAX, Ordering::Relaxed);
    memory.store_u64(place::HEAD, 11 * CELL_SIZE as u64, Ordering::Relaxed);
    refuse(&mut tape, 3);
    tape.end_turn();
    assert_eq!(reader.drain(&mut Vec::new()).unwrap(), 1);
}

#[test]
fn bodies_go_around_the_end_of_the_ring_and_a_body_that_is_not_whole_is_left_out() {
    let (mut tape, mut reader, _) = pair();
    reader.renew(u64::MAX, true);
    assert!(tape.begin_turn(Nanos(1)));
    // Given: bodies of one cell and of three, so that they come to lie across the end of eleven.
    let mut records = Vec::new();
    let bodies: Vec<Vec<u8>> =
        (0..8u8).map(|number| vec![number; if number % 2 == 0 { 100 } else { 48 }]).collect();
    for body in &bodies {
        tape.body.extend_from_slice(body);
        tape.append_with_body(&RecordedCall { payload_size: body.len() as u32, ..RecordedCall::default() });
        tape.end_turn();
        assert_eq!(reader.drain(&mut records).unwrap(), 1);
    }
    tape.body.push(1);
    tape.append_with_body(&RecordedCall { payload_size: 2, ..RecordedCall::default() });
    tape.end_turn();
    assert_eq!(reader.drain(&mut records).unwrap(), 1);

    let recording = recording(&records);
    for (index, body) in bodies.iter().enumerate() {
        assert_eq!(recording.body(index), body);
    }
    assert_eq!((recording.body(8), recording.calls[8].payload_size), (&[][..], 2));
    // Expect that one that is larger than the ring is lost, and only it.
    tape.body.resize(RING_SIZE_SMALL, 1);
    tape.append_with_body(&RecordedCall { payload_size: RING_SIZE_SMALL as u32, ..RecordedCall::default() });
    assert_eq!(reader.lost_count(), 1);
}

#[test]
fn whatever_the_tape_says_the_reader_only_refuses_it() {
    let (mut tape, mut reader, memory) = pair();
    reader.renew(u64::MAX, false);
    tape.begin_turn(Nanos(1));
    refuse(&mut tape, 1);
    tape.end_turn();
    // Given: an entry that says it has a body, of which nothing was written.
    memory.store_u64(place::RING + 32, 49, Ordering::Relaxed);
    memory.store_u64(place::RING + 40, 1 << 58, Ordering::Relaxed);
    let mut records = Vec::new();
    assert!(matches!(reader.drain(&mut records), Err(TapeDamaged::EntryCut { missing: 96 })));
    assert!(records.is_empty());
    memory.store_u64(place::TAIL, CELL_SIZE as u64 + 8, Ordering::Relaxed);
    assert!(matches!(reader.drain(&mut records), Err(TapeDamaged::EntryCut { missing: 40 })));
    memory.store_u64(place::TAIL, 1 << 40, Ordering::Relaxed);
    assert!(matches!(reader.drain(&mut records), Err(TapeDamaged::TooMuch { .. })));
    memory.store_u64(place::MAGIC, 1, Ordering::Relaxed);
    assert!(matches!(TapeReader::over(memory), Err(TapeDamaged::NotATape)));
}

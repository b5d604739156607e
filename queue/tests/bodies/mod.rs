//! What must hold whatever the threads do. `stress.rs` runs these bodies on real threads with large sizes, `loom.rs`
//! under every interleaving with small ones.

mod bell;

use std::collections::BTreeMap;

use bell::Bell;
use queue::{
    Full, LaneIndex, Mailbox, WasEmpty, priority_queue,
    sync::{Arc, thread},
};

#[derive(Clone, Copy)]
pub struct Sizes {
    pub producers: u32,
    /// What each producer pushes, or tries to.
    pub values_each: u32,
    pub capacity: u32,
    /// Lanes (or in a mailbox, streams) each producer spreads its values over.
    pub lanes: u32,
    /// How often the consumer looks while producers may still run; afterwards it takes all that is left.
    pub looks_alongside: u32,
    /// Whether a producer that finds the queue full tries again until it fits, or moves on to its next value.
    pub is_patient: bool,
}

/// One pushed value: whose it is and its number. On the heap, so that a value lost or taken twice is memory freed
/// never or twice.
type Value = Box<(u32, u32)>;

/// Values a producer got in, in order.
type Accepted = Vec<(LaneIndex, Value)>;

/// Checks what a consumer received against what the producers know they got in.
#[derive(Default)]
struct Received(BTreeMap<(LaneIndex, u32), Vec<u32>>);

impl Received {
    fn note(&mut self, lane: LaneIndex, (producer, number): (u32, u32)) {
        self.0.entry((lane, producer)).or_default().push(number);
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Nothing lost, nothing twice, and each producer's values in each lane in their order.
    fn check(self, accepted: impl IntoIterator<Item = Accepted>) {
        let mut expected = Self::default();
        for (lane, value) in accepted.into_iter().flatten() {
            expected.note(lane, *value);
        }
        assert!(self.0 == expected.0, "received is not what was accepted");
    }
}

/// Pushes a producer's values and returns those that went in.
fn produce(
    producer: u32,
    sizes: Sizes,
    push: impl Fn(LaneIndex, Value) -> Result<(), Full<Value>>,
) -> Accepted {
    let mut accepted = Accepted::new();
    for number in 0..sizes.values_each {
        let lane = LaneIndex::from_index(((producer + number) % sizes.lanes) as usize);
        let mut value = Value::new((producer, number));
        loop {
            match push(lane, value) {
                Ok(()) => {
                    accepted.push((lane, Value::new((producer, number))));
                    break;
                }
                Err(Full(refused)) => {
                    assert_eq!(*refused, (producer, number), "another value came back");
                    value = refused;
                }
            }
            if !sizes.is_patient {
                break;
            }
            thread::yield_now();
        }
    }
    accepted
}

/// Producers push while the receiver pops.
pub fn priority_queue_hands_over_everything_in_order(sizes: Sizes) {
    let (sender, mut receiver) = priority_queue(sizes.capacity);
    let producers: Vec<_> = (0..sizes.producers)
        .map(|producer| {
            let sender = sender.clone();
            thread::spawn(move || {
                produce(producer, sizes, |lane, value| sender.push(lane, value).map(|WasEmpty(_)| ()))
            })
        })
        .collect();

    let mut received = Received::default();
    for _ in 0..sizes.looks_alongside {
        match receiver.pop() {
            Some((lane, value)) => received.note(lane, *value),
            None => thread::yield_now(),
        }
        if received.count() == (sizes.producers * sizes.values_each) as usize {
            break;
        }
    }
    let accepted: Vec<_> = producers.into_iter().map(|producer| producer.join().unwrap()).collect();

    // What is left comes most urgent lane first.
    let mut lane_before = LaneIndex::from_index(0);
    while let Some((lane, value)) = receiver.pop() {
        assert!(lane >= lane_before, "a less urgent lane was served first");
        lane_before = lane;
        received.note(lane, *value);
    }
    received.check(accepted);

    // All nodes came home: the queue takes exactly its capacity again.
    let lane = LaneIndex::from_index(63);
    for number in 0..sizes.capacity {
        assert!(sender.push(lane, Value::new((0, number))).is_ok(), "a node is missing");
    }
    assert!(sender.push(lane, Value::new((0, 0))).is_err(), "a node is there twice");
}

/// A receiver that sleeps whenever it finds nothing, and is woken only by pushes that say the queue was empty.
pub fn was_empty_is_enough_to_wake_the_receiver(sizes: Sizes) {
    let (sender, mut receiver) = priority_queue(sizes.capacity);
    let bell = Arc::new(Bell::new());
    let producers: Vec<_> = (0..sizes.producers)
        .map(|producer| {
            let (sender, bell) = (sender.clone(), bell.clone());
            thread::spawn(move || {
                produce(producer, sizes, |lane, value| {
                    if sender.push(lane, value)?.0 {
                        bell.notify();
                    }
                    Ok(())
                })
            })
        })
        .collect();

    let mut received = Received::default();
    while received.count() < (sizes.producers * sizes.values_each) as usize {
        match receiver.pop() {
            Some((lane, value)) => received.note(lane, *value),
            // A wake that is lost here is a test that never ends; loom calls it a deadlock.
            None => bell.wait(),
        }
    }
    received.check(producers.into_iter().map(|producer| producer.join().unwrap()));
}

/// An owner that sleeps whenever its mailbox lets it.
pub fn mailbox_loses_neither_values_nor_wakes(sizes: Sizes) {
    let bell = Arc::new(Bell::new());
    let rung = bell.clone();
    let mailbox = Arc::new(Mailbox::with_capacity(sizes.capacity as usize, move || rung.notify()));
    let producers: Vec<_> = (0..sizes.producers)
        .map(|producer| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                produce(producer, sizes, |lane, value| {
                    mailbox.push((lane, value)).map_err(|Full((_, value))| Full(value))
                })
            })
        })
        .collect();

    let mut received = Received::default();
    while received.count() < (sizes.producers * sizes.values_each) as usize {
        let count = mailbox.take(3, |(lane, value)| received.note(lane, *value));
        assert!(count <= 3);
        if count == 0 && mailbox.announce_sleep() {
            // A wake that is lost here is a test that never ends; loom calls it a deadlock.
            bell.wait();
            mailbox.announce_awake();
        }
    }
    received.check(producers.into_iter().map(|producer| producer.join().unwrap()));
    assert!(mailbox.is_empty());
}

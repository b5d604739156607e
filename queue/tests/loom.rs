//! The same bodies under loom: every interleaving (up to a bound on preemptions) and every outcome the memory model
//! allows. `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p queue --release --test loom`
#![cfg(loom)]

mod bodies;

use bodies::Sizes;

const SMALL: Sizes =
    Sizes { producers: 2, values_each: 1, capacity: 2, lanes: 1, looks_alongside: 2, is_patient: false };

/// `preemptions`: how often a thread may be interrupted where it would have gone on. Most faults need one or two.
fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

#[test]
fn two_producers_in_one_lane() {
    model(4, || bodies::priority_queue_hands_over_everything_in_order(SMALL));
}

#[test]
fn two_producers_in_two_lanes() {
    model(3, || bodies::priority_queue_hands_over_everything_in_order(Sizes { lanes: 2, ..SMALL }));
}

#[test]
fn one_producer_keeps_its_order_while_the_lane_is_taken() {
    let sizes = Sizes { producers: 1, values_each: 3, capacity: 3, looks_alongside: 3, ..SMALL };
    model(4, move || bodies::priority_queue_hands_over_everything_in_order(sizes));
}

#[test]
fn nodes_are_recycled_between_two_producers() {
    // Three values through two nodes, so that a node may come back under a producer's hand.
    let sizes = Sizes { values_each: 2, looks_alongside: 3, ..SMALL };
    model(2, move || bodies::priority_queue_hands_over_everything_in_order(sizes));
}

#[test]
fn was_empty_is_enough_to_wake_the_receiver() {
    model(3, || bodies::was_empty_is_enough_to_wake_the_receiver(SMALL));
}

#[test]
fn mailbox_handshake_with_two_producers() {
    model(3, || bodies::mailbox_loses_neither_values_nor_wakes(SMALL));
}

#[test]
fn mailbox_handshake_when_the_owner_sleeps_twice() {
    let sizes = Sizes { producers: 1, values_each: 2, ..SMALL };
    model(4, move || bodies::mailbox_loses_neither_values_nor_wakes(sizes));
}

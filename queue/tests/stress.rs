//! The bodies on real threads.
#![cfg(not(loom))]

mod bodies;

use bodies::Sizes;

/// More producers than cores, so that they are also interrupted where it hurts; a queue that is often full.
const CROWDED: Sizes = Sizes {
    producers: 4,
    values_each: 25_000,
    capacity: 48,
    lanes: 5,
    looks_alongside: u32::MAX,
    is_patient: true,
};

#[test]
fn priority_queue_crowded_and_full() {
    bodies::priority_queue_hands_over_everything_in_order(CROWDED);
}

#[test]
fn priority_queue_with_a_single_node() {
    bodies::priority_queue_hands_over_everything_in_order(Sizes {
        capacity: 1,
        values_each: 2_000,
        ..CROWDED
    });
}

#[test]
fn priority_queue_with_room_for_all_over_all_lanes() {
    bodies::priority_queue_hands_over_everything_in_order(Sizes { capacity: 100_000, lanes: 64, ..CROWDED });
}

#[test]
fn priority_queue_whose_producers_give_up_when_it_is_full() {
    let sizes = Sizes { is_patient: false, looks_alongside: 50_000, ..CROWDED };
    bodies::priority_queue_hands_over_everything_in_order(sizes);
}

#[test]
fn priority_queue_receiver_sleeps_when_empty() {
    bodies::was_empty_is_enough_to_wake_the_receiver(CROWDED);
}

#[test]
fn mailbox_crowded_and_full() {
    bodies::mailbox_loses_neither_values_nor_wakes(CROWDED);
}

#[test]
fn mailbox_with_room_for_one() {
    bodies::mailbox_loses_neither_values_nor_wakes(Sizes { capacity: 1, values_each: 2_000, ..CROWDED });
}

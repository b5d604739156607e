use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::*;

/// A mailbox, and how often its owner has been woken.
fn mailbox(capacity: usize) -> (Mailbox<u32>, Arc<AtomicU32>) {
    let wakes = Arc::new(AtomicU32::new(0));
    let counted = wakes.clone();
    let waker = move || {
        counted.fetch_add(1, Relaxed);
    };
    (Mailbox::with_capacity(capacity, waker), wakes)
}

fn take(mailbox: &Mailbox<u32>, max: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    let count = mailbox.take(max, |value| taken.push(value));
    assert_eq!(count, taken.len());
    taken
}

#[test]
fn an_owner_that_is_awake_is_not_woken() {
    let (mailbox, wakes) = mailbox(4);
    mailbox.push(1).unwrap();
    assert!(!mailbox.announce_sleep(), "a value waits");
    mailbox.push(2).unwrap();
    assert_eq!(wakes.load(Relaxed), 0);
    assert_eq!(take(&mailbox, 9), [1, 2]);
}

#[test]
fn a_sleeping_owner_is_woken_once_for_many_pushes() {
    let (mailbox, wakes) = mailbox(4);
    assert!(mailbox.announce_sleep());
    mailbox.push(1).unwrap();
    mailbox.push(2).unwrap();
    assert_eq!(wakes.load(Relaxed), 1);
}

#[test]
fn an_owner_that_woke_by_itself_is_not_woken_for_the_sleep_before() {
    let (mailbox, wakes) = mailbox(4);
    assert!(mailbox.announce_sleep());
    mailbox.announce_awake();
    mailbox.push(1).unwrap();
    assert_eq!(wakes.load(Relaxed), 0);
}

#[test]
fn a_full_mailbox_gives_the_value_back_and_wakes_nobody() {
    let (mailbox, wakes) = mailbox(1);
    mailbox.push(1).unwrap();
    assert_eq!(mailbox.push(2), Err(Full(2)));
    assert_eq!(take(&mailbox, 1), [1]);
    assert!(mailbox.announce_sleep());
    mailbox.push(2).unwrap();
    assert_eq!(mailbox.push(3), Err(Full(3)));
    assert_eq!(wakes.load(Relaxed), 1);
}

#[test]
fn a_batch_goes_in_as_far_as_it_fits_with_one_wake() {
    let (mailbox, wakes) = mailbox(3);
    assert!(mailbox.announce_sleep());
    let mut batch = VecDeque::from([1, 2, 3, 4, 5]);
    assert_eq!(mailbox.push_batch(&mut batch), 3);
    assert_eq!(batch, [4, 5]);
    assert_eq!(wakes.load(Relaxed), 1);
    assert!(!mailbox.announce_sleep());
    assert_eq!(mailbox.push_batch(&mut batch), 0);
    assert_eq!(take(&mailbox, 2), [1, 2]);
    assert_eq!(mailbox.push_batch(&mut batch), 2);
    assert_eq!(take(&mailbox, 9), [3, 4, 5]);
    assert!(mailbox.is_empty());
}

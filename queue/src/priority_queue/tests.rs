use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const CAPACITY: u32 = 6;

#[derive(Clone, Debug)]
enum Step {
    Push(LaneIndex),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    let lane = prop_oneof![3 => 30..33usize, 1 => 0..LaneIndex::COUNT].prop_map(LaneIndex::from_index);
    prop_oneof![3 => lane.prop_map(Step::Push), 2 => Just(Step::Pop)]
}

proptest! {
    #[test]
    fn the_queue_agrees_with_the_oracle(steps in prop::collection::vec(step(), 0..200)) {
        let (sender, mut receiver) = priority_queue(CAPACITY);
        let mut oracle = BTreeMap::<LaneIndex, VecDeque<String>>::new();
        for (number, step) in steps.into_iter().enumerate() {
            let count: usize = oracle.values().map(VecDeque::len).sum();
            match step {
                Step::Push(lane) => {
                    // On the heap, so that a value lost or taken twice is one freed never or twice.
                    let value = number.to_string();
                    match sender.push(lane, value.clone()) {
                        Ok(_) => oracle.entry(lane).or_default().push_back(value),
                        Err(Full(refused)) => {
                            prop_assert_eq!(refused, value);
                            prop_assert_eq!(count, CAPACITY as usize);
                        }
                    }
                }
                Step::Pop => {
                    let expected = oracle.iter_mut().find_map(|(&lane, queue)| Some((lane, queue.pop_front()?)));
                    prop_assert_eq!(receiver.pop(), expected);
                }
            }
            receiver.lanes.invariants(&receiver.links);
        }
    }
}

#[test]
fn a_full_queue_gives_the_value_back_and_takes_it_after_a_pop() {
    let (sender, mut receiver) = priority_queue(2);
    let lane = LaneIndex::new(1, 15);
    assert_eq!(sender.push(lane, 'a'), Ok(WasEmpty(true)));
    assert_eq!(sender.push(lane, 'b'), Ok(WasEmpty(false)));
    assert_eq!(sender.push(lane, 'c'), Err(Full('c')));
    assert_eq!(receiver.pop(), Some((lane, 'a')));
    assert_eq!(sender.push(lane, 'c'), Ok(WasEmpty(true)), "the inbox was taken whole");
    assert_eq!(receiver.pop(), Some((lane, 'b')));
    assert_eq!(receiver.pop(), Some((lane, 'c')));
    assert_eq!(receiver.pop(), None);
}

#[test]
fn more_urgent_work_that_comes_later_overtakes_what_was_already_collected() {
    let (sender, mut receiver) = priority_queue(4);
    let (urgent, patient) = (LaneIndex::new(3, 0), LaneIndex::new(0, 15));
    for value in [1, 2] {
        let _ = sender.push(patient, value).unwrap();
    }
    assert_eq!(receiver.pop(), Some((patient, 1)));
    let _ = sender.push(urgent, 3).unwrap();
    assert_eq!(receiver.pop(), Some((urgent, 3)));
    assert_eq!(receiver.pop(), Some((patient, 2)));
}

#[test]
fn a_producer_stalled_before_it_marks_the_lane_does_not_hold_back_the_next() {
    let (sender, mut receiver) = priority_queue(2);
    let lane = LaneIndex::new(1, 3);
    // Given a node on the lane's stack whose producer has not come to the mark.
    let node = sender.inbox.pool.claim().unwrap();
    // SAFETY: `claim` made the node ours.
    unsafe { sender.inbox.pool.write(node, 1) };
    sender.inbox.pool.set_next(node, NIL);
    sender.inbox.heads[lane.index()].store(node, Ordering::Release);
    assert_eq!(receiver.pop(), None);
    // Expect the next push to be seen at once, and to bring the stalled one along.
    assert_eq!(sender.push(lane, 2), Ok(WasEmpty(true)));
    assert_eq!(receiver.pop(), Some((lane, 1)));
    assert_eq!(receiver.pop(), Some((lane, 2)));
}

#[test]
fn leftovers_are_dropped_once_wherever_they_are() {
    let counted = Arc::new(());
    let (sender, mut receiver) = priority_queue(8);
    let lane = LaneIndex::new(1, 3);
    // Given one value popped, one collected, one in the inbox, and one pushed after the receiver is gone.
    for _ in 0..2 {
        let _ = sender.push(lane, counted.clone()).unwrap();
    }
    drop(receiver.pop());
    let _ = sender.push(lane, counted.clone()).unwrap();
    assert_eq!(Arc::strong_count(&counted), 3);
    drop(receiver);
    assert_eq!(Arc::strong_count(&counted), 1);
    let _ = sender.push(lane, counted.clone()).unwrap();
    assert_eq!(Arc::strong_count(&counted), 2);
    // Expect the last end to drop it.
    drop(sender);
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[test]
fn both_ends_may_change_threads() {
    fn assert_send<T: Send>(_: &T) {}
    fn assert_sync<T: Sync>(_: &T) {}
    let (sender, receiver) = priority_queue::<Box<u32>>(1);
    assert_send(&sender);
    assert_sync(&sender);
    assert_send(&receiver);
}

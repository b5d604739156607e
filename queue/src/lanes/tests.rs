use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const CAPACITY: u32 = 24;

/// The obvious implementation: lanes in order, each a queue.
#[derive(Default)]
struct Oracle(BTreeMap<LaneIndex, VecDeque<u32>>);

impl Oracle {
    fn push(&mut self, lane: LaneIndex, index: u32) {
        self.0.entry(lane).or_default().push_back(index);
    }

    fn pop(&mut self) -> Option<(LaneIndex, u32)> {
        self.0.iter_mut().find_map(|(&lane, queue)| Some((lane, queue.pop_front()?)))
    }

    fn remove(&mut self, lane: LaneIndex, index: u32) {
        self.0.get_mut(&lane).expect("lane").retain(|&other| other != index);
    }

    fn lane_of(&self, index: u32) -> Option<LaneIndex> {
        self.iter().find_map(|(lane, other)| (other == index).then_some(lane))
    }

    fn iter(&self) -> impl Iterator<Item = (LaneIndex, u32)> {
        self.0.iter().flat_map(|(&lane, queue)| queue.iter().map(move |&index| (lane, index)))
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Pushes the index if it is in no queue, else removes it from the one it is in.
    Toggle {
        queue: usize,
        lane: LaneIndex,
        index: u32,
    },
    Pop {
        queue: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    // Few lanes most of the time, so that they fill; all of them sometimes.
    let lane = prop_oneof![3 => 30..34usize, 1 => 0..LaneIndex::COUNT].prop_map(LaneIndex::from_index);
    prop_oneof![
        3 => (0..2usize, lane, 0..CAPACITY)
            .prop_map(|(queue, lane, index)| Step::Toggle { queue, lane, index }),
        1 => (0..2usize).prop_map(|queue| Step::Pop { queue }),
    ]
}

proptest! {
    /// Two queues through one arena, each against its own oracle.
    #[test]
    fn lanes_agree_with_the_oracle(steps in prop::collection::vec(step(), 0..200)) {
        let mut links = Links::with_capacity(CAPACITY);
        let mut queues = [Lanes::new(), Lanes::new()];
        let mut oracles = [Oracle::default(), Oracle::default()];
        for step in steps {
            match step {
                Step::Toggle { queue, lane, index } => {
                    let held = (0..2).find_map(|queue| Some((queue, oracles[queue].lane_of(index)?)));
                    prop_assert_eq!(links.is_linked(index), held.is_some());
                    if let Some((holder, lane)) = held {
                        queues[holder].remove(&mut links, lane, index);
                        oracles[holder].remove(lane, index);
                    } else {
                        queues[queue].push(&mut links, lane, index);
                        oracles[queue].push(lane, index);
                    }
                }
                Step::Pop { queue } => {
                    prop_assert_eq!(queues[queue].pop(&mut links), oracles[queue].pop());
                }
            }
            for (queue, oracle) in queues.iter().zip(&oracles) {
                queue.invariants(&links);
                prop_assert!(queue.iter(&links).eq(oracle.iter()));
                prop_assert_eq!(queue.peek(), oracle.iter().next());
                prop_assert_eq!(queue.first_lane(), oracle.iter().next().map(|(lane, _)| lane));
                prop_assert_eq!(queue.len() as usize, oracle.iter().count());
                prop_assert_eq!(queue.is_empty(), oracle.iter().next().is_none());
            }
        }
    }
}

#[test]
fn every_lane_is_served_in_its_turn() {
    let mut links = Links::with_capacity(64);
    let mut lanes = Lanes::new();
    for index in 0..64u32 {
        // 37 shares no factor with 64, so this visits every lane, out of order.
        lanes.push(&mut links, LaneIndex::from_index(index as usize * 37 % 64), index);
    }
    assert_eq!(lanes.occupancy(), u64::MAX);
    let order: Vec<_> = std::iter::from_fn(|| lanes.pop(&mut links)).map(|(lane, _)| lane.index()).collect();
    assert!(order.into_iter().eq(0..64));
    assert!(lanes.is_empty());
}

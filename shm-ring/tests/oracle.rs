//! Random sequences of push, publish, take, complete (in any order) and release against a model that is too simple to be
//! wrong: three queues and a set.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use shm_ring::{
    Completion, Context, Generation, Geometry, HeapMemory, Identity, Outcome, PushRefused, Request,
    RouterEnd, Taken, WorkerEnd,
};

#[derive(Clone, Debug)]
enum Operation {
    Push { size: usize },
    PublishRequests,
    Take,
    Complete { which: usize, size: usize, outcome: u8 },
    PublishAnswers,
    NextCompletion,
    Release { which: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let size = prop_oneof![0_usize..200, 4090_usize..4097];
    prop_oneof![
        4 => size.clone().prop_map(|size| Operation::Push { size }),
        2 => Just(Operation::PublishRequests),
        4 => Just(Operation::Take),
        4 => (any::<usize>(), size, 0_u8..5).prop_map(|(which, size, outcome)| Operation::Complete { which, size, outcome }),
        2 => Just(Operation::PublishAnswers),
        4 => Just(Operation::NextCompletion),
        4 => any::<usize>().prop_map(|which| Operation::Release { which }),
    ]
}

/// What a ring is, without memory.
#[derive(Default)]
struct Model {
    in_use: usize,
    unpublished_requests: VecDeque<u64>,
    requests: VecDeque<u64>,
    unpublished_answers: VecDeque<u64>,
    answers: VecDeque<u64>,
    payloads: HashMap<u64, Vec<u8>>,
    results: HashMap<u64, (u8, Vec<u8>)>,
}

fn bytes(seed: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|index| (seed * 131 + index * 7) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_ring_does_what_the_model_does(
        slot_count_log in 0_u32..4,
        operations in proptest::collection::vec(operation(), 1..400),
    ) {
        let slot_count = 1 << slot_count_log;
        let geometry = Geometry::new(slot_count, 4096).unwrap();
        let memory = HeapMemory::new(geometry.memory_size());
        let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
        let mut router = RouterEnd::new(memory.clone(), geometry, identity);
        let mut worker = WorkerEnd::attach(memory).unwrap();
        let mut model = Model::default();
        let mut taken: Vec<Taken> = Vec::new();
        let mut completions: Vec<Completion> = Vec::new();
        let mut next_id = 1_u64;

        for operation in operations {
            match operation {
                Operation::Push { size } => {
                    let payload = bytes(next_id, size);
                    let context = Context { trace: Some([next_id as u8; 32]), idempotency_key: None };
                    let request = Request {
                        invocation_id: next_id,
                        deadline_at_ns: next_id,
                        pushed_at_ns: 0,
                        flags: 0,
                        criticality: (next_id % 4) as u8,
                        context: next_id.is_multiple_of(3).then_some(&context),
                    };
                    let pushed = router.push(request, &payload);
                    if model.in_use == slot_count as usize {
                        prop_assert_eq!(pushed, Err(PushRefused::NoCredit));
                    } else {
                        prop_assert!(pushed.is_ok());
                        model.in_use += 1;
                        model.unpublished_requests.push_back(next_id);
                        model.payloads.insert(next_id, payload);
                        next_id += 1;
                    }
                }
                Operation::PublishRequests => {
                    prop_assert!(!router.publish(), "nobody sleeps");
                    model.requests.append(&mut model.unpublished_requests);
                }
                Operation::Take => {
                    let found = worker.next_request().unwrap();
                    prop_assert_eq!(found.as_ref().map(|taken| taken.invocation_id), model.requests.pop_front());
                    if let Some(found) = found {
                        prop_assert_eq!(worker.payload(&found), &model.payloads[&found.invocation_id][..]);
                        prop_assert_eq!(found.criticality, (found.invocation_id % 4) as u8);
                        prop_assert_eq!(found.trace.is_some(), found.invocation_id.is_multiple_of(3));
                        taken.push(found);
                    }
                }
                Operation::Complete { which, size, outcome } => {
                    if taken.is_empty() { continue }
                    let one = taken.swap_remove(which % taken.len());
                    let id = one.invocation_id;
                    let result = bytes(id + 1, size);
                    worker.complete(one, Outcome::from_number(outcome).unwrap(), 1, 2, &result);
                    model.unpublished_answers.push_back(id);
                    model.results.insert(id, (outcome, result));
                }
                Operation::PublishAnswers => {
                    prop_assert!(!worker.publish(), "nobody sleeps");
                    model.answers.append(&mut model.unpublished_answers);
                }
                Operation::NextCompletion => {
                    // As its contract asks: answers are read only while every push is published.
                    prop_assert!(!router.publish(), "nobody sleeps");
                    model.requests.append(&mut model.unpublished_requests);
                    let found = router.next_completion().unwrap();
                    prop_assert_eq!(found.as_ref().map(|completion| completion.invocation_id), model.answers.pop_front());
                    completions.extend(found);
                }
                Operation::Release { which } => {
                    if completions.is_empty() { continue }
                    let one = completions.swap_remove(which % completions.len());
                    let (outcome, expected) = &model.results[&one.invocation_id];
                    let mut result = Vec::new();
                    router.read_result(&one, &mut result);
                    prop_assert_eq!(&result, expected);
                    prop_assert_eq!(one.outcome as u8, *outcome);
                    router.release(one);
                    model.in_use -= 1;
                }
            }
            router.invariants();
            prop_assert_eq!(router.free_slots() as usize, slot_count as usize - model.in_use);
            prop_assert_eq!(router.in_flight().count(), model.in_use - completions.len());
        }
    }
}

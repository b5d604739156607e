//! What happens in a history, and how often.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Keyed { function: u32, key: u8, budget_us: u32, nested_in: Option<usize> },
    Request { function: u32, criticality: u8, budget_us: u32, idempotent: bool },
    Nested { which: usize, function: u32, shows: Shows },
    BeginToWait { which: usize },
    Later { function: u32, budget_us: u32, start_after_us: u64 },
    Cancel { which: usize, gone: bool },
    Attach { function: u32, slots: u32 },
    DrainWorker { which: usize },
    LoseWorker { which: usize },
    Misbehave { which: usize },
    Lease { function: u32, slots: u32 },
    EndLease { which: usize },
    OverstayLease { which: usize },
    Reconfigure { removed: u32, edition: u64, workers_max: u32 },
    Pass { ns: u64 },
    Push { count: u32 },
    Take { which: usize },
    Finish { which: usize, outcome: RunOutcome },
    LieAboutResult { worker: usize, call: usize },
    CarryOutActions,
    PollAnswers,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let which = || 0usize..1000;
    let budget = prop_oneof![Just(0), 100u32..10_000, 1000u32..200_000, 100_000u32..80_000_000];
    let length = prop_oneof![0u64..300_000, 0u64..5_000_000, 0u64..200_000_000, 0u64..5_000_000_000];
    let outcome = prop_oneof![
        4 => Just(RunOutcome::Ok),
        1 => Just(RunOutcome::FunctionError),
        1 => Just(RunOutcome::ResultTooLarge),
        1 => Just(RunOutcome::Backpressure)
    ];
    // Mostly one function and one criticality, so that calls compete.
    let function = prop_oneof![5 => Just(0u32), 1 => 0u32..3];
    let criticality = prop_oneof![4 => Just(1u8), 1 => 0u8..4];
    let keyed = (0u32..2, 0u8..3, budget.clone(), prop::option::of(which()));
    let keyed = keyed.prop_map(|(function, key, budget_us, nested_in)| Op::Keyed {
        function,
        key,
        budget_us,
        nested_in,
    });
    let request = (function, criticality, budget, any::<bool>()).prop_map(
        |(function, criticality, budget_us, idempotent)| Op::Request {
            function,
            criticality,
            budget_us,
            idempotent,
        },
    );
    let shows = prop_oneof![1 => Just(Shows::Nothing), 1 => Just(Shows::Made), 3 => Just(Shows::Wait)];
    let start_after = prop_oneof![0u64..2_000, 1_000u64..500_000, Just(START_AFTER_MAX.0 / 1_000 + 1)];
    let later = (0u32..3, prop_oneof![Just(0), 100u32..200_000], start_after)
        .prop_map(|(function, budget_us, start_after_us)| Op::Later { function, budget_us, start_after_us });
    prop_oneof![
        12 => request,
        6 => keyed,
        8 => (which(), 0u32..3, shows).prop_map(|(which, function, shows)| Op::Nested { which, function, shows }),
        2 => which().prop_map(|which| Op::BeginToWait { which }),
        2 => later,
        2 => (which(), any::<bool>()).prop_map(|(which, gone)| Op::Cancel { which, gone }),
        2 => (prop_oneof![Just(0u32), 0u32..3], 1u32..5).prop_map(|(function, slots)| Op::Attach { function, slots }),
        1 => which().prop_map(|which| Op::DrainWorker { which }),
        1 => which().prop_map(|which| Op::LoseWorker { which }),
        1 => which().prop_map(|which| Op::Misbehave { which }),
        2 => (prop_oneof![Just(0u32), 0u32..4], 0u32..5).prop_map(|(function, slots)| Op::Lease { function, slots }),
        2 => which().prop_map(|which| Op::EndLease { which }),
        1 => which().prop_map(|which| Op::OverstayLease { which }),
        1 => (0u32..6, 0u64..3, 1u32..4).prop_map(|(removed, edition, workers_max)| Op::Reconfigure { removed, edition, workers_max }),
        6 => length.prop_map(|ns| Op::Pass { ns }),
        6 => (1u32..4).prop_map(|count| Op::Push { count }),
        5 => which().prop_map(|which| Op::Take { which }),
        5 => (which(), outcome).prop_map(|(which, outcome)| Op::Finish { which, outcome }),
        1 => (which(), which()).prop_map(|(worker, call)| Op::LieAboutResult { worker, call }),
        4 => Just(Op::CarryOutActions),
        4 => Just(Op::PollAnswers),
    ]
}

/// Histories of few processes that wait for each other.
pub(super) fn waiting_op() -> impl Strategy<Value = Op> {
    let which = || 0usize..1000;
    let shows = prop_oneof![1 => Just(Shows::Made), 5 => Just(Shows::Wait)];
    let request = |function| Op::Request { function, criticality: 1, budget_us: 0, idempotent: false };
    prop_oneof![
        3 => (0u32..3, 1u32..3).prop_map(|(function, slots)| Op::Attach { function, slots }),
        4 => (0u32..3).prop_map(request),
        8 => Just(Op::Push { count: 3 }),
        8 => which().prop_map(|which| Op::Take { which }),
        8 => (which(), 0u32..3, shows).prop_map(|(which, function, shows)| Op::Nested { which, function, shows }),
        2 => which().prop_map(|which| Op::BeginToWait { which }),
        1 => (0u32..2, 0u8..3, which()).prop_map(|(function, key, which)| Op::Keyed {
            function,
            key,
            budget_us: 0,
            nested_in: Some(which),
        }),
        1 => which().prop_map(|which| Op::Finish { which, outcome: RunOutcome::Ok }),
        1 => which().prop_map(|which| Op::LoseWorker { which }),
        1 => which().prop_map(|which| Op::DrainWorker { which }),
        1 => Just(Op::CarryOutActions),
        3 => (0u64..20_000_000).prop_map(|ns| Op::Pass { ns }),
        2 => Just(Op::PollAnswers),
    ]
}

//! What `quickfire up` answers about calls that outlived their answers.
//!
//! Always: a list or a payload that is too large for one message is told in pieces, each to a question of its own.
//! Never: keeps anything from one question to the next; what is dropped in between is not there any more.

use std::time::Instant;

use protocol::admin::{CALLS_PER_LIST_MAX, KeptCall, Message, PIECE_SIZE_MAX, Shelf};
use router::Router;
use router::admin::Reply;
use router::kept::{self, KeptCalls, Summary, Told, Wish};

use crate::snapshots::now_ns;

/// The calls behind `after`, of all shards, by number.
pub fn list(router: &Router, shelf: Shelf, after: u64) -> Message {
    let mut summaries = Vec::new();
    for shard in 0..router.shard_count() {
        match router.ask_kept(shard, shelf_of(shelf), Wish::List) {
            Some(Told::List(some)) => summaries.extend(some.into_iter().filter(|call| call.number > after)),
            _ => return Message::Stopping,
        }
    }
    summaries.sort_unstable_by_key(|call| call.number);
    let has_more = summaries.len() > CALLS_PER_LIST_MAX;
    summaries.truncate(CALLS_PER_LIST_MAX);
    let calls = summaries.iter().map(|summary| told(router, summary)).collect();
    Message::Listed { looked_at_ns: now_ns(), calls, has_more }
}

/// One call, with the piece of its payload that begins at `offset`.
pub fn show(router: &Router, shelf: Shelf, number: u64, offset: u64) -> Message {
    match ask(router, shelf, number, Wish::Show(number)) {
        Some(Told::Call(kept)) => {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(kept.payload.len());
            let end = kept.payload.len().min(start.saturating_add(PIECE_SIZE_MAX));
            let piece = kept.payload.slice(start..end).to_vec();
            Message::Shown { looked_at_ns: now_ns(), call: told(router, &kept.summary), piece }
        }
        other => nothing(other),
    }
}

/// Runs one call once more, and tells later how it ended.
pub fn replay(router: &Router, shelf: Shelf, number: u64) -> Reply {
    let begun = Instant::now();
    let (summary, ticket) = match ask(router, shelf, number, Wish::Replay(number)) {
        Some(Told::Replayed(summary, ticket)) => (summary, ticket),
        other => return Reply::Now(nothing(other)),
    };
    let function = told(router, &summary).function;
    Reply::Later(Box::new(move || {
        let ending = ticket.wait();
        Message::Replayed {
            status: ending.status as u16,
            took_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            result_size: ending.payload.len() as u64,
            function,
            result: ending.payload.slice(..ending.payload.len().min(PIECE_SIZE_MAX)).to_vec(),
        }
    }))
}

/// Forgets one call.
pub fn forget(router: &Router, shelf: Shelf, number: u64) -> Message {
    match ask(router, shelf, number, Wish::Drop(number)) {
        Some(Told::Dropped(summary)) => {
            Message::Dropped { looked_at_ns: now_ns(), call: told(router, &summary) }
        }
        other => nothing(other),
    }
}

/// Asks the shard that keeps the call. A number whose shard is not here is of no call.
fn ask(router: &Router, shelf: Shelf, number: u64, wish: Wish) -> Option<Told> {
    let shard = u32::from(KeptCalls::shard_of(number));
    if shard >= router.shard_count() {
        return Some(Told::NoSuchCall);
    }
    router.ask_kept(shard, shelf_of(shelf), wish)
}

/// Where there is nothing to tell.
fn nothing(word: Option<Told>) -> Message {
    match word {
        None => Message::Stopping,
        Some(Told::NoSuchCall) => Message::NoSuchCall,
        Some(other) => unreachable!("a shard answered what it was not asked: {other:?}"),
    }
}

fn shelf_of(shelf: Shelf) -> kept::Shelf {
    match shelf {
        Shelf::Quarantine => kept::Shelf::Quarantine,
        Shelf::DeadLetters => kept::Shelf::DeadLetters,
    }
}

fn told(router: &Router, summary: &Summary) -> KeptCall {
    KeptCall {
        number: summary.number,
        function: router.function_name(summary.function).unwrap_or_else(|| summary.function.0.to_string()),
        status: summary.status as u16,
        attempts: summary.attempts,
        criticality: summary.criticality,
        ended_at_ns: summary.ended_at.0,
        payload_size: summary.payload_size as u64,
    }
}

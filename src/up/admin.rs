//! What `quickfire up` answers on the admin socket.

use std::sync::Arc;

use protocol::admin::{CallReport, Message};
use router::admin::Reply;
use router::reload::{Change, Difference};
use router::shard::Explained;
use router::{InvocationId, Router, State};

use crate::flags::ConfigFile;

use super::kept;
use super::reload::{Refused, Reloads};

/// Answers questions about this router.
pub fn answers(reloads: &Arc<Reloads>, router: &Arc<Router>) -> impl FnMut(Message) -> Reply + Send + use<> {
    let (reloads, router) = (reloads.clone(), router.clone());
    move |question| {
        Reply::Now(match question {
            Message::Apply { origin, text, is_dry_run } => {
                changed(reloads.apply(ConfigFile { origin, text }, is_dry_run))
            }
            Message::Rollback { is_dry_run } => changed(reloads.rollback(is_dry_run)),
            Message::Why { invocation_id } => why(&router, invocation_id),
            Message::List { shelf, after } => kept::list(&router, shelf, after),
            Message::Show { shelf, number, offset } => kept::show(&router, shelf, number, offset),
            Message::Replay { shelf, number } => return kept::replay(&router, shelf, number),
            Message::Drop { shelf, number } => kept::forget(&router, shelf, number),
            _ => Message::Refused { reasons: "this is an answer, not a question".into() },
        })
    }
}

fn changed(outcome: Result<Difference, Refused>) -> Message {
    match outcome {
        Ok(Difference { taken, needs_restart }) => {
            let lines = |changes: &[Change]| changes.iter().map(|change| format!("{change}\n")).collect();
            Message::Applied { taken: lines(&taken), needs_restart: lines(&needs_restart) }
        }
        Err(Refused::Stopping) => Message::Stopping,
        Err(Refused::Reasons(reasons)) => Message::Refused { reasons },
    }
}

fn why(router: &Router, invocation_id: u64) -> Message {
    match router.explain(InvocationId(invocation_id)) {
        Ok(None) => Message::NoSuchCall,
        Ok(Some(explained)) => {
            Message::Call { report: report(invocation_id, &explained), function: explained.function }
        }
        Err(_) => Message::Stopping,
    }
}

fn report(invocation_id: u64, explained: &Explained) -> CallReport {
    let view = &explained.view;
    CallReport {
        invocation_id,
        looked_at_ns: explained.looked_at.0,
        received_at_ns: view.received_at.0,
        deadline_at_ns: view.deadline_at.0,
        pushed_at_ns: view.pushed_at.or(view.due_at).map_or(0, |at| at.0),
        blocked_since_ns: view.blocked.since.0,
        waits_for: view.joined.map_or(0, |leader| leader.0),
        ahead: view.ahead,
        process_id: explained.process_id.unwrap_or(0),
        stage: match view.state {
            State::Queued | State::Joined => 0,
            State::Pushed => 1,
            State::Overdue => 2,
            State::Delayed => 4,
            State::Free | State::Answering | State::AnsweringHeld | State::Abandoned => 3,
        },
        criticality: view.criticality,
        attempts: view.attempts,
        blocked_on: view.blocked.on as u8,
    }
}

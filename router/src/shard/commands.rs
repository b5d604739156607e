//! What the rest of the process asks of a shard, between two turns.
//!
//! In: commands from the shard's mailbox.  Out: for each that wants one, a reply. Nobody may be listening any more.
//! Always: at most [`COMMANDS_PER_TURN_MAX`] in a turn. What another configuration changed is published before it is said to
//! be taken, so that who was told so finds it in the counters.
#![forbid(unsafe_code)]

use std::sync::mpsc::SyncSender;

use engine::{CallView, Engine, EngineRefused, FunctionSpec, InvocationId, Nanos, TenantSpec};

use super::Shard;
use crate::kept;
use crate::net::Desk;
use crate::workers::{FunctionRing, Workers};

/// Control commands handled in one turn.
const COMMANDS_PER_TURN_MAX: usize = 16;

/// What the rest of the process tells a shard.
#[derive(Debug)]
pub enum Command {
    /// Finish what was begun, then end.
    Drain,
    /// Go on with another configuration.
    Reconfigure(Box<Reconfigure>),
    /// Tell the shim to look which processes are to be kept.
    ReloadShim {
        /// Is told when that was done. Nobody may be listening.
        done: SyncSender<()>,
    },
    /// Say where a call is.
    Explain {
        /// Which.
        invocation: InvocationId,
        /// Is told; nothing if no call has this id any more. Nobody may be listening.
        done: SyncSender<Option<Explained>>,
    },
    /// Something about the calls that are kept beyond their answers.
    Kept(kept::Order),
}

/// A call, with what only its shard can add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The call.
    pub view: CallView,
    /// The name of its function.
    pub function: String,
    /// The process that has it.
    pub process_id: Option<u32>,
    /// When the shard looked.
    pub looked_at: Nanos,
}

/// What an engine is to go on with.
#[derive(Debug)]
pub struct Reconfigure {
    /// All tenants, known ones in their places.
    pub tenants: Vec<TenantSpec>,
    /// All functions by id; none where one was removed.
    pub functions: Vec<Option<FunctionSpec>>,
    /// What the workers of each function are given from now on.
    pub rings: Vec<FunctionRing>,
    /// Is told what became of it. Nobody may be listening any more.
    pub done: SyncSender<Result<(), EngineRefused>>,
}

impl Shard {
    /// Takes what was asked, and says how much that was and whether the shard is to end.
    pub(super) fn take_commands(&mut self) -> (usize, bool) {
        let mut is_drain_asked = false;
        let mut taken: Option<SyncSender<_>> = None;
        let now = self.turn_at;
        let desk = Desk {
            now,
            engine: &mut self.engine,
            payloads: &mut self.payloads,
            stats: &mut self.stats,
            tape: &mut self.tape,
        };
        let work = self.commands.take(COMMANDS_PER_TURN_MAX, |command| match command {
            Command::Drain => is_drain_asked = true,
            Command::Reconfigure(asked) => {
                let Reconfigure { tenants, functions, rings, done } = *asked;
                match desk.engine.handle_reconfigure(tenants, functions) {
                    Ok(()) => {
                        desk.stats.respecify(desk.engine.functions().len(), &rings);
                        self.attach.respecify(&desk, rings);
                        // One at a time: the next is asked for when this one is taken.
                        taken = Some(done);
                    }
                    Err(refused) => drop(done.try_send(Err(refused))),
                }
            }
            Command::ReloadShim { done } => {
                self.attach.reload_shim(now);
                let _ = done.try_send(());
            }
            Command::Explain { invocation, done } => {
                desk.engine.look_at_queues(now);
                let _ = done.try_send(explain(desk.engine, &self.workers, now, invocation));
            }
            Command::Kept(order) => {
                let replay = |call: &_| self.local.replay(now, call);
                // Who asked may have given up waiting.
                let _ = order.reply.send(self.kept.obey(order.shelf, order.wish, replay));
            }
        });
        if let Some(done) = taken {
            self.publish_now();
            let _ = done.try_send(Ok(()));
        }
        (work, is_drain_asked)
    }
}

/// What is known of one call, for the person who asks.
fn explain(engine: &Engine, workers: &Workers, now: Nanos, invocation: InvocationId) -> Option<Explained> {
    let view = engine.call_view(invocation)?;
    let function = engine.function_view(view.function)?.name.to_owned();
    let seat = view.worker.and_then(|worker| workers.seats().find(|seat| seat.id == worker));
    Some(Explained { view, function, process_id: seat.map(|seat| seat.process_id), looked_at: now })
}

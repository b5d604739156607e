//! A glommio executor: the shard's loop is one of its tasks, and control work or async front-ends run beside it.
//!
//! Always: after a turn the executor may run other tasks, if there are any that can run.
//! Careful: when the shard sleeps in its own ring, the whole executor sleeps. Tasks beside it that wait for the
//! executor's own I/O are looked at again when the shard wakes, at the latest after [`NAP`].
#![forbid(unsafe_code)]

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::Place;
use crate::shard::ShardRefused;

/// The longest the shard sleeps here at one time.
pub const NAP: Duration = Duration::from_millis(20);

/// Turns between two looks at the executor's other tasks while there is work: yielding costs about as much as an empty
/// turn, and a task beside the data path can wait for some tens of microseconds.
const TURNS_PER_YIELD: u32 = 8;

/// Starts the thread.
pub fn start(place: Place) -> io::Result<JoinHandle<()>> {
    let placement = match place.pin {
        Some(processor) => Placement::Fixed(processor as usize),
        None => Placement::Unbound,
    };
    std::thread::Builder::new().name(place.name()).spawn(move || {
        // Asked first, because the executor panics where it is refused.
        if let Err(refused) = crate::io::probe() {
            let _ = place.started.send(Err(ShardRefused::Glommio(refused)));
            return;
        }
        let executor = match LocalExecutorBuilder::new(placement).make() {
            Ok(executor) => executor,
            Err(error) => {
                let errno = rustix::io::Errno::from_io_error(&io::Error::other(error.to_string()));
                let refused = crate::io::SetupRefused::Other(errno.unwrap_or(rustix::io::Errno::NOSYS));
                let _ = place.started.send(Err(ShardRefused::Glommio(refused)));
                return;
            }
        };
        executor.run(async move {
            let Some(mut shard) = place.make() else { return };
            let mut turns = 0;
            while !shard.has_ended() {
                if shard.turn() == 0 {
                    shard.rest_at_most(NAP);
                    turns = TURNS_PER_YIELD;
                }
                turns += 1;
                if turns >= TURNS_PER_YIELD {
                    turns = 0;
                    glommio::executor().yield_task_queue_now().await;
                }
            }
        });
    })
}

//! Whether a server that has nothing to do still answers: asked now and then by a thread of its own, and if it does not, again and
//! again, the relay ends, and the shim starts another with a fresh program.
//!
//! Always: what is asked is the readiness path, and never a call: a call is somebody's, and costs.
//! Always: judged is only a server that had no call while it was asked. One that is busy may be slow to answer anything else; for calls
//! there are time-outs.
//! Always: the relay ends between two calls; what it was sent and has not begun goes to another process.
//! Why only over HTTP: no other contract has a question that is not a call. Of the others it is seen when they end, and when a call
//! takes too long.
//!
//! ```text
//!   no server, or it is not ready ── ready ──▶ asked every interval ── it fails, `failures` times in a row ──▶ the relay ends
//! ```

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use quickfire_client::serve::Stop;

use crate::http::Address;
use crate::plan::HealthPlan;
use crate::reactor::Reactor;

/// The server that is watched.
#[derive(Default)]
pub struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    /// None: there is no server, or it was not ready yet.
    address: Option<Address>,
    /// Grows whenever a call begins or ends, and a server comes or goes.
    changes: u64,
    is_calling: bool,
    is_condemned: bool,
}

impl Health {
    /// There is a server that was ready once; none: it is no more.
    pub fn watch(&self, address: Option<Address>) {
        let mut state = self.state();
        state.address = address;
        state.changes += 1;
    }

    /// A call begins, or ends.
    pub fn note_call(&self, is_calling: bool) {
        let mut state = self.state();
        state.is_calling = is_calling;
        state.changes += 1;
    }

    /// The relay ends because of its server.
    pub fn is_condemned(&self) -> bool {
        self.state().is_condemned
    }

    /// Asks from now on. `ask` tells what is wrong with the server.
    pub fn start(
        self: &Arc<Self>,
        plan: HealthPlan,
        stop: Stop,
        ask: impl Fn(&Reactor, &Address, Duration) -> Result<(), String> + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let health = Arc::clone(self);
        let reactor = Reactor::new().map_err(io::Error::other)?;
        std::thread::Builder::new().name("relay-health".into()).spawn(move || {
            let mut failures = 0;
            while failures < plan.failures_max {
                // How often is asked, and no wait for anything.
                std::thread::sleep(plan.interval);
                if stop.is_asked() {
                    return;
                }
                failures = health.ask_once(failures, |address| ask(&reactor, address, plan.timeout));
            }
            health.state().is_condemned = true;
            stop.stop();
        })
    }

    /// How many failures in a row there are by then.
    fn ask_once(&self, failures: u32, ask: impl FnOnce(&Address) -> Result<(), String>) -> u32 {
        let before = {
            let state = self.state();
            state.address.clone().filter(|_| !state.is_calling).map(|address| (address, state.changes))
        };
        // Neither good nor bad: one that runs a call, or that is just starting.
        let Some((address, changes)) = before else { return failures };
        match ask(&address) {
            Ok(()) => 0,
            Err(_) if self.state().changes != changes => failures,
            Err(why) => {
                eprintln!("relay: not healthy, {} in a row: {why}", failures + 1);
                failures + 1
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Address = Address::Port(1);

    #[test]
    fn only_a_server_that_had_nothing_to_do_is_judged() {
        let health = Health::default();
        let bad = |_: &Address| Err("no answer".to_owned());
        assert_eq!(health.ask_once(2, |_| unreachable!("there is no server")), 2);
        health.watch(Some(SERVER));
        assert_eq!(health.ask_once(2, bad), 3);
        assert_eq!(health.ask_once(2, |_| Ok(())), 0);
        health.note_call(true);
        assert_eq!(health.ask_once(2, |_| unreachable!("it runs a call")), 2);
        health.note_call(false);
        // A call came and went meanwhile; another server came.
        let during = |change: &dyn Fn()| {
            health.ask_once(2, |_| {
                change();
                Err("slow".into())
            })
        };
        assert_eq!(during(&|| [true, false].iter().for_each(|is_calling| health.note_call(*is_calling))), 2);
        assert_eq!(during(&|| health.watch(Some(SERVER))), 2);
        assert_eq!(during(&|| ()), 3);
        health.watch(None);
        assert_eq!(health.ask_once(2, |_| unreachable!("it is gone")), 2);
    }

    #[test]
    fn a_server_that_fails_in_a_row_ends_its_relay() {
        let health = Arc::new(Health::default());
        health.watch(Some(SERVER));
        let (stop, answers) =
            (Stop::new(), Mutex::new([false, false, true, false, false, false].into_iter()));
        let plan = HealthPlan {
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(1),
            failures_max: 3,
        };
        let ask = move |_: &Reactor, _: &Address, _| match answers.lock().unwrap().next() {
            Some(true) => Ok(()),
            Some(false) => Err("no".into()),
            None => panic!("asked once too often"),
        };
        health.start(plan, stop.clone(), ask).unwrap().join().unwrap();
        assert!(stop.is_asked() && health.is_condemned());
    }
}

//! What the router did, told to the oracle and to the rules in the order in which it did it.

use protocol::Status;

use super::World;
use crate::contract::{Broken, Contract};
use crate::oracle::{BackOff, CallKey, Seen};
use crate::router::{Did, Stand};
use crate::shim::ProcessId;

impl World {
    pub(super) fn account(&mut self, did: Vec<Did>) -> Result<(), Broken> {
        let epoch = self.epoch;
        let key_of = |id| CallKey { epoch, id };
        for thing in did {
            match thing {
                Did::Pushed(id, process) => self.pushed(key_of(id), process)?,
                Did::Hedged { call, twin, process } => self.hedged(key_of(call), key_of(twin), process)?,
                Did::Answered(id, seen) => self.answered(key_of(id), seen)?,
                Did::GivenBack(id) => {
                    self.note_given_back(key_of(id));
                    self.oracle.given_back(key_of(id));
                }
                Did::Wanted { function, count, leaving } => self.take_word(function, count, leaving)?,
                Did::TakenBack(id) => self.oracle.taken_back(key_of(id)),
                Did::Stands(id, stand) => self.stands(key_of(id), stand)?,
                Did::Ran { id, has_failed } => {
                    let key = key_of(id);
                    let call = self.oracle.call(key, "run")?;
                    let (number, admitted_at_ns) = (call.function, call.admitted_at_ns);
                    let rules = &mut self.rules[usize::from(key.shard())];
                    let opens = rules.ran(self.now_ns, number, admitted_at_ns, has_failed);
                    self.totals.breakers_opened += u64::from(opens);
                }
                Did::Stopped(process) => self.stop_process(process),
                Did::Killed(process) => {
                    self.note(|_| format!("the router kills {process:?}"));
                    self.end_process(process);
                }
                Did::Quarantined(process) => {
                    self.note(|_| format!("{process:?} is quarantined"));
                    self.totals.quarantines += 1;
                    let is_known_liar = self.liars.contains(&process);
                    self.options.judge.check(Contract::HonestWorkers, is_known_liar, || {
                        format!("{process:?} is honest and was quarantined")
                    })?;
                }
            }
        }
        self.oracle.settled();
        Ok(())
    }

    fn pushed(&mut self, key: CallKey, process: ProcessId) -> Result<(), Broken> {
        self.note(|_| format!("pushed {:?} to {process:?}", key.id));
        self.oracle.pushed(self.now_ns, key, process)?;
        let (is_liar, is_alive) = (self.liars.contains(&process), self.processes.contains_key(&process));
        let call = self.oracle.call(key, "pushed")?;
        call.has_begun = false;
        call.holder_scribbled |= is_liar;
        call.holder_died |= !is_alive;
        let (number, is_retry) = (call.function, std::mem::take(&mut call.is_retry));
        self.rules[usize::from(key.shard())].pushed(number, is_retry);
        Ok(())
    }

    fn hedged(&mut self, key: CallKey, twin: CallKey, process: ProcessId) -> Result<(), Broken> {
        self.note(|_| format!("a second attempt at {:?}, {:?}, goes to {process:?}", key.id, twin.id));
        self.totals.hedges += 1;
        self.oracle.hedged(self.now_ns, key, twin, process)?;
        let number = self.oracle.call(key, "hedged")?.function;
        self.oracle.call(key, "hedged")?.holder_died |= !self.processes.contains_key(&process);
        self.rules[usize::from(key.shard())].hedged(self.options.judge, number)
    }

    fn answered(&mut self, key: CallKey, seen: Seen) -> Result<(), Broken> {
        self.note(|_| format!("answered {:?}: {:?}", key.id, seen.status));
        self.open.retain(|(_, open)| *open != key);
        if seen.status == Status::WouldDeadlock {
            self.check_told(key)?;
        }
        if seen.status == Status::NoWorker {
            let number = self.oracle.call(key, "answered")?.function;
            self.check_given_up(key, number)?;
        }
        self.oracle.answered(self.now_ns, key, seen)?;
        self.go_on(key);
        Ok(())
    }

    /// A call stands elsewhere, perhaps to be run once more.
    fn stands(&mut self, key: CallKey, stand: Stand) -> Result<(), Broken> {
        self.note(|_| format!("{:?} stands {stand:?}", key.id));
        let number = self.oracle.call(key, "moved")?.function;
        let retry = self.functions[number as usize].spec.policy.retry;
        let back_off = BackOff { first: retry.backoff, max: retry.backoff_max };
        if let Some(number) = self.oracle.stands(self.now_ns, key, stand, back_off)? {
            self.rules[usize::from(key.shard())].retried(self.options.judge, number)?;
            self.totals.retries += 1;
        }
        Ok(())
    }
}

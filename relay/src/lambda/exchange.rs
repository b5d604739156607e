//! Where the conversation with one program stands.
//!
//! ```text
//!             next                      run                  response, error
//!   Busy ─────────────▶ Waiting ─────────────▶ Running ─────────────────────▶ Busy
//!     │ init/error (before the first `next`)      │ next, or an answer to another call
//!     └──▶ a fault                                └──▶ a fault
//! ```
//! Always: the call that runs is answered once; an answer while none runs is refused, and remembered as a fault of the program.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::fault::{Failed, Fault, found};

/// A call as the program gets it.
#[derive(Debug)]
pub struct Event {
    /// The request's id.
    pub id: String,
    /// When its time is over, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// The trace, as X-Ray writes it.
    pub trace: Option<String>,
    /// The function's name as AWS writes it.
    pub function_arn: String,
    /// The event itself.
    pub payload: Vec<u8>,
}

/// Why the API refuses a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// The conversation, between the relay and the API's connections.
#[derive(Default)]
pub struct Shared {
    conversation: Mutex<Conversation>,
    changed: Notify,
}

#[derive(Default)]
struct Conversation {
    state: State,
    /// It has asked for a call before.
    is_initialised: bool,
    /// How the call that ran has ended.
    answer: Option<Result<Vec<u8>, Failed>>,
    /// What broke while no call ran.
    fault: Option<Fault>,
    /// The bound of the call that runs.
    result_size_max: usize,
}

#[derive(Default)]
enum State {
    /// The program does what it does before it asks for a call.
    #[default]
    Busy,
    /// It asks for a call.
    Waiting(oneshot::Sender<Event>),
    /// It runs the call of this id.
    Running { id: String },
}

impl Shared {
    /// Waits until the program asks for a call.
    pub async fn asked_for_a_call(&self) -> Result<(), Fault> {
        self.until(|conversation| {
            if let Some(fault) = conversation.fault.take() {
                return Some(Err(fault));
            }
            conversation.is_waiting().then_some(Ok(()))
        })
        .await
    }

    /// Gives it a call, and waits for the answer.
    pub async fn run(&self, event: Event, result_size_max: usize) -> Result<Vec<u8>, Failed> {
        self.lock().give(event, result_size_max);
        self.until(|conversation| conversation.answer.take()).await
    }

    /// Whether nothing was broken since the last call.
    pub fn check_fit(&self) -> Result<(), Fault> {
        self.lock().fault.take().map_or(Ok(()), Err)
    }

    /// The most bytes of the answer that is awaited.
    pub fn result_size_max(&self) -> usize {
        self.lock().result_size_max
    }

    /// The program asks for a call, which will come this way.
    pub fn next(&self) -> Result<oneshot::Receiver<Event>, Refused> {
        self.change(Conversation::next)
    }

    /// The program answers a call.
    pub fn answer(&self, id: &str, answer: Result<Vec<u8>, Failed>) -> Result<(), Refused> {
        self.change(|conversation| conversation.answer(id, answer))
    }

    /// The program cannot start.
    pub fn init_error(&self, told: &[u8]) -> Result<(), Refused> {
        self.change(|conversation| conversation.init_error(told))
    }

    async fn until<T>(&self, mut ready: impl FnMut(&mut Conversation) -> Option<T>) -> T {
        loop {
            if let Some(value) = ready(&mut self.lock()) {
                return value;
            }
            self.changed.notified().await;
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Conversation) -> T) -> T {
        let changed = change(&mut self.lock());
        // Kept for a relay that is not waiting at this moment.
        self.changed.notify_one();
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation {
    /// Whoever asked and went away does not wait.
    fn is_waiting(&self) -> bool {
        matches!(&self.state, State::Waiting(asker) if !asker.is_closed())
    }

    fn give(&mut self, event: Event, result_size_max: usize) {
        let running = State::Running { id: event.id.clone() };
        self.result_size_max = result_size_max;
        if let State::Waiting(asker) = std::mem::replace(&mut self.state, running) {
            // Who goes away at this very moment has not answered either, and is found out by its exit or the call's end.
            let _ = asker.send(event);
        }
    }

    fn next(&mut self) -> Result<oneshot::Receiver<Event>, Refused> {
        match &self.state {
            State::Running { .. } => {
                self.state = State::Busy;
                self.answer = Some(Err(Fault::NotAnswered.into()));
                Err(Refused("the call before has not been answered"))
            }
            State::Waiting(_) if self.is_waiting() => Err(Refused("the next call is asked for already")),
            State::Waiting(_) | State::Busy => {
                let (asker, event) = oneshot::channel();
                self.state = State::Waiting(asker);
                self.is_initialised = true;
                Ok(event)
            }
        }
    }

    fn answer(&mut self, id: &str, answer: Result<Vec<u8>, Failed>) -> Result<(), Refused> {
        match &self.state {
            State::Running { id: running } if running == id => {
                self.state = State::Busy;
                self.answer = Some(answer);
                Ok(())
            }
            State::Running { id: running } => {
                let fault = Fault::WrongId { found: found(id.as_bytes()), expected: running.clone() };
                self.state = State::Busy;
                self.answer = Some(Err(fault.into()));
                Err(Refused("this call does not run"))
            }
            State::Busy | State::Waiting(_) => {
                self.fault = Some(Fault::TwoAnswers(found(id.as_bytes())));
                Err(Refused("no call runs"))
            }
        }
    }

    fn init_error(&mut self, told: &[u8]) -> Result<(), Refused> {
        if self.is_initialised {
            return Err(Refused("the start is over"));
        }
        self.fault = Some(Fault::InitError(found(told)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Event {
        Event { id: id.into(), deadline_ms: 0, trace: None, function_arn: String::new(), payload: vec![] }
    }

    fn answered(conversation: &mut Conversation) -> Result<Vec<u8>, String> {
        match conversation.answer.take().expect("an answer") {
            Ok(result) => Ok(result),
            Err(Failed::Function(bytes)) => Err(String::from_utf8(bytes).unwrap()),
            Err(Failed::Fault(fault)) => Err(fault.to_string()),
        }
    }

    #[test]
    fn a_call_goes_to_who_asked_and_its_answer_comes_back_once() {
        let mut conversation = Conversation::default();
        for id in ["a", "b"] {
            let mut asker = conversation.next().unwrap();
            conversation.give(event(id), 10);
            assert_eq!(asker.try_recv().unwrap().id, id);
            assert_eq!(conversation.answer(id, Ok(b"x".to_vec())), Ok(()));
            assert_eq!(answered(&mut conversation), Ok(b"x".to_vec()));
        }
        // Expect: a second answer is refused, and remembered.
        assert_eq!(conversation.answer("b", Ok(vec![])), Err(Refused("no call runs")));
        assert!(conversation.fault.take().unwrap().to_string().starts_with("two_answers: "));
    }

    #[test]
    fn an_answer_to_another_call_breaks_the_conversation() {
        let mut conversation = Conversation::default();
        let _asker = conversation.next().unwrap();
        conversation.give(event("b"), 10);
        assert_eq!(conversation.answer("a", Ok(vec![])), Err(Refused("this call does not run")));
        assert!(
            answered(&mut conversation).unwrap_err().starts_with("wrong_id: the answer has the id \"a\"")
        );
    }

    #[test]
    fn who_asks_for_the_next_call_has_to_answer_the_one_before() {
        let mut conversation = Conversation::default();
        let _asker = conversation.next().unwrap();
        conversation.give(event("a"), 10);
        assert!(conversation.next().is_err());
        assert!(answered(&mut conversation).unwrap_err().starts_with("not_answered: "));
    }

    #[test]
    fn one_asks_at_a_time_and_who_went_away_does_not_count() {
        let mut conversation = Conversation::default();
        let asker = conversation.next().unwrap();
        assert_eq!(conversation.next().err(), Some(Refused("the next call is asked for already")));
        drop(asker);
        assert!(!conversation.is_waiting());
        let _asker = conversation.next().unwrap();
        assert!(conversation.is_waiting());
    }

    #[test]
    fn a_start_can_fail_only_before_it_is_over() {
        let mut conversation = Conversation::default();
        assert_eq!(conversation.init_error(b"no model"), Ok(()));
        assert!(conversation.fault.take().unwrap().to_string().starts_with("init_error: "));
        let _asker = conversation.next().unwrap();
        assert_eq!(conversation.init_error(b"late"), Err(Refused("the start is over")));
        assert!(conversation.fault.is_none());
    }
}

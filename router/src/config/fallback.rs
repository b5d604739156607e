//! What stands in for a function whose breaker is open, as the operator writes it: one text, so that there can't be two.

use protocol::limits;
use shm_ring::layout::PAGE_SIZE;

use super::problem::ProblemKind;

/// The longest static answer: more than a notice needs, and it fits wherever an answer can go.
pub const ANSWER_SIZE_MAX: usize = 2048;

const _: () = assert!(ANSWER_SIZE_MAX <= limits::payload_size_max(limits::FRAME_SIZE_MAX_FLOOR, 0) as usize);
const _: () = assert!(ANSWER_SIZE_MAX <= PAGE_SIZE, "the smallest region of a client's ring");

/// The value of the option `fallback`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// `none`: the refusal.
    None,
    /// `function:NAME`: the same payload goes to that function.
    Function(String),
    /// `answer:TEXT`: these bytes, with the status ok.
    Answer(String),
}

impl Fallback {
    /// What is allowed, for error texts and the reference page.
    pub(super) fn allowed() -> String {
        format!("none, function:NAME, or answer:TEXT of at most {ANSWER_SIZE_MAX} bytes")
    }

    pub(super) fn read(text: &str) -> Result<Fallback, ProblemKind> {
        match text.split_once(':') {
            None if text == "none" => Ok(Fallback::None),
            Some(("function", name)) if !name.is_empty() => Ok(Fallback::Function(name.to_owned())),
            Some(("answer", answer)) if answer.len() <= ANSWER_SIZE_MAX => {
                Ok(Fallback::Answer(answer.to_owned()))
            }
            _ => Err(ProblemKind::NotAllowed {
                found: text.chars().take(80).collect(),
                allowed: Fallback::allowed(),
            }),
        }
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fallback::None => f.write_str("none"),
            Fallback::Function(name) => write!(f, "function:{name}"),
            Fallback::Answer(answer) => write!(f, "answer:{answer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_everything_else_refused() {
        for text in ["none", "function:spare", "answer:", "answer:try: later"] {
            assert_eq!(Fallback::read(text).map(|fallback| fallback.to_string()), Ok(text.to_owned()));
        }
        let long = format!("answer:{}", "x".repeat(ANSWER_SIZE_MAX + 1));
        for text in ["", "spare", "function:", "file:x", long.as_str()] {
            assert!(Fallback::read(text).is_err(), "{text}");
        }
    }
}

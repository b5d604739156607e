//! `moderate`: says whether a text contains terms of a list, and where.
//!
//! ```json
//! {"flagged":true,"terms":[{"at":8,"term":"free money"}],"terms_count":1,"words_count":5}
//! ```
//!
//! `at` is the byte at which the term starts. Words are runs of letters and digits, compared without regard to case;
//! a term of several words matches whatever stands between them, so that "free -- MONEY" is found and "scampi" is
//! not. At most [`LISTED_MAX`] terms are listed; `terms_count` says how many there were.
//!
//! A list of words is a poor judge of what people mean. This shows how to write a function, not how to moderate.

use std::collections::HashMap;
use std::sync::LazyLock;

use quickfire_client::serve::{Call, FunctionError, Reply};
use serde_json::json;

/// The list: one term in a line, `#` for remarks.
const TERMS: &str = include_str!("moderate_terms.txt");
/// A text may consist of nothing but terms; its verdict still fits a small result.
pub const LISTED_MAX: usize = 100;

/// The terms, by their first word.
static TERMS_BY_FIRST_WORD: LazyLock<HashMap<String, Vec<Term>>> = LazyLock::new(|| {
    let mut by_first_word: HashMap<String, Vec<Term>> = HashMap::new();
    for line in TERMS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = words(line).map(|word| word.folded);
        let Some(first) = words.next() else { continue };
        by_first_word.entry(first).or_default().push(Term { text: line.trim(), rest: words.collect() });
    }
    by_first_word
});

/// A term of the list.
struct Term {
    /// As it is listed.
    text: &'static str,
    /// Its words but the first, folded.
    rest: Vec<String>,
}

/// One place in a text where a term was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Hit {
    /// The term, as it is listed.
    pub term: &'static str,
    /// The byte of the text at which it starts.
    pub at: usize,
}

/// What is to be said about a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first [`LISTED_MAX`] terms found, in the order of the text.
    pub listed: Vec<Hit>,
    /// All of them.
    pub terms_count: usize,
    /// Words in the text.
    pub words_count: usize,
}

/// The function.
pub fn handle(call: &Call<'_>, reply: &mut Reply) -> Result<(), FunctionError> {
    let text = std::str::from_utf8(call.payload())?;
    reply.write(moderate(text).to_json().as_bytes());
    Ok(())
}

/// Looks for the listed terms in `text`.
pub fn moderate(text: &str) -> Verdict {
    let words: Vec<Word> = words(text).collect();
    let mut verdict = Verdict { listed: Vec::new(), terms_count: 0, words_count: words.len() };
    for (index, word) in words.iter().enumerate() {
        let Some(terms) = TERMS_BY_FIRST_WORD.get(&word.folded) else { continue };
        let following = &words[index + 1..];
        for term in terms.iter().filter(|term| starts_with(following, &term.rest)) {
            verdict.terms_count += 1;
            if verdict.listed.len() < LISTED_MAX {
                verdict.listed.push(Hit { term: term.text, at: word.at });
            }
        }
    }
    verdict
}

impl Verdict {
    fn to_json(&self) -> String {
        let terms: Vec<_> = self.listed.iter().map(|hit| json!({ "term": hit.term, "at": hit.at })).collect();
        json!({
            "flagged": self.terms_count > 0,
            "terms": terms,
            "terms_count": self.terms_count,
            "words_count": self.words_count,
        })
        .to_string()
    }
}

fn starts_with(words: &[Word], term: &[String]) -> bool {
    words.len() >= term.len() && words.iter().zip(term).all(|(word, term_word)| word.folded == *term_word)
}

/// A word of a text.
struct Word {
    at: usize,
    folded: String,
}

/// The words of a text: runs of letters and digits, in lower case.
fn words(text: &str) -> impl Iterator<Item = Word> {
    let is_between = |c: char| !c.is_alphanumeric();
    text.split(is_between).filter(|word| !word.is_empty()).map(|word| Word {
        at: word.as_ptr() as usize - text.as_ptr() as usize,
        folded: word.chars().flat_map(char::to_lowercase).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMENT: &str = include_str!("../samples/comment.txt");

    fn check(text: &str, expected: &[(&'static str, usize)]) {
        let expected: Vec<Hit> = expected.iter().map(|&(term, at)| Hit { term, at }).collect();
        assert_eq!(moderate(text).listed, expected, "{text:?}");
    }

    #[test]
    fn terms_are_found_as_whole_words_in_any_case() {
        check("A scam!", &[("scam", 2)]);
        check("SCAM, Scam", &[("scam", 0), ("scam", 6)]);
        check("scampi and scammed", &[]);
        check("", &[]);
    }

    #[test]
    fn terms_of_several_words_are_found_whatever_stands_between() {
        check("get free money now", &[("free money", 4)]);
        check("FREE --\nmoney", &[("free money", 0)]);
        check("free of money", &[]);
        check("money is free", &[]);
        check("free", &[]);
    }

    #[test]
    fn offsets_are_bytes_of_the_text_as_it_came() {
        check("größte SCAM", &[("scam", 9)]);
        // Given a letter that is longer in lower case, expect that it moves nothing
        check("İİ scam", &[("scam", 5)]);
    }

    #[test]
    fn a_text_of_nothing_but_terms_is_counted_whole_and_listed_in_part() {
        let verdict = moderate(&"scam ".repeat(1_000));
        assert_eq!((verdict.listed.len(), verdict.terms_count), (LISTED_MAX, 1_000));
        assert!(verdict.to_json().len() < 8 << 10);
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error_of_the_function() {
        let refused = handle(&Call::with_payload(&[0xFF, 0xFE]), &mut Reply::new()).unwrap_err();
        assert!(refused.bytes().starts_with(b"invalid utf-8"));
    }

    #[test]
    fn the_sample_is_flagged_and_the_verdict_is_json() {
        let verdict: serde_json::Value = serde_json::from_str(&moderate(COMMENT).to_json()).unwrap();
        assert_eq!(verdict["flagged"], true);
        for hit in verdict["terms"].as_array().unwrap() {
            let at = usize::try_from(hit["at"].as_u64().unwrap()).unwrap();
            let first_word = hit["term"].as_str().unwrap().split(' ').next().unwrap();
            assert!(COMMENT[at..].to_lowercase().starts_with(first_word));
        }
        let clean = moderate("what a lovely picture").to_json();
        assert_eq!(clean, r#"{"flagged":false,"terms":[],"terms_count":0,"words_count":4}"#);
    }
}

//! A profile of callgrind's, as far as it is needed: instructions in all, by stage with everything a stage calls, and by
//! function and source file without.
//!
//! In: the text that `valgrind --tool=callgrind` writes.  Out: [`Counts`].
//! Always: names are written out once in a profile and then only by number: `fn=(12) turn::decode`, `fn=(12)`.
//! Why by file too: nearly everything is inlined into a few functions, and callgrind says of every line from which file it
//! is. Files are small here.

use std::collections::BTreeMap;

use super::programs::Program;

/// Instructions in all, by stage, by function, and by source file.
#[derive(Debug, Default, PartialEq)]
pub struct Counts {
    pub total: u64,
    pub stages: BTreeMap<String, u64>,
    pub functions: BTreeMap<String, u64>,
    pub files: BTreeMap<String, u64>,
}

/// Reads a profile. `None`: it has no total.
pub fn parse(profile: &str, program: &Program) -> Option<Counts> {
    let (mut functions, mut files) = (Names::default(), Names::default());
    let mut counts = Counts::default();
    let mut total = None;
    let mut function = String::new();
    let mut stage: Option<&str> = None;
    // Lines of a function are from its own file (`fl`) unless they were inlined (`fi`, and `fe` for the way back).
    let mut file = String::new();
    let mut is_call = false;
    for line in profile.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        match key {
            "fn" => {
                function = functions.resolve(value);
                stage =
                    program.stages.iter().copied().find(|stage| is_stage(&function, program.example, stage));
            }
            "cfn" => _ = functions.resolve(value),
            "fl" | "fi" | "fe" => file = files.resolve(value),
            "cfi" | "cfl" => _ = files.resolve(value),
            // The next line is the cost of the calls, which their callee has too.
            "calls" => is_call = true,
            _ if line.starts_with(|first: char| "+-*0123456789".contains(first)) => {
                // Instruction, line, cost.
                let cost = line.split_whitespace().next_back().and_then(|cost| cost.parse::<u64>().ok());
                let cost = cost.unwrap_or(0);
                if let Some(stage) = stage {
                    *counts.stages.entry(stage.into()).or_default() += cost;
                }
                if !std::mem::take(&mut is_call) {
                    *counts.functions.entry(function.clone()).or_default() += cost;
                    *counts.files.entry(file.clone()).or_default() += cost;
                }
            }
            _ => {
                let count = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "));
                total = total.or(count.and_then(|count| count.trim().parse().ok()));
            }
        }
    }
    Some(Counts { total: total?, ..counts })
}

#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn resolve(&mut self, written: &str) -> String {
        let (number, name) = written.split_once(' ').unwrap_or((written, ""));
        if !name.is_empty() {
            self.0.insert(number.into(), name.into());
        }
        self.0.get(number).cloned().unwrap_or_default()
    }
}

/// `turn::decode`, with or without the hash that the compiler adds.
fn is_stage(name: &str, example: &str, stage: &str) -> bool {
    name.strip_prefix(example)
        .and_then(|rest| rest.strip_prefix("::"))
        .and_then(|rest| rest.strip_prefix(stage))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::programs::PROGRAMS;

    const PROFILE: &str = "events: Ir\n\nfl=(1) turn.rs\nfn=(1) turn::main\n0x10 10 5\ncfn=(2) turn::decode\n\
                           calls=2 0x40 20\n0x13 11 700\n\nfn=(2)\n0x40 20 300\nfi=(2) header.rs\n+4 +1 100\n\
                           fe=(1)\ncfi=(3) string.h\ncfn=(3) memcpy\ncalls=4 0x90 0\n* * 50\n\n\
                           fl=(3)\nfn=(3)\n0x90 0 50\n\n\
                           fl=(1)\nfn=(4) turn::reply::h0123456789abcdef\n0xa0 30 7\n\n\
                           fn=(5) turn::decoder\n0xb0 9 9\n\ntotals: 1221\n";

    #[test]
    fn a_stage_has_its_own_cost_and_that_of_its_calls() {
        let counts = parse(PROFILE, &PROGRAMS[0]).unwrap();
        assert_eq!(counts.total, 1221);
        assert_eq!(counts.stages, BTreeMap::from([("decode".into(), 450), ("reply".into(), 7)]));
        assert_eq!(parse("events: Ir\n", &PROGRAMS[0]), None);
    }

    #[test]
    fn a_line_counts_for_the_file_it_was_inlined_from_and_a_call_only_for_the_callee() {
        let counts = parse(PROFILE, &PROGRAMS[0]).unwrap();
        let expected = [("header.rs", 100), ("string.h", 50), ("turn.rs", 5 + 300 + 7 + 9)];
        assert_eq!(counts.files, expected.map(|(file, count)| (file.to_string(), count)).into());
        assert_eq!((counts.functions["turn::main"], counts.functions["turn::decode"]), (5, 400));
    }
}

//! Stage 6 of 8: a function as the shim knows it: what it is by now, what served before, and what became of its processes.
//!
//! ```text
//!   another edition is configured     places of the new one are made beside those of the one that serves
//!   the router: "the new one serves"  the others leave: each ends when its calls are done
//!   the new one never serves          nothing else happens: the one that serves is kept up, as ever
//!   a third before the second serves  the second is given up
//!   removed                           all leave
//! ```
//! How many places of an edition there are to be in a shard is the router's word too, between the least and the most that is
//! configured. It may speak of an edition before the configuration with it has been read.
//! Always: the edition that serves in a shard is the router's word. The shim cannot know it by itself: a process that lives
//! need not have attached.

use std::rc::Rc;
use std::time::Duration;

use crate::config::FunctionConfig;
use crate::status::LastExit;

/// See above.
pub struct Function {
    /// As configured by now; of a removed one, as it was last.
    pub config: Rc<FunctionConfig>,
    /// No configuration names it any more. It is remembered, because its name may come back.
    pub is_removed: bool,
    /// By shard, the edition that the router last said to serve.
    serving: Vec<Option<u64>>,
    /// By shard, how many places of which edition the router last said are to be kept: of the one in force, of the one that
    /// serves, and of the one said last.
    told: Vec<Vec<(u64, u32)>>,
    /// The longest that calls of it were ever given.
    pub leave_timeout: Duration,
    pub tally: Tally,
}

/// What is counted for one function.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub starts: u64,
    pub exits: u64,
    pub spawn_failures: u64,
    pub memory_kills: u64,
    pub processes_refused: u64,
    pub last_exit: Option<LastExit>,
}

/// What is to become of the places of an edition in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// They are kept up: it is the edition in force, or the one that serves until that does.
    Kept,
    /// They leave, and soon if they are not known to have served: an edition that was replaced before. Not at once: the word
    /// that it does may be on its way, and then it is kept.
    Spent,
    /// They leave.
    Leaves,
}

impl Function {
    pub fn new(config: FunctionConfig, shards: u32) -> Function {
        Function {
            leave_timeout: config.leave_timeout,
            config: Rc::new(config),
            is_removed: false,
            serving: vec![None; shards as usize],
            told: vec![Vec::new(); shards as usize],
            tally: Tally::default(),
        }
    }

    /// Goes on as this from now on.
    pub fn take(&mut self, config: FunctionConfig) {
        self.leave_timeout = self.leave_timeout.max(config.leave_timeout);
        self.config = Rc::new(config);
        self.is_removed = false;
    }

    /// The router says that this edition serves in its shard.
    pub fn on_serves(&mut self, shard: usize, edition: u64) {
        if let Some(serving) = self.serving.get_mut(shard) {
            *serving = Some(edition);
        }
    }

    /// Whether this edition is the one that the router last said to serve.
    pub fn is_serving(&self, shard: u32, edition: u64) -> bool {
        self.serving.get(shard as usize) == Some(&Some(edition))
    }

    /// The router says that so many places of this edition are to be kept in its shard.
    pub fn on_wanted(&mut self, shard: usize, edition: u64, count: u32) {
        let (in_force, serving) = (self.config.edition, self.serving.get(shard).copied().flatten());
        if let Some(told) = self.told.get_mut(shard) {
            told.retain(|(other, _)| *other != edition && (*other == in_force || Some(*other) == serving));
            told.push((edition, count));
        }
    }

    /// How many places of this edition there are to be in a shard, if any are.
    pub fn wanted(&self, shard: u32, edition: u64) -> u32 {
        let FunctionConfig { warm, warm_max, .. } = *self.config;
        let told = self.told.get(shard as usize).and_then(|told| told.iter().find(|(it, _)| *it == edition));
        told.map_or(warm, |(_, count)| (*count).clamp(warm, warm_max.max(warm)))
    }

    /// The same of the edition in force, over all shards.
    pub fn wanted_in_all(&self) -> u32 {
        (0..self.told.len() as u32).map(|shard| self.wanted(shard, self.config.edition)).sum()
    }

    pub fn prospect(&self, shard: u32, edition: u64) -> Prospect {
        let in_force = self.config.edition;
        if self.is_removed {
            Prospect::Leaves
        } else if edition == in_force {
            Prospect::Kept
        } else if self.is_serving(shard, in_force) {
            Prospect::Leaves
        } else if self.is_serving(shard, edition) {
            Prospect::Kept
        } else {
            Prospect::Spent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edition: u64, leave_timeout: u64) -> FunctionConfig {
        let leave_timeout = Duration::from_secs(leave_timeout);
        FunctionConfig { edition, leave_timeout, ..FunctionConfig::default() }
    }

    #[track_caller]
    fn check(function: &Function, expected: [Prospect; 3]) {
        assert_eq!([1, 2, 3].map(|edition| function.prospect(0, edition)), expected);
    }

    #[test]
    fn as_many_are_wanted_as_the_router_says_between_the_least_and_the_most() {
        let bounds = |edition, warm, warm_max| FunctionConfig { warm, warm_max, ..config(edition, 1) };
        let wanted = |function: &Function| [1, 2, 3].map(|edition| function.wanted(0, edition));
        let mut function = Function::new(bounds(1, 1, 4), 2);
        assert_eq!(wanted(&function), [1, 1, 1], "nothing is said yet");
        for (said, expected) in [(3, 3), (9, 4), (0, 1), (2, 2)] {
            function.on_wanted(0, 1, said);
            assert_eq!((function.wanted(0, 1), function.wanted(1, 1)), (expected, 1), "{said}");
        }
        assert_eq!(function.wanted_in_all(), 3);
        // Given: a word about the next edition, which comes before it is read. Expect: both are remembered.
        function.on_serves(0, 1);
        function.on_wanted(0, 2, 4);
        assert_eq!(wanted(&function), [2, 4, 1]);
        function.take(bounds(2, 0, 4));
        assert_eq!(wanted(&function), [2, 4, 0]);
        // A third before the second serves: of the second nothing has to be known any more.
        function.take(bounds(3, 0, 4));
        function.on_wanted(0, 3, 1);
        assert_eq!(wanted(&function), [2, 0, 1]);
        // One number for ever is not asked about. A word from another shard than there are says nothing.
        function.take(bounds(3, 2, 0));
        function.on_wanted(2, 3, 4);
        assert_eq!((wanted(&function), function.wanted(2, 3)), ([2, 2, 2], 2));
    }

    #[test]
    fn the_edition_that_serves_is_kept_until_the_one_in_force_does() {
        use Prospect::{Kept, Leaves, Spent};
        let mut function = Function::new(config(1, 1), 2);
        function.on_serves(0, 1);
        check(&function, [Kept, Leaves, Leaves]);
        // Given: edition 2, which never serves. Expect: both are kept up.
        function.take(config(2, 9));
        check(&function, [Kept, Kept, Spent]);
        // Given: edition 3 instead. Expect: 2 is given up, 1 is not.
        function.take(config(3, 2));
        check(&function, [Kept, Spent, Kept]);
        function.on_serves(1, 3);
        check(&function, [Kept, Spent, Kept]);
        function.on_serves(0, 3);
        check(&function, [Leaves, Leaves, Kept]);
        assert_eq!(function.leave_timeout, Duration::from_secs(9), "calls were given that long once");
        // Given: back to 1, whose word came late. Expect: 3 serves until then.
        function.take(config(1, 1));
        check(&function, [Kept, Spent, Kept]);
        // A word from another shard than there are says nothing.
        function.on_serves(2, 1);
        check(&function, [Kept, Spent, Kept]);
        function.is_removed = true;
        check(&function, [Leaves, Leaves, Leaves]);
        function.take(config(1, 1));
        check(&function, [Kept, Spent, Kept]);
    }
}

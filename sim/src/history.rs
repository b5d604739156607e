//! What happened, for the reader of a failed run. Kept only when somebody will read it: most runs hold.

/// Lines in the order of events, with the virtual time of each.
#[derive(Debug, Default)]
pub struct History {
    is_kept: bool,
    lines: Vec<(u64, String)>,
}

impl History {
    /// One that is kept, or one that costs nothing.
    pub fn new(is_kept: bool) -> History {
        History { is_kept, lines: Vec::new() }
    }

    /// Adds a line.
    pub fn note(&mut self, now_ns: u64, line: impl FnOnce() -> String) {
        if self.is_kept {
            self.lines.push((now_ns, line()));
        }
    }

    /// Prints everything.
    pub fn print(&self) {
        for (at_ns, line) in &self.lines {
            println!("{:>14} us  {line}", at_ns / 1_000);
        }
    }
}

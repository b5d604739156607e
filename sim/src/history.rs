//! What happened, for the reader of a failed run.

/// Lines in the order of events, with the virtual time of each.
#[derive(Default)]
pub struct History {
    lines: Vec<(u64, String)>,
}

impl History {
    /// Adds a line.
    pub fn note(&mut self, now_ns: u64, line: String) {
        self.lines.push((now_ns, line));
    }

    /// Prints the last `count` lines.
    pub fn print_last(&self, count: usize) {
        for (at, line) in self.lines.iter().skip(self.lines.len().saturating_sub(count)) {
            println!("{:>14} us  {line}", at / 1_000);
        }
    }

    /// Prints everything.
    pub fn print_all(&self) {
        self.print_last(self.lines.len());
    }
}

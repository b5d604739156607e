//! Stage 6 of 8: how fast one stream of a place may write into the log.
//!
//! A bucket of bytes: a second's worth may come at once. When it is empty nothing is written until half of it is there again, so
//! that a flood leaves long stretches of whole output with one remark between them, and not a remark for every second line.
//! Never: reads a clock.

/// See above.
pub struct Flood {
    /// Bytes a second, and bytes at once.
    rate: u64,
    left: u64,
    filled_at_ns: u64,
    is_on: bool,
    lines_untold: u64,
    bytes_untold: u64,
    lines_told: u64,
}

impl Flood {
    pub fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            left: rate,
            filled_at_ns: 0,
            is_on: false,
            lines_untold: 0,
            bytes_untold: 0,
            lines_told: 0,
        }
    }

    /// Another rate, from now on.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate.max(1);
        self.left = self.left.min(self.rate);
    }

    /// Whether a piece of this size may be written; counted if not, as a line unless it goes on.
    pub fn admits(&mut self, now_ns: u64, size: usize, goes_on: bool) -> bool {
        let size = size as u64;
        self.fill(now_ns);
        let needed = if self.is_on { size.max(self.rate / 2) } else { size };
        self.is_on = self.left < needed;
        if self.is_on {
            self.lines_untold += u64::from(!goes_on);
            self.bytes_untold += size;
            return false;
        }
        self.left -= size;
        true
    }

    /// Lines that were not admitted, over all.
    pub fn lines_dropped(&self) -> u64 {
        self.lines_told + self.lines_untold
    }

    /// What is to be said of those that were not, once.
    pub fn take_untold(&mut self, stream: &str) -> Option<String> {
        let (lines, bytes) = (self.lines_untold, self.bytes_untold);
        if bytes == 0 && lines == 0 {
            return None;
        }
        self.lines_told += lines;
        (self.lines_untold, self.bytes_untold) = (0, 0);
        Some(format!(
            "{lines} lines, {bytes} bytes of {stream} were dropped here: more than log_rate_max, {} a second",
            self.rate
        ))
    }

    fn fill(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.filled_at_ns);
        let more = u128::from(self.rate) * u128::from(passed_ns) / 1_000_000_000;
        if more >= u128::from(self.rate - self.left) {
            (self.left, self.filled_at_ns) = (self.rate, now_ns);
        } else {
            // What is less than a byte stays in the time that has not been counted yet.
            self.left += more as u64;
            self.filled_at_ns += (more * 1_000_000_000 / u128::from(self.rate)) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_flood_is_dropped_until_half_a_seconds_worth_is_there_again() {
        let mut flood = Flood::new(1_000);
        let mut admitted =
            |now_ns: u64, count: usize| (0..count).filter(|_| flood.admits(now_ns, 100, false)).count();
        // Given: twice of what may come at once
        assert_eq!(admitted(0, 20), 10);
        // Expect: 400 bytes are there, which is not half, and then 600
        assert_eq!(admitted(SECOND_NS * 4 / 10, 3), 0);
        assert_eq!(admitted(SECOND_NS * 6 / 10, 10), 6);
        // A quiet stream owes nothing, and saves up no more than a second's worth
        assert_eq!(admitted(100 * SECOND_NS, 20), 10);
        assert_eq!(flood.lines_dropped(), 10 + 3 + 4 + 10);
        let told = flood.take_untold("stderr").unwrap();
        assert_eq!(
            told,
            "27 lines, 2700 bytes of stderr were dropped here: more than log_rate_max, 1000 a second"
        );
        assert_eq!(flood.take_untold("stderr"), None);
        assert_eq!(flood.lines_dropped(), 27);
    }

    #[test]
    fn one_line_of_many_pieces_is_counted_once() {
        let mut flood = Flood::new(1_000);
        for goes_on in [true, true, false] {
            assert!(!flood.admits(0, 1_001, goes_on));
        }
        assert_eq!(flood.lines_dropped(), 1);
    }

    #[test]
    fn many_short_looks_fill_as_much_as_a_long_one() {
        let mut flood = Flood::new(1_000);
        assert!(flood.admits(0, 1_000, false));
        for step in 1..=1_000 {
            // Each look is after less than a byte's time.
            flood.fill(step * SECOND_NS / 2_000);
        }
        assert_eq!(flood.left, 500);
    }
}

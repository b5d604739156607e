//! Calls per second: the definition itself, over every span of time, and not a bucket.

use engine::Rate;

/// When calls were admitted.
#[derive(Debug)]
pub struct Spans {
    rate: Rate,
    admitted_at_ns: Vec<u64>,
}

impl Spans {
    pub fn new(rate: Rate) -> Spans {
        Spans { rate, admitted_at_ns: Vec::new() }
    }

    /// Whether one more call now would be too many: whether in some span of time that ends now there would be more than the
    /// burst and what the rate gives in that span.
    pub fn is_full(&self, now_ns: u64) -> bool {
        let interval_ns = 1_000_000_000_u64.div_ceil(self.rate.per_second.into());
        let count = self.admitted_at_ns.len() as u64;
        let mut spans = self.admitted_at_ns.iter().zip(0..);
        spans.any(|(at_ns, before)| {
            let with_this_one = count - before + 1;
            with_this_one > u64::from(self.rate.burst) + (now_ns - at_ns) / interval_ns
        })
    }

    pub fn admitted(&mut self, now_ns: u64) {
        self.admitted_at_ns.push(now_ns);
    }
}

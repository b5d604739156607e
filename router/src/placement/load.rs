//! How loaded a shard's thread is: the share of its time that it spends in turns with work, smoothed.
//!
//! Why time and not calls: a call of 1 MiB costs as much as hundreds of small ones. Why only the thread's: what a slow
//! function makes wait is answered by more processes for it, not by another thread in front of them.
#![forbid(unsafe_code)]

use engine::Nanos;

/// In this time half of what was true before is forgotten: longer than any burst that is over by the time a connection
/// could have moved, shorter than anybody's patience.
const HALF_LIFE: Nanos = Nanos::from_ms(100);

/// Thousandths of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(pub u32);

impl Load {
    /// Without a pause.
    pub const FULL: Load = Load(1000);

    /// Busy for so much of a stretch of time.
    pub fn of(busy: Nanos, length: Nanos) -> Load {
        if length == Nanos::ZERO {
            return Load(0);
        }
        let thousandths = u128::from(busy.0) * 1000 / u128::from(length.0);
        Load(thousandths.min(1000) as u32)
    }

    /// What this has become after a stretch of time with that load.
    pub fn smoothed(self, sample: Load, length: Nanos) -> Load {
        let kept = (-(length.0 as f64) / HALF_LIFE.0 as f64).exp2();
        Load((f64::from(self.0) * kept + f64::from(sample.0) * (1.0 - kept)).round() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_share_and_never_more_than_everything() {
        assert_eq!(Load::of(Nanos(25), Nanos(100)), Load(250));
        assert_eq!(Load::of(Nanos(101), Nanos(100)), Load::FULL);
        assert_eq!(Load::of(Nanos(1), Nanos::ZERO), Load(0));
        assert_eq!(Load::of(Nanos(u64::MAX), Nanos(u64::MAX)), Load::FULL);
    }

    #[test]
    fn half_of_a_load_is_forgotten_in_a_half_life_in_however_many_steps() {
        assert_eq!(Load(800).smoothed(Load(0), HALF_LIFE), Load(400));
        assert_eq!(Load(0).smoothed(Load::FULL, HALF_LIFE), Load(500));
        let in_steps = (0..10).fold(Load(800), |load, _| load.smoothed(Load(0), Nanos::from_ms(10)));
        assert!((398..=402).contains(&in_steps.0), "{in_steps:?}");
        assert_eq!(Load::FULL.smoothed(Load(0), Nanos::from_secs(3600)), Load(0));
        assert_eq!(Load(123).smoothed(Load::FULL, Nanos::ZERO), Load(123));
    }
}

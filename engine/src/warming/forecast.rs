//! The next idle time of a function that is called every few hours or days, from those before.
//!
//! In: idle times.  Out: the next one, and how far off it may be; or nothing, when the last ones could not have been forecast.
//! Always: simple exponential smoothing with a quarter, which is the best forecast of an ARIMA(0, 1, 1) process with that
//! parameter (Muth, "Optimal Properties of Exponentially Weighted Forecasts", Journal of the American Statistical Association, 1960).
//! The errors are smoothed the same way.
//! Why not the paper's ARIMA: it looks for the order of the process at every call, of functions that have had ten or twenty.
//! Three numbers forecast a regular function as well, and of an irregular one the errors say that nobody should believe it.

use crate::time::Nanos;

/// Fewer idle times forecast nothing.
const COUNT_MIN: u8 = 4;
/// One part of what is new, in so many.
const SMOOTHING: u64 = 4;
/// The paper's margin: so many percent to either side. Who errs by more on average is not believed.
const MARGIN_PERCENT_MAX: u64 = 15;
/// A margin is three times the mean error: one error in twenty of a Laplace distribution is larger (e^-3), fewer of a normal one.
const ERRORS: u64 = 3;
/// What has erred by nothing may still err by a hundredth.
const MARGIN_PERCENT_MIN: u64 = 1;
/// 2^56 ns are more than two years; longer idle times count as that long, so that no sum overflows.
const LENGTH_MAX: u64 = 1 << 56;

#[derive(Clone, Copy, Debug, Default)]
pub struct Forecast {
    length: u64,
    error: u64,
    /// Up to `COUNT_MIN`.
    count: u8,
}

/// The shortest and the longest that the next idle time may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub shortest: Nanos,
    pub longest: Nanos,
}

impl Forecast {
    pub fn note(&mut self, idle: Nanos) {
        let idle = idle.0.min(LENGTH_MAX);
        if self.count == 0 {
            self.length = idle;
        }
        self.error = smoothed(self.error, idle.abs_diff(self.length));
        self.length = smoothed(self.length, idle);
        self.count = (self.count + 1).min(COUNT_MIN);
    }

    pub fn next(&self) -> Option<Range> {
        let percent = |percent: u64| self.length / 100 * percent;
        if self.count < COUNT_MIN || self.error > percent(MARGIN_PERCENT_MAX) {
            return None;
        }
        let margin = (ERRORS * self.error).clamp(percent(MARGIN_PERCENT_MIN), percent(MARGIN_PERCENT_MAX));
        Some(Range { shortest: Nanos(self.length - margin), longest: Nanos(self.length + margin) })
    }
}

fn smoothed(before: u64, new: u64) -> u64 {
    (before * (SMOOTHING - 1) + new) / SMOOTHING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn hours(count: u64) -> Nanos {
        Nanos::from_secs(3_600 * count)
    }

    fn after(idle: impl IntoIterator<Item = Nanos>) -> Option<Range> {
        let mut forecast = Forecast::default();
        idle.into_iter().for_each(|idle| forecast.note(idle));
        forecast.next()
    }

    #[test]
    fn what_comes_every_twelve_hours_is_expected_within_minutes_of_it() {
        assert_eq!(after([hours(12); 3]), None);
        let margin = Nanos(hours(12).0 / 100);
        let expected = Range { shortest: hours(12).since(margin), longest: hours(12).plus(margin) };
        assert_eq!(after([hours(12); 4]), Some(expected));
    }

    #[test]
    fn a_margin_holds_most_of_what_comes_and_is_never_wider_than_the_papers() {
        // Given: a call every eight hours, half an hour earlier or later.
        let mut chance = Chance::new(5);
        let mut forecast = Forecast::default();
        let (mut held, mut asked) = (0, 0);
        for _ in 0..1_000 {
            let idle = Nanos(hours(8).0 - hours(1).0 / 2 + chance.up_to(hours(1).0));
            if let Some(range) = forecast.next() {
                asked += 1;
                held += u32::from(range.shortest <= idle && idle <= range.longest);
                assert!(range.longest.since(range.shortest) <= Nanos(hours(8).0 * 33 / 100));
            }
            forecast.note(idle);
        }
        assert!(asked > 990 && held > 950, "{held} of {asked}");
    }

    #[test]
    fn who_comes_by_chance_is_not_forecast() {
        let mut chance = Chance::new(6);
        let mut forecast = Forecast::default();
        let forecast_count = (0..1_000).filter(|_| {
            forecast.note(Nanos(chance.up_to(hours(24).0)));
            forecast.next().is_some()
        });
        assert!(forecast_count.count() < 50);
    }

    #[test]
    fn any_length_is_taken() {
        assert!(after([Nanos::NEVER; 4]).is_some());
        assert_eq!(after([Nanos::ZERO; 4]), Some(Range { shortest: Nanos::ZERO, longest: Nanos::ZERO }));
        assert_eq!(after([Nanos::ZERO, Nanos::NEVER, Nanos::ZERO, Nanos::NEVER]), None);
    }
}

//! When in a day a function begins to be called, from the seven days before.
//!
//! In: arrivals.  Out: the next quarter of an hour in which one is to be expected.
//! Always: a quarter is *usual* if on two of three earlier days, of at most seven and at least three that are known, something
//! arrived in it. Where two quarters in a row are usual only together, as with a call at nine that is now early and now late, they count as
//! one. A call is expected where usual quarters begin: what follows them is for the idle times to say.
//! Never: a calendar. A day is 24 hours of the given clock, so that summer time is learned anew within five days, and a weekend costs a
//! function of working days two windows for nothing.
//! Why two of three: five of seven are the working days of a week. Why quarters: an hour's window would be 60 % wasted on a call that
//! comes to the minute, and with minutes nobody would come twice in the same.

use crate::time::Nanos;

const QUARTER: Nanos = Nanos::from_secs(15 * 60);
/// Of a day.
const QUARTER_COUNT: u32 = 96;
const EARLIER_DAYS_MAX: usize = 7;
const EARLIER_DAYS_MIN: usize = 3;
/// Ahead of the quarter, so that who comes at its first second finds the function warm: as much as the paper's authors start ahead in
/// production (section 6).
const LEAD: Nanos = Nanos::from_secs(90);

/// A bit for each quarter of a day, which is a circle: after the last comes the first.
type Quarters = u128;

/// A function's last days.
#[derive(Clone, Debug)]
pub struct TimeOfDay {
    /// The quarters in which something arrived: today's first, those of a week ago last.
    days: [Quarters; 1 + EARLIER_DAYS_MAX],
    today: u64,
    /// Days before today, from the first arrival on, up to seven.
    known: usize,
    has_begun: bool,
}

/// When to be warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: Nanos,
    pub end: Nanos,
}

impl TimeOfDay {
    pub fn new() -> TimeOfDay {
        TimeOfDay { days: [0; 1 + EARLIER_DAYS_MAX], today: 0, known: 0, has_begun: false }
    }

    pub fn note(&mut self, now: Nanos) {
        let (day, index) = day_and_index(now);
        if !self.has_begun {
            self.has_begun = true;
            self.today = day;
        }
        self.turn_to(day);
        self.days[0] |= 1 << index;
    }

    /// The first window that ends after `at`, which is not before `now`; none if nothing is expected until the end of tomorrow.
    pub fn next(&mut self, now: Nanos, at: Nanos) -> Option<Window> {
        self.turn_to(day_and_index(now).0);
        let (at_day, at_index) = day_and_index(at);
        (0..=1).find_map(|ahead: usize| {
            let day = self.today + ahead as u64;
            let not_over = match day.cmp(&at_day) {
                std::cmp::Ordering::Less => 0,
                std::cmp::Ordering::Equal => Quarters::MAX << at_index,
                std::cmp::Ordering::Greater => Quarters::MAX,
            };
            let (ones, twos) = self.expected(ahead);
            let index = Some(((ones | twos) & not_over).trailing_zeros()).filter(|it| *it < QUARTER_COUNT)?;
            let length = if ones >> index & 1 == 1 { 1 } else { 2 };
            let quarter = day.checked_mul(u64::from(QUARTER_COUNT))?.checked_add(u64::from(index))?;
            let (start, end) = (quarter.checked_mul(QUARTER.0)?, (quarter + length).checked_mul(QUARTER.0)?);
            Some(Window { start: Nanos(start).since(LEAD), end: Nanos(end) })
        })
    }

    /// Where windows of one quarter begin, and those of two: today (`ahead` 0) where nothing has come yet, or tomorrow (1).
    fn expected(&self, ahead: usize) -> (Quarters, Quarters) {
        let known = (self.known + ahead).min(EARLIER_DAYS_MAX);
        let earlier = self.days.iter().skip(1 - ahead).take(known);
        if known < EARLIER_DAYS_MIN {
            return (0, 0);
        }
        // Two of three.
        let count_min = (2 * known).div_ceil(3);
        let one = at_least(count_min, earlier.clone().copied());
        let two = at_least(count_min, earlier.map(|day| *day | before(*day)));
        let ones = one & !after(one);
        let twos = two & !after(two) & !one & !after(one) & !before(one);
        let come = if ahead == 0 { self.days[0] } else { 0 };
        (ones & !come, twos & !(come | before(come)))
    }

    fn turn_to(&mut self, day: u64) {
        let days = if self.has_begun { day.saturating_sub(self.today) } else { 0 };
        if days == 0 {
            return;
        }
        let gone = days.min(self.days.len() as u64) as usize;
        self.days.rotate_right(gone);
        self.days.iter_mut().take(gone).for_each(|day| *day = 0);
        self.known = (self.known + gone).min(EARLIER_DAYS_MAX);
        self.today = day;
    }
}

/// Of each quarter the one after it is asked.
fn before(day: Quarters) -> Quarters {
    day >> 1 | (day & 1) << (QUARTER_COUNT - 1)
}

/// Of each quarter the one before it is asked.
fn after(day: Quarters) -> Quarters {
    (day << 1 | day >> (QUARTER_COUNT - 1)) & ((1 << QUARTER_COUNT) - 1)
}

/// The quarters that so many days have, at most seven. All quarters are counted at once: the three binary digits of their counts are
/// three words.
fn at_least(count_min: usize, days: impl Iterator<Item = Quarters>) -> Quarters {
    let mut digits: [Quarters; 3] = [0; 3];
    for day in days {
        let mut carry = day;
        for digit in &mut digits {
            (*digit, carry) = (*digit ^ carry, *digit & carry);
        }
    }
    let (mut more, mut equal) = (0, Quarters::MAX);
    for (place, digit) in digits.iter().enumerate().rev() {
        if count_min >> place & 1 == 1 {
            equal &= digit;
        } else {
            more |= equal & digit;
            equal &= !digit;
        }
    }
    more | equal
}

/// The day of the clock, and the quarter of that day.
fn day_and_index(at: Nanos) -> (u64, u32) {
    let quarter = at.0 / QUARTER.0;
    (quarter / u64::from(QUARTER_COUNT), (quarter % u64::from(QUARTER_COUNT)) as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::chance::Chance;

    /// Day, hour and minute.
    fn at(day: u64, hour: u64, minute: u64) -> Nanos {
        Nanos::from_secs(((day * 24 + hour) * 60 + minute) * 60)
    }

    fn after(arrivals: impl IntoIterator<Item = Nanos>) -> TimeOfDay {
        let mut time_of_day = TimeOfDay::new();
        arrivals.into_iter().for_each(|arrival| time_of_day.note(arrival));
        time_of_day
    }

    fn window(start: Nanos, end: Nanos) -> Option<Window> {
        Some(Window { start: start.since(LEAD), end })
    }

    #[test]
    fn a_call_at_nine_is_expected_at_nine_once_it_came_on_three_days() {
        let mut two_days = after((0..2).map(|day| at(day, 9, 3)));
        assert_eq!(two_days.next(at(1, 10, 0), at(1, 10, 0)), None);
        let mut three_days = after((0..3).map(|day| at(day, 9, 3)));
        // Expect: tomorrow, and not today, for today it has come.
        let tomorrow = window(at(3, 9, 0), at(3, 9, 15));
        assert_eq!(three_days.next(at(2, 9, 4), at(2, 9, 4)), tomorrow);
        // Expect: the same window until it ends, and then the one of the day after.
        assert_eq!(three_days.next(at(3, 9, 14), at(3, 9, 14)), tomorrow);
        assert_eq!(three_days.next(at(3, 9, 15), at(3, 9, 15)), window(at(4, 9, 0), at(4, 9, 15)));
    }

    #[test]
    fn working_days_are_enough_and_a_holiday_of_a_week_is_not() {
        // Given: two weeks of five days, and the Friday's call has come.
        let calls = (0..14).filter(|day| day % 7 < 5).map(|day| at(day, 9, 3));
        let mut time_of_day = after(calls.clone());
        assert_eq!(time_of_day.next(at(13, 23, 0), at(13, 23, 0)), window(at(14, 9, 0), at(14, 9, 15)));
        let mut away = after(calls);
        assert_eq!(away.next(at(19, 8, 0), at(19, 8, 0)), None);
    }

    #[test]
    fn a_call_around_nine_has_both_quarters_and_one_that_is_anywhere_has_none() {
        let mut around = after((0..7).map(|day| if day % 2 == 0 { at(day, 8, 58) } else { at(day, 9, 2) }));
        assert_eq!(around.next(at(6, 12, 0), at(6, 12, 0)), window(at(7, 8, 45), at(7, 9, 15)));
        let mut anywhere = after((0..7).map(|day| at(day, 3 * day, 0)));
        assert_eq!(anywhere.next(at(6, 23, 0), at(6, 23, 0)), None);
    }

    #[test]
    fn of_office_hours_only_the_morning_is_expected() {
        let hours = (0..7).flat_map(|day| (36..68).map(move |quarter| at(day, 0, 15 * quarter + 7)));
        let mut time_of_day = after(hours);
        assert_eq!(time_of_day.next(at(6, 17, 0), at(6, 17, 0)), window(at(7, 9, 0), at(7, 9, 15)));
        assert_eq!(time_of_day.next(at(7, 9, 20), at(7, 9, 20)), window(at(8, 9, 0), at(8, 9, 15)));
    }

    #[test]
    fn the_next_window_is_that_of_a_naive_memory() {
        let mut chance = Chance::new(17);
        let mut found = 0;
        for _ in 0..300 {
            // Given: some hours of the day, each used on many days, by a call somewhere in it.
            let hours: Vec<(u64, u64)> = (0..4).map(|_| (chance.up_to(23), chance.up_to(10))).collect();
            let mut arrivals: Vec<Nanos> = (0..12)
                .flat_map(|day| hours.iter().map(move |(hour, skip)| (day, *hour, *skip)))
                .filter(|(.., skip)| chance.up_to(10) >= *skip)
                .collect::<Vec<_>>()
                .into_iter()
                .map(|(day, hour, _)| at(day, hour, chance.up_to(25)))
                .collect();
            arrivals.sort();
            let days = 1 + chance.up_to(10);
            arrivals.retain(|arrival| *arrival < at(days, 0, 0));
            let Some(first) = arrivals.first().copied() else { continue };
            let now = at(days - 1, chance.up_to(23), chance.up_to(59));
            arrivals.retain(|arrival| *arrival <= now);
            let mut time_of_day = after(arrivals.iter().copied());
            let next = if first <= now { time_of_day.next(now, now) } else { None };
            assert_eq!(next, naive(&arrivals, now), "{arrivals:?} {now}");
            found += u32::from(next.is_some());
        }
        assert!(found > 50, "{found}");
    }

    /// The rule of the header, from all arrivals.
    fn naive(arrivals: &[Nanos], now: Nanos) -> Option<Window> {
        let first_day = day_and_index(*arrivals.first()?).0;
        let used: HashSet<(u64, u32)> = arrivals.iter().map(|arrival| day_and_index(*arrival)).collect();
        let (today, quarter_now) = day_and_index(now);
        for day in today..=today + 1 {
            let known: Vec<u64> = (first_day..day).rev().take(7).collect();
            let is_usual = |quarters: &[u32]| {
                let is_used =
                    |day: &&u64| quarters.iter().any(|quarter| used.contains(&(**day, quarter % 96)));
                known.len() >= 3 && 3 * known.iter().filter(is_used).count() >= 2 * known.len()
            };
            let one = |quarter: u32| is_usual(&[quarter]);
            let two = |quarter: u32| is_usual(&[quarter, quarter + 1]);
            for quarter in if day == today { quarter_now } else { 0 }..96 {
                let before = quarter + 95;
                let length = match (one(before), one(quarter)) {
                    (false, true) => 1,
                    (false, false) if two(quarter) && !two(before) && !one(quarter + 1) => 2,
                    _ => continue,
                };
                let has_come =
                    (quarter..quarter + length).any(|it| day == today && used.contains(&(day, it % 96)));
                if !has_come {
                    let start = Nanos((day * 96 + u64::from(quarter)) * QUARTER.0);
                    return window(start, start.plus(Nanos(u64::from(length) * QUARTER.0)));
                }
            }
        }
        None
    }

    #[test]
    fn the_end_of_the_clock_is_no_time_of_day() {
        let mut time_of_day = after([Nanos::NEVER]);
        assert_eq!(time_of_day.next(Nanos::NEVER, Nanos::NEVER), None);
        let mut backwards = after([at(5, 0, 0), at(1, 0, 0)]);
        assert_eq!(backwards.next(at(0, 0, 0), at(0, 0, 0)), None);
    }
}

//! Calls of applications as "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020, section 3) describes those of Azure Functions.
//!
//! In: a seed.  Out: applications with their memory, and their calls one by one.
//! Always: what the paper says in numbers is drawn from those numbers, and `tests.rs` measures it in what came out: how often
//! applications are called, how long calls run, how much memory they take, how many of them timers call, how irregular they are.
//! Where it gives no number, ours stands in [`Mix`], in [`Habit::draw`] and on the page.
//! Always: an application that is called more than [`CALLS_MAX`] times in two weeks is simulated for that many calls, and counts as
//! much as the whole. Otherwise a few of them would be all the work, and they are hardly ever cold.

use std::fmt;

use crate::chance::Chance;

use super::{DAY_NS, HOUR_NS, MINUTE_NS, SPAN_NS};

const CALLS_MAX: f64 = 20_000.0;
/// Calls a day of an application, on average, and the share of applications that are called no more often: once in the two weeks, once
/// an hour (45 %), once a minute (all but the 18.6 % most popular) and once a second (97 %); the last two are chosen so that the range is
/// eight orders of magnitude and the 18.6 % have 99.6 % of all calls. In between shares grow with the logarithm.
const CALLS_PER_DAY: [(f64, f64); 6] = [
    (0.0, 1.0 / 14.0),
    (0.45, 24.0),
    (0.814, 1_440.0),
    (0.97, 86_400.0),
    (0.999, 2_600_000.0),
    (1.0, 10_000_000.0),
];
/// Log-normal: of the logarithm of the mean run of each function, in seconds.
const RUN_LOG_MEAN: f64 = -0.38;
const RUN_LOG_SIGMA: f64 = 2.36;
/// Of runs of one function, ours.
const RUN_SPREAD: f64 = 0.5;
/// Burr: of megabytes that an application takes on average.
const MEMORY_C: f64 = 11.652;
const MEMORY_K: f64 = 0.221;
const MEMORY_LAMBDA: f64 = 107.083;
/// Of timers; the longest are those of few calls.
const PERIODS_NS: [u64; 12] = [
    MINUTE_NS,
    2 * MINUTE_NS,
    5 * MINUTE_NS,
    10 * MINUTE_NS,
    15 * MINUTE_NS,
    30 * MINUTE_NS,
    HOUR_NS,
    2 * HOUR_NS,
    4 * HOUR_NS,
    12 * HOUR_NS,
    DAY_NS,
    7 * DAY_NS,
];

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub at_ns: u64,
    pub run_ns: u64,
}

/// How calls come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Habit {
    /// By a timer alone.
    Timer { period_ns: u64 },
    /// By a timer, and by chance at least as often.
    TimerAndOthers { period_ns: u64 },
    /// By something else that repeats itself, as devices that report: late by at most such a part of the period.
    Regular { jitter: f64 },
    /// By chance, more by day than by night: by so much of the mean.
    Chance { swing: f64 },
    /// Some after each other, and then none for long: so many on average, so far apart.
    Bursts { length: f64, gap_ns: f64 },
    /// Only in some hours of five days of seven, and the first of a day within some minutes of the same time.
    WorkingHours { from_hour: u64, hours: u64 },
}

/// How applications divide that are called so often: the share of each habit, and chance is the rest.
struct Mix {
    timer: f64,
    timer_and_others: f64,
    working_hours: f64,
    regular: f64,
    bursts: f64,
}

/// At most once an hour: 45 % of all.
const RARE: Mix =
    Mix { timer: 0.07, timer_and_others: 0.07, working_hours: 0.06, regular: 0.05, bursts: 0.65 };
/// At most once a minute: 36.4 %.
const COMMON: Mix =
    Mix { timer: 0.27, timer_and_others: 0.25, working_hours: 0.06, regular: 0.2, bursts: 0.04 };
/// The 18.6 % most popular. Hardly a timer fires more often than once a minute.
const POPULAR: Mix =
    Mix { timer: 0.0, timer_and_others: 0.19, working_hours: 0.0, regular: 0.35, bursts: 0.04 };

impl Habit {
    fn draw(per_day: f64, chance: &mut Chance) -> Habit {
        let mix = match per_day {
            ..=24.0 => &RARE,
            ..=1_440.0 => &COMMON,
            _ => &POPULAR,
        };
        let period_ns = nearest_period((DAY_NS as f64 / per_day) as u64);
        let mut draw = chance.unit();
        let mut falls_into = |share: f64| {
            draw -= share;
            draw <= 0.0
        };
        if falls_into(mix.timer) {
            Habit::Timer { period_ns }
        } else if falls_into(mix.timer_and_others) {
            Habit::TimerAndOthers { period_ns: nearest_period((2.0 * DAY_NS as f64 / per_day) as u64) }
        } else if falls_into(mix.working_hours) {
            Habit::WorkingHours { from_hour: chance.below(15), hours: 8 + chance.below(2) }
        } else if falls_into(mix.regular) {
            Habit::Regular { jitter: chance.unit() / 2.0 }
        } else if falls_into(mix.bursts) {
            let gap_ns = 5e9 * 120_f64.powf(chance.unit());
            Habit::Bursts {
                length: 2.0 * 10_f64.powf(chance.unit()),
                gap_ns: gap_ns.min(0.2 * DAY_NS as f64 / per_day),
            }
        } else {
            // Half of all calls are a baseline that knows no day and no night.
            Habit::Chance { swing: (chance.unit() * 2.0 - 1.0).max(0.0) }
        }
    }
}

fn nearest_period(wanted_ns: u64) -> u64 {
    let distance = |period_ns: &u64| (*period_ns as f64 / wanted_ns as f64).ln().abs();
    let nearest = PERIODS_NS.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.unwrap_or(HOUR_NS)
}

/// One application, which stands for its functions.
#[derive(Clone, Debug)]
pub struct Application {
    pub per_day: f64,
    pub habit: Habit,
    pub memory_bytes: f64,
    /// Of its runs, on average.
    pub run_mean_ns: f64,
    /// So much of the two weeks is simulated.
    pub span_ns: u64,
    chance: Chance,
}

/// All of them. How often they are called is not drawn: of a hundred applications each stands for a percent.
pub fn applications(count: u32, seed: u64) -> impl Iterator<Item = Application> {
    let mut chance = Chance::new(seed ^ 0x5741_524D);
    (0..count).map(move |number| {
        let per_day = calls_per_day((f64::from(number) + 0.5) / f64::from(count));
        let span_ns = (CALLS_MAX / per_day * DAY_NS as f64).min(SPAN_NS as f64) as u64;
        Application {
            per_day,
            habit: Habit::draw(per_day, &mut chance),
            memory_bytes: memory_bytes(chance.unit()),
            run_mean_ns: (RUN_LOG_MEAN + RUN_LOG_SIGMA * chance.normal()).exp() * 1e9,
            span_ns,
            chance: Chance::new(chance.next()),
        }
    })
}

fn calls_per_day(share: f64) -> f64 {
    let part = CALLS_PER_DAY.windows(2).find(|part| share <= part[1].0).unwrap_or(&CALLS_PER_DAY[4..]);
    let [(share_from, from), (share_to, to)] = [part[0], part[1]];
    from * (to / from).powf((share - share_from) / (share_to - share_from))
}

fn memory_bytes(draw: f64) -> f64 {
    1e6 * MEMORY_LAMBDA * (draw.powf(-1.0 / MEMORY_K) - 1.0).powf(1.0 / MEMORY_C)
}

impl Application {
    /// How much more often it is called in the two weeks than in what is simulated of them.
    pub fn weight(&self) -> f64 {
        SPAN_NS as f64 / self.span_ns as f64
    }

    /// Its calls in the order in which they come.
    pub fn calls(&self) -> impl Iterator<Item = Call> {
        let mut chance = self.chance.clone();
        let mut arrivals = Arrivals::new(self, &mut chance);
        let run_median_ns = self.run_mean_ns / (RUN_SPREAD * RUN_SPREAD / 2.0).exp();
        let span_ns = self.span_ns;
        // Who is not called in two weeks is in nobody's trace: it is called once.
        let mut only_ns = Some(chance.below(span_ns));
        std::iter::from_fn(move || {
            let next_ns = Some(arrivals.next(&mut chance)).filter(|at_ns| *at_ns < span_ns);
            let at_ns = next_ns.or(only_ns)?;
            only_ns = None;
            let run_ns = (run_median_ns * (RUN_SPREAD * chance.normal()).exp()).max(1.0) as u64;
            Some(Call { at_ns, run_ns })
        })
    }
}

/// What comes next of one application.
struct Arrivals {
    habit: Habit,
    /// Calls a nanosecond, but for those of a timer.
    rate: f64,
    /// Of a timer, and of what repeats itself: the time of its first.
    phase_ns: u64,
    /// How many of those have come.
    count: u64,
    /// By chance, the last that came or the next one that will.
    other_ns: f64,
    /// Of a burst, those that are to come yet.
    left: u64,
}

impl Arrivals {
    fn new(application: &Application, chance: &mut Chance) -> Arrivals {
        let habit = application.habit;
        let rate = application.per_day / DAY_NS as f64;
        let (rate, period_ns) = match habit {
            Habit::Timer { period_ns } => (0.0, period_ns),
            Habit::TimerAndOthers { period_ns } => {
                ((rate - 1.0 / period_ns as f64).max(rate / 2.0), period_ns)
            }
            _ => (rate, (1.0 / rate) as u64),
        };
        // A timer's time is a whole minute of the clock.
        let phase_ns = match habit {
            Habit::Regular { .. } => chance.below(period_ns.max(1)),
            _ => chance.below((period_ns / MINUTE_NS).max(1)) * MINUTE_NS,
        };
        let mut arrivals = Arrivals { habit, rate, phase_ns, count: 0, other_ns: 0.0, left: 0 };
        if matches!(habit, Habit::TimerAndOthers { .. }) {
            arrivals.other_ns = arrivals.by_chance(0.0, 0.0, chance);
        }
        arrivals
    }

    /// The time of the next.
    fn next(&mut self, chance: &mut Chance) -> u64 {
        match self.habit {
            Habit::Timer { period_ns } => self.on_time(period_ns),
            Habit::TimerAndOthers { period_ns } => {
                let timer_ns = self.phase_ns + self.count * period_ns;
                if timer_ns as f64 <= self.other_ns {
                    self.on_time(period_ns)
                } else {
                    let at_ns = self.other_ns as u64;
                    self.other_ns = self.by_chance(self.other_ns, 0.0, chance);
                    at_ns
                }
            }
            Habit::Regular { jitter } => {
                let period_ns = (1.0 / self.rate) as u64;
                self.on_time(period_ns) + (chance.unit() * jitter * period_ns as f64) as u64
            }
            Habit::Chance { swing } => {
                self.other_ns = self.by_chance(self.other_ns, swing, chance);
                self.other_ns as u64
            }
            Habit::Bursts { length, gap_ns } => {
                if self.left == 0 {
                    // As many calls in all as without bursts: the pause has what the gaps leave.
                    let pause_ns = length / self.rate - (length - 1.0) * gap_ns;
                    self.other_ns += pause_ns * chance.exponential();
                    self.left = ((length - 1.0) * chance.exponential()).round() as u64;
                } else {
                    self.other_ns += gap_ns * chance.exponential();
                    self.left -= 1;
                }
                self.other_ns as u64
            }
            Habit::WorkingHours { from_hour, hours } => self.at_work(from_hour, hours, chance),
        }
    }

    /// A timer's next time.
    fn on_time(&mut self, period_ns: u64) -> u64 {
        self.count += 1;
        self.phase_ns + (self.count - 1) * period_ns
    }

    /// Of a day's mean the least is at midnight and the most at noon (Lewis and Shedler 1979).
    fn by_chance(&self, mut at_ns: f64, swing: f64, chance: &mut Chance) -> f64 {
        loop {
            at_ns += chance.exponential() / (self.rate * (1.0 + swing));
            let demand = 1.0 - swing * (std::f64::consts::TAU * at_ns / DAY_NS as f64).cos();
            if chance.unit() * (1.0 + swing) <= demand {
                return at_ns;
            }
        }
    }

    /// The next one in working hours; a day's first comes up to ten minutes after they begin.
    fn at_work(&mut self, from_hour: u64, hours: u64, chance: &mut Chance) -> u64 {
        let share = (hours * 5) as f64 / (24.0 * 7.0);
        let next_ns = self.other_ns + chance.exponential() * share / self.rate;
        let mut day = self.other_ns as u64 / DAY_NS;
        let end_ns = day * DAY_NS + (from_hour + hours) * HOUR_NS;
        let is_first = self.other_ns == 0.0;
        self.other_ns = if !is_first && next_ns < end_ns as f64 {
            next_ns
        } else {
            day += u64::from(!is_first);
            // Who is called less than once a day has days without a call.
            while day % 7 >= 5 || chance.unit() > self.rate * DAY_NS as f64 {
                day += 1;
            }
            (day * DAY_NS + from_hour * HOUR_NS) as f64 + chance.unit() * 10.0 * MINUTE_NS as f64
        };
        self.other_ns as u64
    }
}

/// What one application's calls were like.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallFigures {
    count: u64,
    last_ns: u64,
    sum: f64,
    squares: f64,
    run_sum: f64,
}

impl CallFigures {
    pub fn note(&mut self, call: &Call) {
        if self.count > 0 {
            let distance = (call.at_ns - self.last_ns) as f64;
            self.sum += distance;
            self.squares += distance * distance;
        }
        self.count += 1;
        self.last_ns = call.at_ns;
        self.run_sum += call.run_ns as f64;
    }

    /// The coefficient of variation of the times between them; none of fewer than three.
    fn variation(&self) -> Option<f64> {
        let count = self.count.checked_sub(1).filter(|count| *count >= 2)? as f64;
        let mean = self.sum / count;
        Some((self.squares / count - mean * mean).max(0.0).sqrt() / mean)
    }
}

/// What all of them were like, as the paper describes its own.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Calls in two weeks, with those that stand for more.
    calls: Vec<f64>,
    variations: Vec<f64>,
    runs_ns: Vec<f64>,
    memories: Vec<f64>,
    timers_only: u64,
    timers_and_others: u64,
}

impl Figures {
    pub fn add(&mut self, application: &Application, calls: &CallFigures) {
        let count = calls.count as f64 * application.weight();
        self.calls.push(count);
        self.variations.extend(calls.variation());
        self.runs_ns.push(calls.run_sum / calls.count as f64);
        self.memories.push(application.memory_bytes);
        match application.habit {
            Habit::Timer { .. } => self.timers_only += 1,
            Habit::TimerAndOthers { .. } => self.timers_and_others += 1,
            _ => {}
        }
    }

    pub fn call_count(&self) -> f64 {
        self.calls.iter().sum()
    }

    /// The share of applications that are called at most so often a day.
    pub fn called_at_most(&self, per_day: f64) -> f64 {
        share(&self.calls, |calls| calls / 14.0 <= per_day)
    }

    /// The share of all calls that the share of the most popular applications have.
    pub fn calls_of_most_popular(&self, of_applications: f64) -> f64 {
        let mut sorted = self.calls.clone();
        sorted.sort_by(f64::total_cmp);
        let count = (of_applications * sorted.len() as f64).round() as usize;
        sorted.iter().rev().take(count).sum::<f64>() / self.call_count()
    }

    /// Calls of the most popular application over those of the least popular one.
    pub fn range(&self) -> f64 {
        let most = self.calls.iter().copied().fold(0.0, f64::max);
        most / self.calls.iter().copied().fold(f64::MAX, f64::min)
    }

    /// The shares of applications with timers only, and with timers and others.
    pub fn with_timers(&self) -> (f64, f64) {
        let count = self.calls.len() as f64;
        (self.timers_only as f64 / count, self.timers_and_others as f64 / count)
    }

    /// The share of applications that are less regular than chance.
    pub fn irregular(&self) -> f64 {
        share(&self.variations, |variation| variation > 1.0)
    }

    /// The share of applications that are as regular as a clock.
    pub fn regular(&self) -> f64 {
        share(&self.variations, |variation| variation < 0.05)
    }

    /// The mean and the deviation of the logarithm of mean runs, in seconds.
    pub fn run_logarithms(&self) -> (f64, f64) {
        let logarithms: Vec<f64> = self.runs_ns.iter().map(|run_ns| (run_ns / 1e9).ln()).collect();
        let count = logarithms.len() as f64;
        let mean = logarithms.iter().sum::<f64>() / count;
        let variance = logarithms.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count;
        (mean, variance.sqrt())
    }

    /// The bytes that so many percent of applications do not exceed.
    pub fn memory_percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.memories.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * percent / 100]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let (timers_only, timers_and_others) = self.with_timers();
        let (log_mean, log_sigma) = self.run_logarithms();
        write!(
            f,
            "{:.2e} calls; at most once an hour {}, a minute {}, a second {}; the 18.6 % most \
             popular have {} of all calls; most over least popular {:.1e}; timers only {}, timers and others {}; less regular than \
             chance {}, as regular as a clock {}; logarithm of mean runs {log_mean:.2}, deviation {log_sigma:.2}; memory p50 {:.0} \
             MB, p90 {:.0} MB",
            self.call_count(),
            percent(self.called_at_most(24.0)),
            percent(self.called_at_most(1_440.0)),
            percent(self.called_at_most(86_400.0)),
            percent(self.calls_of_most_popular(0.186)),
            self.range(),
            percent(timers_only),
            percent(timers_and_others),
            percent(self.irregular()),
            percent(self.regular()),
            self.memory_percentile(50) / 1e6,
            self.memory_percentile(90) / 1e6,
        )
    }
}

fn share(values: &[f64], is_in: impl Fn(f64) -> bool) -> f64 {
    values.iter().filter(|value| is_in(**value)).count() as f64 / values.len() as f64
}

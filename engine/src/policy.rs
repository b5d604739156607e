//! What the configuration asks of a function beyond its bounds, and which stages have to ask for it.
//!
//! Always: a function without policies pays one test of one number at each stage, whatever the number of policies there
//! are: [`Checks`] says which of them it has, and everything else is off the path of its calls.
//! Why bits and not a list of policies as objects: the order in which policies are asked is part of their meaning, and
//! stands in one place for each stage (`admission/policy.rs` for admission).

use crate::rate::Rate;
use crate::time::Nanos;

/// The policies of a function; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Calls admitted per second, with the burst that may come at once. More: `RateLimited`.
    pub rate: Option<Rate>,
    /// A queued call that has waited this long gets one push in eight, whatever its criticality; see `ageing.rs`. None, or
    /// anything that is not less than the function's `timeout`: none ages.
    pub ageing: Option<Nanos>,
    /// A call is refused at once if those before it would take longer than it has: `DeadlineUnreachable`; see `estimate.rs`.
    pub refuse_infeasible: bool,
}

impl Policy {
    /// Which of them are set.
    pub(crate) fn checks(&self) -> Checks {
        Checks::NONE.with(Checks::RATE, self.rate.is_some())
    }
}

/// The policies that a function has, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks(u16);

impl Checks {
    pub const NONE: Checks = Checks(0);
    pub const RATE: Checks = Checks(1 << 0);
    /// Not a policy: the function is not configured any more. See `reconfigure.rs`.
    pub const RETIRED: Checks = Checks(1 << 15);

    /// Those that may refuse a call.
    const AT_ADMISSION: Checks = Checks(Checks::RATE.0 | Checks::RETIRED.0);

    pub const fn with(self, other: Checks, is_set: bool) -> Checks {
        Checks(if is_set { self.0 | other.0 } else { self.0 })
    }

    #[inline]
    pub const fn has(self, other: Checks) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether admission has to ask.
    #[inline]
    pub const fn any_at_admission(self) -> bool {
        self.has(Checks::AT_ADMISSION)
    }
}

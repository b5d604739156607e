//! What runs saw, so that nobody believes in a simulation in which nothing happened.

use std::collections::BTreeMap;
use std::fmt;

/// Sums over runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub starts: u64,
    pub worker_deaths: u64,
    pub router_deaths: u64,
    pub shim_deaths: u64,
    pub reattachments: u64,
    pub scribbles: u64,
    pub quarantines: u64,
    pub reloads: u64,
    pub leases: u64,
    pub retries: u64,
    pub breakers_opened: u64,
    pub nested: u64,
    pub circles: u64,
    pub hedges: u64,
    pub joins: u64,
    pub later: u64,
    /// Times that something downstream got into trouble or out of it, and limits that fell for it.
    pub troubles: u64,
    pub falls: u64,
    /// Times that more instances were asked for because calls waited, and instances sent away.
    pub pool_growths: u64,
    pub pool_releases: u64,
    /// Of calls of tenants that do not flood: how long each waited.
    pub delays_ns: Vec<u64>,
    pub refusals: BTreeMap<&'static str, u64>,
    pub answers: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Adds another run's.
    pub fn add(&mut self, other: &Totals) {
        self.starts += other.starts;
        self.worker_deaths += other.worker_deaths;
        self.router_deaths += other.router_deaths;
        self.shim_deaths += other.shim_deaths;
        self.reattachments += other.reattachments;
        self.scribbles += other.scribbles;
        self.quarantines += other.quarantines;
        self.reloads += other.reloads;
        self.leases += other.leases;
        self.retries += other.retries;
        self.breakers_opened += other.breakers_opened;
        self.nested += other.nested;
        self.circles += other.circles;
        self.hedges += other.hedges;
        self.joins += other.joins;
        self.later += other.later;
        self.troubles += other.troubles;
        self.falls += other.falls;
        self.pool_growths += other.pool_growths;
        self.pool_releases += other.pool_releases;
        self.delays_ns.extend(&other.delays_ns);
        for (mine, others) in [(&mut self.refusals, &other.refusals), (&mut self.answers, &other.answers)] {
            for (status, count) in others {
                *mine.entry(status).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { starts, worker_deaths, router_deaths, shim_deaths, .. } = self;
        write!(out, "{starts} starts; deaths of {worker_deaths} workers, {router_deaths} routers, ")?;
        write!(out, "{shim_deaths} shims; {} workers attached again; ", self.reattachments)?;
        writeln!(out, "{} scribbles, {} quarantines", self.scribbles, self.quarantines)?;
        let Totals { reloads, leases, retries, breakers_opened, .. } = self;
        writeln!(
            out,
            "sim: {reloads} reloads, {leases} leases, {retries} retries, {breakers_opened} breakers opened"
        )?;
        let Totals { nested, circles, hedges, joins, later, troubles, falls, .. } = self;
        write!(
            out,
            "sim: {nested} nested calls, {circles} circles of them, {hedges} hedges, {joins} joins, {later} later starts, "
        )?;
        writeln!(out, "{troubles} times better or worse downstream, for which {falls} limits fell")?;
        let Totals { pool_growths, pool_releases, .. } = self;
        writeln!(
            out,
            "sim: {pool_growths} times that more instances were wanted, {pool_releases} that were sent away"
        )?;
        writeln!(out, "sim: answers {:?}", self.answers)?;
        write!(out, "sim: refusals {:?}", self.refusals)
    }
}

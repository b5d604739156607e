//! How long a call takes through a direct lane: one outstanding, client and function with a core each.
//!
//! Targets: median and 99th percentile against two processes with two bare rings and no router between.
//! The client is a loop around `ShmClient`, as tight as the floor's: at this scale `quickfire load`, which paces, compares
//! every payload and keeps a timeline, is most of what it measures.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quickfire_client::shm::{Call, Options, ShmClient};

use super::{Bench, Experiment, NotMeasured, Plan};
use crate::floor::{Shape, Transport};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

pub const LANE: Experiment = Experiment {
    name: "lane-latency",
    what: "one call outstanding through a direct lane, beside two processes with two rings",
    seconds,
    run: unloaded,
};

/// Bytes in each request, as in the other experiments.
const PAYLOAD: [u8; 32] = [7; 32];
/// Calls between two looks at the clock that ends the run.
const CALLS_PER_LOOK: u32 = 64;

fn seconds(plan: &Plan) -> f64 {
    2.0 * plan.seconds + 1.0
}

fn unloaded(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    let seconds = bench.plan.seconds;
    bench.floor(Shape { transport: Transport::Direct, window: 1, message_size: 64, seconds })?;
    (bench.tell)("quickfire");
    let router = Router::start(&Config::echo(&bench.plan.host).set("direct_lanes = true"))?;
    let before = router.spent();
    let histogram = measure(&router, Duration::from_secs_f64(seconds))
        .map_err(|error| NotMeasured::Failed(error.to_string()))?;
    let router_ns = router.spent().router_ns - before.router_ns;
    bench.add("quickfire/calls", Unit::Count, histogram.len() as f64);
    bench.add("quickfire/middle_cpu", Unit::NsPerCall, router_ns as f64 / histogram.len().max(1) as f64);
    bench.add("quickfire/latency_p50", Unit::Ns, histogram.value_at_quantile(0.50) as f64);
    bench.add("quickfire/latency_p99", Unit::Ns, histogram.value_at_quantile(0.99) as f64);
    bench.add("quickfire/latency_max", Unit::Ns, histogram.max() as f64);
    Ok(())
}

/// Makes calls one after the other; every one must be answered through the lane, with what was sent.
fn measure(router: &Router, length: Duration) -> Result<Histogram<u64>, Box<dyn std::error::Error>> {
    let mut client = ShmClient::connect(&router.url(Transport::Direct), &Options::default())?;
    let echo = client.resolve("echo")?;
    client.open_lane(echo, 0)?;
    let mut histogram = Histogram::<u64>::new(3)?;
    let started = Instant::now();
    while started.elapsed() < length {
        for _ in 0..CALLS_PER_LOOK {
            let sent_at = Instant::now();
            client.submit(&Call::of(echo), &PAYLOAD)?;
            client.flush();
            let answered = loop {
                if let Some(answered) = client.poll()? {
                    break answered;
                }
                std::hint::spin_loop();
            };
            histogram.record(sent_at.elapsed().as_nanos() as u64)?;
            if !answered.is_direct() || answered.status != 0 || client.result(&answered) != PAYLOAD {
                return Err("a call did not come back through the lane as it was sent".into());
            }
            client.release(answered);
        }
    }
    Ok(histogram)
}

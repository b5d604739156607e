//! Calls from inside the router's process.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use protocol::{Criticality, FunctionId, Status};
use router::frontend::{Local, Request};
use support::*;

fn request(local: &Local, payload: &'static [u8]) -> Request {
    Request {
        function: local.resolve("echo").expect("echo"),
        payload: Bytes::from_static(payload),
        criticality: Criticality::Normal,
        budget: None,
    }
}

#[test]
fn a_call_from_another_thread_is_answered() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let local = bench.router.local(0).expect("shard 0");
    let answer = local.submit(request(&local, b"hello")).expect("room").wait();
    assert_eq!((answer.status, &answer.payload[..]), (Status::Ok, &b"hello"[..]));
    assert!(answer.timings.is_some());

    let large = Bytes::from(vec![7; 500_000]);
    let answer =
        local.submit(Request { payload: large.clone(), ..request(&local, b"") }).expect("room").wait();
    assert!(answer.payload == large);
    let unknown = Request { function: FunctionId(77), ..request(&local, b"") };
    assert_eq!(local.submit(unknown).expect("room").wait().status, Status::UnknownFunction);
    assert_eq!(local.resolve("nobody"), None);
}

#[test]
fn many_threads_call_at_once_and_each_gets_its_own_answers() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let local = bench.router.local(0).expect("shard 0");
            std::thread::spawn(move || {
                let tickets: Vec<_> = (0..500_u32)
                    .map(|number| {
                        let payload = Bytes::from(format!("{thread} {number}"));
                        local.submit(Request { payload, ..request(&local, b"") }).expect("room")
                    })
                    .collect();
                for (ticket, number) in tickets.into_iter().zip(0..) {
                    assert_eq!(&ticket.wait().payload[..], format!("{thread} {number}").as_bytes());
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("caller"));
}

/// Unparks the thread that polls.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_ticket_is_a_future() {
    let bench = echo().start();
    let _worker = bench.echo_worker();
    let local = bench.router.local(0).expect("shard 0");
    let mut ticket = pin!(local.submit(request(&local, b"async")).expect("room"));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let answer = loop {
        match ticket.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => break answer,
            Poll::Pending => std::thread::park_timeout(GIVE_UP),
        }
    };
    assert_eq!(&answer.payload[..], b"async");
}

#[test]
fn a_budget_that_runs_out_in_the_queue_is_an_expired_call() {
    let bench = echo().start();
    let local = bench.router.local(0).expect("shard 0");
    let late = Request { budget: Some(Duration::from_millis(300)), ..request(&local, b"late") };
    assert_eq!(local.submit(late).expect("room").wait().status, Status::Expired);
}

#[test]
fn every_ticket_is_answered_when_the_router_ends() {
    // Parked at once, so that a shard that rests once more after its end sleeps for ever.
    let setup = "idle = \"park\"\ndrain_timeout = \"100ms\"\n[functions.echo]\ncommand = [\"true\"]\n";
    let bench = Setup::new(setup).start();
    let local = bench.router.local(0).expect("shard 0");
    let ticket = local.submit(request(&local, b"nobody serves")).expect("room");
    bench.until("it is admitted", |seen| seen.shard(|counters| counters.local_calls) == 1);
    drop(bench);
    assert_eq!(ticket.wait().status, Status::Cancelled);
    let after = local.submit(request(&local, b"nobody is there")).expect("room");
    assert_eq!(after.wait().status, Status::Draining);
}

#[test]
fn a_router_hosted_on_glommio_serves_the_same() {
    let bench = Setup::new("host = \"glommio\"\n[functions.echo]\ncommand = [\"true\"]\n").start();
    let _worker = bench.echo_worker();
    assert_eq!(bench.client().call(call(0), b"over the wire").payload, b"over the wire");
    let local = bench.router.local(0).expect("shard 0");
    assert_eq!(&local.submit(request(&local, b"local")).expect("room").wait().payload[..], b"local");
    bench.router.drain();
    assert!(bench.router.join());
}

//! `Client` over every transport a router has, with one body for all: what holds over TCP holds over a Unix socket and through
//! shared memory.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::shm::{self, ShmClient};
use quickfire_client::{
    CallError, Client, ConnectError, Criticality, Disconnect, Expiry, ResolveError, Retry, Status,
    TraceContext,
};
use rustix::process::Signal;
use support::{GIVE_UP, Router, eventually, signal};

/// Where the router of a test can be reached, one address for each transport.
fn urls(router: &Router) -> [String; 3] {
    let dir = router.dir.display();
    [router.url.clone(), format!("unix://{dir}/router.sock"), format!("shm://{dir}")]
}

/// `echo`, and functions that are this very program.
fn manifest() -> String {
    let program = std::env::current_exe().unwrap();
    let own = |name: &str| {
        let program = program.display();
        format!(
            "[functions.{name}]\ncommand = [\"{program}\", \"--exact\", \"{name}\", \"--ignored\", \"--nocapture\"]\n\
             timeout = \"600s\"\n"
        )
    };
    format!("[functions.echo]\ncommand = [\"builtin:echo\"]\n{}{}", own("napper"), own("failing"))
}

#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn napper() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let nap = |call: &Call<'_>| {
        let length =
            std::str::from_utf8(call.payload())?.parse().map_err(|_| FunctionError::new("a number"))?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(length) {
            if call.is_cancelled() {
                return Err(FunctionError::new("woken"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok("slept well")
    };
    serve(nap).unwrap();
}

#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn failing() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    serve(|call: &Call<'_>| Err::<&str, _>(FunctionError::new(call.payload()))).unwrap();
}

/// Runs a body once for each transport, against one router.
fn on_every_transport(body: impl Fn(&Router, &str)) {
    let router = Router::start(&manifest());
    for url in urls(&router) {
        eprintln!("over {url}");
        body(&router, &url);
    }
}

#[test]
fn calls_of_every_size_come_back_unchanged() {
    on_every_transport(|_, url| {
        let client = Client::connect(url).unwrap();
        assert_eq!(client.url().to_string(), url);
        let echo = client.function("echo").unwrap();
        for size in [0, 1, 96, 97, 4096, 100_000, 1 << 20] {
            let payload: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let answer = echo.call(&payload).wait().unwrap();
            assert!(answer.payload == payload, "{size} bytes");
        }
        let trace = TraceContext { trace_id: [1; 16], parent_span_id: [2; 8], trace_flags: 1 };
        let call = echo.call("x").criticality(Criticality::Critical).deadline(GIVE_UP).trace(trace);
        let answer = call.idempotency_key([7; 16]).with_timings().wait().unwrap();
        assert!(answer.timings.is_some());
    });
}

#[test]
fn many_threads_share_one_client_and_each_gets_its_own_answers() {
    const THREADS: usize = 8;
    const CALLS: usize = 300;
    on_every_transport(|_, url| {
        // Fewer credits than threads, so that some wait for room.
        let client = Client::builder().credits(4).connect(url).unwrap();
        let echo = client.function("echo").unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let echo = &echo;
                scope.spawn(move || {
                    for number in 0..CALLS {
                        let text = format!("{thread}-{number}");
                        let answer = match number % 3 {
                            0 => echo.call(&text).wait(),
                            1 => echo.call(&text).start().and_then(|call| call.wait()),
                            _ => echo.call(&text).start().and_then(block_on),
                        };
                        assert_eq!(&answer.unwrap().payload[..], text.as_bytes());
                    }
                });
            }
        });
    });
}

#[test]
fn many_calls_are_outstanding_at_once_and_held_ones_go_out_together() {
    on_every_transport(|_, url| {
        let client = Client::connect(url).unwrap();
        let echo = client.function("echo").unwrap();
        let held = client.hold_writes();
        let calls: Vec<_> = (0..64).map(|number| echo.call(&number.to_string()).start().unwrap()).collect();
        drop(held);
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(&call.wait().unwrap().payload[..], number.to_string().as_bytes());
        }
        // Who waits sends what is held.
        let held = client.hold_writes();
        let call = echo.call("held").start().unwrap();
        assert_eq!(&block_on(call).unwrap().payload[..], b"held");
        drop(held);
        // An answer is there also if nobody has waited for it.
        let call = echo.call("seen").start().unwrap();
        eventually("it is answered", || call.is_done());
        assert_eq!(&call.wait().unwrap().payload[..], b"seen");
    });
}

#[test]
fn room_is_waited_for_or_told() {
    on_every_transport(|_, url| {
        let client = Client::builder().credits(1).connect(url).unwrap();
        let napper = client.function("napper").unwrap();
        let nap = napper.call("600000").start().unwrap();
        assert_eq!(napper.call("0").try_start().err(), Some(CallError::WouldBlock));
        let expired = napper.call("0").deadline(Duration::from_millis(20)).wait();
        assert_eq!(expired, Err(CallError::Expired(Expiry::NeverStarted)));
        // A call that is dropped is cancelled, and its credit comes back.
        drop(nap);
        assert_eq!(&napper.call("0").deadline(GIVE_UP).wait().unwrap().payload[..], b"slept well");
    });
}

#[test]
fn ends_that_are_not_results_say_what_they_are() {
    on_every_transport(|_, url| {
        let client = Client::connect(url).unwrap();
        assert!(matches!(client.function("nothing"), Err(ResolveError::UnknownFunction { .. })));
        let failing = client.function("failing").unwrap();
        assert_eq!(failing.call("why").wait(), Err(CallError::FunctionError("why".into())));
        let echo = client.function("echo").unwrap();
        let too_large = echo.call(&vec![0; 3 << 20]).wait();
        assert_eq!(too_large, Err(CallError::Refused { status: Status::PayloadTooLarge, retry_after: None }));

        let napper = client.function("napper").unwrap();
        let cancelled = napper.call("600000").start().unwrap();
        cancelled.cancel();
        assert!(matches!(cancelled.wait(), Err(CallError::Cancelled { .. })));
        let late = napper.call("600000").deadline(Duration::from_millis(30)).wait();
        // On a busy machine the client may give up before it hears of it.
        assert!(matches!(late, Err(CallError::Expired(_))), "{late:?}");
        let later = napper.call("600000").start().unwrap();
        let later = later.wait_timeout(Duration::from_millis(1)).expect_err("it sleeps on");
        later.cancel();
        assert!(later.wait().is_err());
    });
}

#[test]
fn a_killed_router_ends_what_is_outstanding_and_handles_reach_the_next_one() {
    let mut router = Router::start(&manifest());
    let connect = |url: &String| Client::builder().connect_timeout(GIVE_UP).connect(url).unwrap();
    let clients = urls(&router).map(|url| connect(&url));
    // Given: on each transport a running call, another one that nobody waits for, and a handle.
    let handles = clients
        .each_ref()
        .map(|client| (client.function("echo").unwrap(), client.function("napper").unwrap()));
    let calls = handles.each_ref().map(|(_, napper)| napper.call("600000").start().unwrap());
    let waiting = handles.each_ref().map(|(_, napper)| {
        let napper = napper.clone();
        thread::spawn(move || napper.call("600000").wait())
    });
    eventually("all six are with the router", || {
        let row = router.row("napper");
        let in_ring =
            router.inspect().lines().filter(|line| line.contains("napper ") && line.contains("ring")).count();
        row.queued as usize + in_ring + usize::from(router.inspect().contains("running")) >= 6
    });
    // When
    router.kill_and_start_again();
    // Expect: they may have run, and are not made again.
    for ended in
        calls.into_iter().map(|call| call.wait()).chain(waiting.into_iter().map(|it| it.join().unwrap()))
    {
        let Err(CallError::Disconnected { maybe_started: true, cause }) = ended else { panic!("{ended:?}") };
        assert!(matches!(cause, Disconnect::Closed | Disconnect::Io(_)), "{cause:?}");
    }
    // Expect: the next calls wait for the next router, by the handles there are.
    for (echo, _) in &handles {
        let answer = echo.call("after").wait();
        // The old connection may not have been seen to end.
        let answer = match answer {
            Err(CallError::Disconnected { .. }) => echo.call("after").wait(),
            answer => answer,
        };
        assert_eq!(&answer.unwrap().payload[..], b"after");
    }
}

#[test]
fn without_a_router_calls_are_safe_to_repeat_and_connecting_says_where_nobody_is() {
    let mut router = Router::start(&manifest());
    let clients = urls(&router)
        .map(|url| Client::builder().connect_timeout(Duration::from_millis(50)).connect(&url).unwrap());
    let handles = clients.each_ref().map(|client| client.function("echo").unwrap());
    signal(router.child.id(), Signal::KILL);
    router.child.wait().unwrap();
    for echo in &handles {
        eventually("the end of the connection is seen", || {
            let ended = echo.call("x").wait().expect_err("there is no router");
            let is_seen =
                ended == CallError::Disconnected { maybe_started: false, cause: Disconnect::Unreachable };
            assert!(is_seen == (ended.retry() == Retry::Safe), "{ended:?}");
            is_seen
        });
    }
    for url in urls(&router) {
        let error = Client::connect(&url).unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(&url), "{error}");
    }
}

#[test]
fn a_draining_router_answers_what_it_has_and_the_client_goes_to_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    let mut router = Router::start_in(home.path(), &manifest());
    let clients = urls(&router).map(|url| Client::builder().connect_timeout(GIVE_UP).connect(&url).unwrap());
    let handles = clients.each_ref().map(|client| client.function("napper").unwrap());
    let naps = handles.each_ref().map(|napper| napper.call("300").start().unwrap());
    eventually("a nap is taken", || router.inspect().contains("napper"));
    // When
    assert!(router.terminate().success());
    // Expect: accepted calls were finished.
    for nap in naps {
        assert_eq!(&nap.wait().unwrap().payload[..], b"slept well");
    }
    let url = router.url.clone();
    router.start_again();
    assert_eq!(router.url, url);
    for napper in &handles {
        assert_eq!(&napper.call("0").wait().unwrap().payload[..], b"slept well");
    }
}

#[test]
fn a_ring_of_one_thread_names_what_its_router_took_along_and_attaches_to_the_next_one() {
    let mut router = Router::start(&manifest());
    let url = format!("shm://{}", router.dir.display());
    let mut client = ShmClient::connect(&url, &shm::Options::default()).unwrap();
    let napper = client.resolve("napper").unwrap();
    let calls = [7, 8, 9].map(|call_id| {
        let call = shm::Call { call_id, ..shm::Call::of(napper) };
        (client.submit(&call, if call_id == 7 { b"0" } else { b"600000" }).unwrap(), call_id)
    });
    // Given: one is answered, two are not.
    assert_eq!(client.wait(Some(GIVE_UP)), Ok(true));
    let answered = client.poll().unwrap().expect("waited for");
    assert_eq!(answered.call_id, 7);
    client.release(answered);
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    assert_eq!(client.wait(Some(GIVE_UP)), Ok(false));
    assert!(matches!(client.poll(), Err(Disconnect::Closed | Disconnect::Io(_))));
    assert_eq!(client.unanswered().collect::<Vec<_>>(), calls[1..]);
    // Expect: nobody is there, and that is told in the time given.
    let gone = ShmClient::connect(&url, &shm::Options::default()).unwrap_err();
    assert!(matches!(gone, ConnectError::Unreachable { .. }), "{gone}");
    // Expect: the next router is found while it starts.
    let next = thread::spawn(move || client.reattach(GIVE_UP));
    router.start_again();
    let mut client = next.join().unwrap().unwrap();
    assert_eq!(client.unanswered().count(), 0);
    let echo = client.resolve("echo").unwrap();
    assert_eq!(&client.call(&shm::Call::of(echo), b"again").unwrap().payload[..], b"again");
    // Expect: an end to trying.
    router.child.kill().unwrap();
    router.child.wait().unwrap();
    assert!(matches!(client.reattach(Duration::ZERO), Err(ConnectError::Unreachable { .. })));
}

/// All the runtime a future needs: poll, park until woken, poll again.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(GIVE_UP),
        }
    }
}

//! Protection with real processes: what lies downstream of a router that is in trouble, and what the router does about it.

mod support;

use std::process::Output;

use quickfire_client::serve::{Call, FunctionError, serve};
use support::{Router, eventually};

/// The functions of a test: `echo`, and for each name with its options this very program, which does as it is told.
fn manifest(functions: &[(&str, &str)]) -> String {
    let program = std::env::current_exe().unwrap();
    let mut text = "[functions.echo]\ncommand = [\"builtin:echo\"]\n".to_owned();
    for (name, options) in functions {
        let command =
            format!("[\"{}\", \"--exact\", \"obedient\", \"--ignored\", \"--nocapture\"]", program.display());
        text.push_str(&format!("[functions.{name}]\ncommand = {command}\n{options}\n"));
    }
    text
}

#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn obedient() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    serve(|call: &Call<'_>| {
        let order = std::str::from_utf8(call.payload())?;
        match order.split(' ').collect::<Vec<_>>().as_slice() {
            ["say", word] => Ok(format!("{word} from {}", std::process::id())),
            ["die"] => std::process::exit(1),
            ["fail"] => Err(FunctionError::new("as I was told")),
            _ => Err(FunctionError::new(format!("{order} is no order"))),
        }
    })
    .unwrap();
}

fn tell(router: &Router, function: &str, order: &str) -> Output {
    router.invoke(&[function, "--data", order, "--deadline", "20s"])
}

fn says(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_failing_function_is_left_alone_and_something_else_stands_in_for_it() {
    let breaker = "breaker_failure_percent = 50\nbreaker_calls_min = 4\nbreaker_open = \"1h\"";
    let router = Router::start(&manifest(&[
        ("plain", breaker),
        ("excused", &format!("{breaker}\nfallback = \"answer:come back later\"")),
        ("replaced", &format!("{breaker}\nfallback = \"function:echo\"")),
    ]));
    for function in ["plain", "excused", "replaced"] {
        eventually("it serves", || says(&tell(&router, function, "say hello")).contains("hello from"));
        // Given: as many failures as successes, and more; each really a failure of the function.
        for _ in 0..20 {
            let output = tell(&router, function, "fail");
            let is_open = !says(&output).contains("as I was told");
            if is_open {
                break;
            }
        }
    }
    // Expect: each as it is configured, though all three could answer.
    let refused = tell(&router, "plain", "say hello");
    assert_eq!(refused.status.code(), Some(3), "{}", says(&refused));
    assert!(says(&refused).contains("breaker_open"), "{}", says(&refused));
    let excused = tell(&router, "excused", "say hello");
    assert!(excused.status.success());
    assert_eq!(excused.stdout.trim_ascii_end(), b"come back later");
    let replaced = tell(&router, "replaced", "say hello");
    assert!(replaced.status.success());
    assert_eq!(replaced.stdout.trim_ascii_end(), b"say hello", "echo did it");

    // Expect: the same through a ring.
    let shm = format!("shm://{}", router.dir.display());
    let excused =
        router.command("invoke").args(["excused", "--data", "x", "--connect", &shm]).output().unwrap();
    assert_eq!(excused.stdout.trim_ascii_end(), b"come back later", "{}", says(&excused));
    eventually("it is counted", || {
        router.counter("engine.fallbacks_answered") >= 2 && router.counter("engine.breakers_opened") == 3
    });
}

#[test]
fn a_function_that_recovers_is_tried_carefully_and_then_used_again() {
    let options =
        "breaker_failure_percent = 50\nbreaker_calls_min = 2\nbreaker_open = \"10ms\"\nbreaker_probes = 1";
    let router = Router::start(&manifest(&[("moody", options)]));
    eventually("it serves", || tell(&router, "moody", "say hello").status.success());
    eventually("it opens", || {
        tell(&router, "moody", "fail");
        router.counter("engine.breakers_opened") > 0
    });
    eventually("it closes again", || tell(&router, "moody", "say hello").status.success());
    for _ in 0..5 {
        assert!(tell(&router, "moody", "say hello").status.success());
    }
}

#[test]
fn a_call_that_kills_two_processes_is_quarantined_and_the_function_lives_on() {
    let router = Router::start(&manifest(&[("fragile", "idempotent = true\nretries = 7")]));
    eventually("it serves", || tell(&router, "fragile", "say hello").status.success());
    let poison = tell(&router, "fragile", "die");
    assert_eq!(poison.status.code(), Some(1), "{}", says(&poison));
    assert!(says(&poison).contains("quarantined"), "{}", says(&poison));
    eventually("it is kept", || router.counter("shard.quarantined_now") == 1);
    assert_eq!(router.counter("engine.workers_lost"), 2);
    eventually("a third process serves", || tell(&router, "fragile", "say hello").status.success());
}

#[test]
fn errors_are_tried_again_where_that_is_asked_for_and_the_last_one_is_the_answer() {
    let options = "idempotent = true\nretries = 2\nretry_errors = true\nretry_backoff = \"20ms\"";
    let router = Router::start(&manifest(&[("persistent", options)]));
    eventually("it serves", || tell(&router, "persistent", "say hello").status.success());
    let failed = tell(&router, "persistent", "fail");
    assert_eq!(failed.status.code(), Some(1), "{}", says(&failed));
    assert!(says(&failed).contains("as I was told"), "{}", says(&failed));
    eventually("it is counted and kept", || {
        router.counter("engine.calls_retried") == 2 && router.counter("shard.dead_letters_now") == 1
    });
}

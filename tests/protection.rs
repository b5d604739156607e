//! Protection with real processes: what lies downstream of a router that is in trouble, and what the router does about it.

mod support;

use std::process::Output;

use quickfire_client::serve::{Call, FunctionError, serve};
use quickfire_client::{CallError, Client};
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
            ["die", ..] => std::process::exit(1),
            ["push", "back", "by", name] => Err(FunctionError::backpressure(name, 1)),
            ["fail"] => Err(FunctionError::new("as I was told")),
            ["find", path] => Ok(std::fs::read_to_string(path)?),
            _ => Err(FunctionError::new(format!("{order} is no order"))),
        }
    })
    .unwrap();
}

fn tell(router: &Router, function: &str, order: &str) -> Output {
    router.invoke(&[function, "--data", order, "--deadline", "20s"])
}

/// Runs `quickfire quarantine` or `dead-letters`, and checks its exit code.
#[track_caller]
fn kept(router: &Router, shelf: &str, arguments: &[&str], code: i32) -> String {
    let output = router.command(shelf).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{shelf} {arguments:?}: {}", says(&output));
    says(&output)
}

/// The ids of the calls that are kept.
fn ids(router: &Router, shelf: &str) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&kept(router, shelf, &["list", "--json"], 0)).unwrap();
    list.as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()).collect()
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

#[test]
fn a_poisonous_call_is_inspected_replayed_and_dropped() {
    let functions = manifest(&[
        ("fragile", "idempotent = true\nretries = 7\npayload_size_max = \"8MiB\""),
        ("other", "idempotent = true"),
    ]);
    let router = Router::start(&format!("[router]\nframe_size_max = \"9MiB\"\n{functions}"));
    assert!(kept(&router, "quarantine", &["list"], 0).contains("no call is in the quarantine"));
    eventually("they serve", || {
        ["fragile", "other"].iter().all(|name| tell(&router, name, "say hello").status.success())
    });
    // Given: a payload that one message of the admin socket cannot carry, and another call.
    let poison = format!("die {}", "of this ".repeat(700_000));
    let path = router.dir.join("poison");
    std::fs::write(&path, &poison).unwrap();
    let output = router.invoke(&["fragile", "--in", path.to_str().unwrap(), "--deadline", "20s"]);
    assert!(says(&output).contains("quarantined"), "{}", says(&output));
    tell(&router, "other", "die");

    // Expect: both are there, the older one first.
    eventually("both are kept", || ids(&router, "quarantine").len() == 2);
    let [first, second] = &ids(&router, "quarantine")[..] else { panic!("two calls") };
    let list = kept(&router, "quarantine", &["list"], 0);
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..2], [first, "fragile"], "{list}");
    assert_eq!(rows[1][4..], ["quarantined", "2", "normal", "5,600,004"], "{list}");
    assert_eq!(rows[2][..2], [second, "other"], "{list}");

    // Expect: its bytes, all of them, in a file or on standard output.
    let file = router.dir.join("shown");
    let text = kept(&router, "quarantine", &["show", first, "--out", file.to_str().unwrap()], 0);
    assert!(text.contains(&format!("call {first} of fragile, normal: quarantined")), "{text}");
    assert!(std::fs::read(&file).unwrap() == poison.as_bytes(), "the same bytes");
    let shown = router.command("quarantine").args(["show", second, "--out", "-"]).output().unwrap();
    assert_eq!(shown.stdout, b"die");

    // Expect: run once more it kills as before, and is kept once more.
    let replayed = kept(&router, "quarantine", &["replay", second], 1);
    assert!(
        replayed.contains(&format!("call {second} of other run once more: quarantined after")),
        "{replayed}"
    );
    assert_eq!(ids(&router, "quarantine").len(), 3);

    // Expect: what goes is told, and what is not there too.
    let dropped = kept(&router, "quarantine", &["drop", second, "ffff00", first], 3);
    for told in [
        format!("dropped call {second} of other"),
        format!("dropped call {first} of fragile"),
        "no call with the id ffff00 is in the quarantine".into(),
    ] {
        assert!(dropped.contains(&told), "{dropped}");
    }
    kept(&router, "quarantine", &["show", second], 3);
    kept(&router, "quarantine", &["replay", second], 3);
    assert_eq!(kept(&router, "quarantine", &["drop", "--all"], 0).lines().count(), 1);
    assert!(ids(&router, "quarantine").is_empty());
    assert!(tell(&router, "fragile", "say hello").status.success(), "and the function lives on");
}

#[test]
fn a_dead_letter_is_replayed_when_what_it_lacked_is_there() {
    let router = Router::start(&manifest(&[("finder", "idempotent = true\nretry_errors = true")]));
    let path = router.dir.join("wanted");
    let wanted = format!("find {}", path.display());
    eventually("it serves", || tell(&router, "finder", "say hello").status.success());
    assert_eq!(tell(&router, "finder", &wanted).status.code(), Some(1));
    eventually("it is kept", || ids(&router, "dead-letters").len() == 1);
    let id = &ids(&router, "dead-letters")[0];
    assert!(ids(&router, "quarantine").is_empty(), "it is no poison");
    kept(&router, "quarantine", &["show", id], 3);

    // Expect: why it still fails, and what it returns when it does not.
    let failed = kept(&router, "dead-letters", &["replay", id], 1);
    assert!(failed.contains("function_error after") && failed.contains("No such file"), "{failed}");
    std::fs::write(&path, "found").unwrap();
    let out = router.dir.join("result");
    let replayed = kept(&router, "dead-letters", &["replay", id, "--out", out.to_str().unwrap()], 0);
    assert!(replayed.contains(": ok after"), "{replayed}");
    assert_eq!(std::fs::read(&out).unwrap(), b"found");
    let told = kept(&router, "dead-letters", &["replay", id, "--json"], 0);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["status"], &told["result_size"]), (&"ok".into(), &5.into()));

    // Expect: it stays until it is dropped; the failed repetition is a dead letter of its own.
    assert_eq!(ids(&router, "dead-letters").len(), 2);
    kept(&router, "dead-letters", &["drop", id], 0);
    assert_eq!(ids(&router, "dead-letters").len(), 1);
}

#[test]
fn without_a_router_nothing_is_kept_and_an_id_that_is_none_is_a_mistake() {
    let home = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], code, told: &str| {
        let output = support::quickfire().args(arguments).env("QUICKFIRE_DIR", home.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", says(&output));
        assert!(says(&output).contains(told), "{arguments:?}: {}", says(&output));
    };
    for shelf in ["quarantine", "dead-letters"] {
        check(&[shelf, "list"], 4, "no router answers at");
        check(&[shelf, "drop", "--all"], 4, "no router answers at");
        check(&[shelf, "show", "xyz"], 2, "an id is hexadecimal");
        check(&[shelf, "drop"], 2, "ID");
    }
}

#[test]
fn a_function_that_is_pushed_back_is_called_less_often_until_what_it_calls_has_recovered() {
    // Given: two refusals in a second are enough.
    let options = "backpressure_window = \"1s\"\nbackpressure_threshold = 2";
    let router = Router::start(&manifest(&[("reader", options), ("carefree", "backpressure = false")]));
    for function in ["reader", "carefree"] {
        eventually("it serves", || tell(&router, function, "say hello").status.success());
    }
    // When
    let pushed_back = tell(&router, "reader", "push back by database");
    assert_eq!(pushed_back.status.code(), Some(1), "{}", says(&pushed_back));
    assert!(says(&pushed_back).contains("pushed back by database"), "{}", says(&pushed_back));
    eventually("it is limited", || {
        tell(&router, "reader", "push back by database");
        router.counter("engine.backpressure_lowered") > 0
    });
    let report = router.command("functions").arg("reader").output().unwrap();
    assert!(says(&report).contains("reader: pushed back by database"), "{}", says(&report));

    // Expect: calls wait for it, and it is said for what.
    let client = Client::connect(&router.url).unwrap();
    let start = |name: &str, order: &str| client.function(name).unwrap().call(order).start().unwrap();
    let waiting: Vec<_> = (0..20).map(|_| start("reader", "say hello")).collect();
    eventually("they wait", || says(&router.command("functions").output().unwrap()).contains("backpressure"));
    // Expect: they are served, each in its turn, and the limit ends by itself.
    waiting.into_iter().for_each(|call| drop(call.wait().unwrap()));
    eventually("it is free again", || {
        let report = router.command("functions").arg("reader").output().unwrap();
        says(&report).contains("pushed back by database, no limit now")
    });

    // Expect: who is told by name and time can come again; also where nothing is limited, without the time.
    let ended = |name: &str| match start(name, "push back by search").wait() {
        Err(CallError::Backpressure { downstream, retry_after }) => {
            (downstream.as_str().to_owned(), retry_after.is_some())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ended("reader"), ("search".to_owned(), true));
    assert_eq!(ended("carefree"), ("search".to_owned(), false));
    let shm = format!("shm://{}", router.dir.display());
    let through_a_ring = router
        .command("invoke")
        .args(["carefree", "--data", "push back by search", "--connect", &shm])
        .output()
        .unwrap();
    assert!(says(&through_a_ring).contains("pushed back by search"), "{}", says(&through_a_ring));
}

//! Direct lanes with real processes: opened, used, revoked under load, and every one of the three processes killed.
//!
//! The function `witness` writes down each call that it begins, so that "begun at most once" is looked up, not believed.

mod support;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use quickfire_client::shm::{
    Answered, Call, Flags, FunctionId, LaneEnd, LaneNotOpened, LaneRefused, Options, ShmClient,
};
use quickfire_client::{CallError, Expiry, serve};
use rustix::process::Signal;
use support::{Router, eventually, signal};

/// Status numbers of the wire.
const OK: u8 = 0;
const WORKER_LOST: u8 = 64;

struct Story {
    router: Router,
    manifest: String,
    diary: PathBuf,
    dir: tempfile::TempDir,
}

impl Story {
    /// A router that allows lanes, with `echo` and `warm` processes of `witness`.
    fn new(warm: u32, options: &str) -> Self {
        Self::with("direct_lanes = true", warm, options)
    }

    fn with(router_options: &str, warm: u32, options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let diary = dir.path().join("begun");
        std::fs::write(&diary, "").unwrap();
        let program = std::env::current_exe().unwrap();
        let manifest = format!(
            "[router]\n{router_options}\n[functions.echo]\ncommand = [\"builtin:echo\"]\n\
             [functions.witness]\ncommand = [\"{}\", \"--ignored\", \"--exact\", \"witness\"]\n\
             env = {{ DIARY = \"{}\" }}\nwarm = {warm}\n{options}\n",
            program.display(),
            diary.display(),
        );
        let story = Self { router: Router::start(&manifest), manifest, diary, dir };
        eventually("all processes are attached", || story.router.row("witness").workers == u64::from(warm));
        story
    }

    fn client(&self) -> Client {
        let options = Options { slot_count: 256, ..Options::default() };
        let mut shm = ShmClient::attach(&self.router.dir, &options).unwrap();
        let witness = shm.resolve("witness").unwrap();
        Client { shm, witness, answers: HashMap::new(), next: 1 }
    }

    /// A client with a lane.
    fn client_with_lane(&self, slots: u32) -> Client {
        let mut client = self.client();
        eventually("the lane is open", || client.shm.open_lane(client.witness, slots).is_ok());
        client
    }

    /// Calls that began, in order.
    fn begun(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.diary).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Every call was answered, and began at most once; with `Ok` or `WorkerLost` exactly once, else never.
    fn check(&self, client: &Client) {
        let begun = self.begun();
        let once: HashSet<u64> = begun.iter().copied().collect();
        assert_eq!(once.len(), begun.len(), "a call began twice");
        for call_id in 1..client.next {
            let status = client.answers.get(&call_id).unwrap_or_else(|| panic!("{call_id} was not answered"));
            match *status {
                OK => assert!(once.contains(&call_id), "{call_id} has a result and never began"),
                WORKER_LOST => {}
                status => assert!(!once.contains(&call_id), "{call_id} began and was refused with {status}"),
            }
        }
    }
}

struct Client {
    shm: ShmClient,
    witness: FunctionId,
    /// Statuses by call.
    answers: HashMap<u64, u8>,
    next: u64,
}

impl Client {
    /// Submits a call that naps for so long; `false` if there is no room.
    fn submit(&mut self, nap_us: u64) -> bool {
        let call = Call { call_id: self.next, ..Call::of(self.witness) };
        let is_in = self.shm.submit(&call, payload(self.next, nap_us).as_bytes()).is_ok();
        self.next += u64::from(is_in);
        is_in
    }

    /// As many calls outstanding: fewer than the lane has slots, so that none waits in the router.
    fn fill(&mut self, count: u32) {
        while self.shm.outstanding() < count && self.submit(0) {}
        self.shm.flush();
    }

    fn note(&mut self, answered: Answered) {
        if answered.status == OK {
            let told = String::from_utf8_lossy(self.shm.result(&answered)).into_owned();
            assert_eq!(told, answered.call_id.to_string(), "the answer of another call");
        }
        let old = self.answers.insert(answered.call_id, answered.status);
        assert_eq!(old, None, "{} was answered twice", answered.call_id);
        self.shm.release(answered);
    }

    /// Takes what is there.
    fn take(&mut self) {
        self.shm.wait(Some(Duration::from_millis(1))).unwrap();
        while let Some(answered) = self.shm.poll().unwrap() {
            self.note(answered);
        }
    }

    fn finish(&mut self) {
        eventually("every call is answered", || {
            self.take();
            self.shm.outstanding() == 0
        });
    }

    fn has_been_direct(&mut self) -> bool {
        let answer = self.shm.call(&Call::of(self.witness), b"");
        answer.is_ok() && self.shm.has_lane()
    }
}

fn payload(call_id: u64, nap_us: u64) -> String {
    format!("{call_id} {nap_us}")
}

/// A function process.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn witness() {
    let Some(path) = std::env::var_os("DIARY") else { return };
    let mut diary = std::fs::File::options().append(true).open(path).unwrap();
    let run = |call: &serve::Call<'_>| {
        let text = std::str::from_utf8(call.payload())?;
        let Some((call_id, nap_us)) = text.split_once(' ') else { return Ok(String::new()) };
        // One write of a few bytes: whole, or not at all.
        diary.write_all(format!("{call_id}\n").as_bytes())?;
        let nap_us: u64 = nap_us.parse()?;
        if nap_us > 0 {
            std::thread::sleep(Duration::from_micros(nap_us));
        }
        Ok(call_id.to_owned())
    };
    serve::serve(run).unwrap();
}

#[test]
fn calls_go_past_the_router_and_are_counted_all_the_same() {
    let story = Story::new(1, "");
    let mut client = story.client_with_lane(16);
    for _ in 0..100 {
        client.submit(0);
        // Pauses now and then, so that the worker is found awake and asleep.
        client.take();
    }
    client.finish();
    story.check(&client);
    assert!(client.answers.values().all(|status| *status == OK));
    eventually("the router has counted them", || story.router.row("witness").ok >= 100);
    let counters = story.router.inspect();
    let line = counters.lines().find(|line| line.contains("lane_calls")).expect("a counter of lanes");
    assert!(line.contains("100"), "{line}");
}

#[test]
fn timings_deadlines_and_refusals_are_as_in_the_ring() {
    let story = Story::new(1, "payload_size_max = 5000");
    let mut client = story.client_with_lane(16);
    let witness = client.witness;
    let call = Call { flags: Flags::WANT_TIMINGS, ..Call::of(witness) };
    let answer = client.shm.call(&call, b"1 1000").unwrap();
    let timings = answer.timings.expect("asked for");
    assert!(timings.finished_ns >= 1_000_000, "{timings:?}");

    let late = Call { deadline_at_ns: Some(1), ..Call::of(witness) };
    let error = client.shm.call(&late, b"2 0").unwrap_err();
    assert_eq!(error, CallError::Expired(Expiry::NeverStarted));
    assert_eq!(story.begun(), [1]);

    // Expect: more than the function takes goes to the router, which says so.
    let error = client.shm.call(&Call::of(witness), &vec![0; 5001]).unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error}");
    assert!(client.shm.has_lane());
}

#[test]
fn a_router_that_does_not_allow_lanes_says_so() {
    let story = Story::with("", 1, "");
    let mut client = story.client();
    let refused = client.shm.open_lane(client.witness, 4);
    assert_eq!(refused, Err(LaneNotOpened::Refused(LaneRefused::SwitchedOff)));
    assert!(client.shm.call(&Call::of(client.witness), b"").is_ok(), "its ring is as good as before");
}

#[test]
fn lanes_are_refused_when_there_is_nothing_to_lease_and_given_again_when_there_is() {
    let story = Story::new(1, "");
    let mut clients: Vec<Client> = (0..4).map(|_| story.client_with_lane(4)).collect();
    let mut fifth = story.client();
    let refused = fifth.shm.open_lane(fifth.witness, 4);
    assert_eq!(refused, Err(LaneNotOpened::Refused(LaneRefused::NoWorker)), "the process serves four");
    let witness = fifth.witness;
    let refused = clients[0].shm.open_lane(witness, 4);
    assert_eq!(refused, Err(LaneNotOpened::Refused(LaneRefused::LanePresent)));
    let refused = fifth.shm.open_lane(FunctionId(99), 4);
    assert_eq!(refused, Err(LaneNotOpened::Refused(LaneRefused::UnknownFunction)));
    for client in &mut clients {
        assert!(client.has_been_direct());
    }
    drop(clients.pop());
    eventually("a client that left gives its lane back", || fifth.shm.open_lane(fifth.witness, 4).is_ok());
    assert!(fifth.has_been_direct());
}

#[test]
fn a_function_with_one_slot_has_none_to_lease() {
    let story = Story::new(1, "slots = 1");
    let mut client = story.client();
    let refused = client.shm.open_lane(client.witness, 4);
    assert_eq!(refused, Err(LaneNotOpened::Refused(LaneRefused::NoWorker)));
}

#[test]
fn a_lane_ends_when_others_wait_and_nothing_is_lost_or_run_twice() {
    let story = Story::new(1, "slots = 64");
    let mut client = story.client_with_lane(32);
    // Others wait: more calls than the ring holds, each of some length.
    let mut other = story.client();
    other.next = 1_000_000;
    for _ in 0..200 {
        other.submit(500);
        client.submit(100);
    }
    other.shm.flush();
    eventually("the lane is taken away", || {
        client.submit(100);
        client.take();
        client.shm.lane_end() == Some(LaneEnd::OthersWait)
    });
    client.finish();
    eventually("the others are served", || {
        other.take();
        other.shm.outstanding() == 0
    });
    story.check(&client);
    assert!(client.answers.values().all(|status| *status == OK), "not one was lost");
    // Expect: when nobody waits any more there are lanes again.
    eventually("another lane", || client.shm.open_lane(client.witness, 8).is_ok());
    assert!(client.has_been_direct());
}

#[test]
fn a_program_that_is_replaced_ends_the_lane_and_no_call_is_lost() {
    let story = Story::new(1, "");
    let mut client = story.client_with_lane(64);
    // When: another variable is another edition.
    let file = story.dir.path().join("other.toml");
    std::fs::write(&file, story.manifest.replace("DIARY =", "VERSION = \"2\", DIARY =")).unwrap();
    let output = story.router.command("apply").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Expect
    eventually("the lane is over", || {
        client.fill(8);
        client.take();
        client.shm.lane_end().is_some()
    });
    // It closes its lanes and goes; the router may see the one before the other, or both at once.
    let end = client.shm.lane_end();
    assert!(matches!(end, Some(LaneEnd::WorkerDraining | LaneEnd::WorkerLost)), "{end:?}");
    client.finish();
    story.check(&client);
    assert!(client.answers.values().all(|status| *status == OK), "not one was lost");
    eventually("a lane to the new one", || client.shm.open_lane(client.witness, 8).is_ok());
    assert!(client.has_been_direct());
}

#[test]
fn kill_of_a_worker_loses_only_what_it_ran() {
    let story = Story::new(2, "");
    let mut client = story.client_with_lane(64);
    let mut killed = 0;
    for round in 0..3 {
        let answered = client.answers.len();
        for _ in 0..60 {
            client.submit(200);
        }
        eventually("calls are answered", || {
            client.take();
            client.answers.len() > answered + 5
        });
        // Both, for nobody says which of them has the lane.
        for pid in story.router.workers("witness") {
            signal(pid, Signal::KILL);
            killed += 1;
        }
        client.finish();
        // All of them may have been answered before the signal came.
        eventually("the lane is over", || {
            client.take();
            client.shm.lane_end().is_some()
        });
        assert_eq!(client.shm.lane_end(), Some(LaneEnd::WorkerLost), "round {round}");
        eventually("a lane to the next one", || client.shm.open_lane(client.witness, 64).is_ok());
    }
    story.check(&client);
    let lost = client.answers.values().filter(|status| **status == WORKER_LOST).count();
    assert!(lost <= killed, "{lost} calls were lost with {killed} processes that ran one each");
}

#[test]
fn kill_of_a_worker_that_answers_in_batches_begins_nothing_twice() {
    let story = Story::new(2, "");
    let mut client = story.client_with_lane(256);
    for _ in 0..5 {
        let answered = client.answers.len();
        eventually("the worker is in full swing", || {
            client.fill(200);
            client.take();
            client.answers.len() > answered + 2_000
        });
        for pid in story.router.workers("witness") {
            signal(pid, Signal::KILL);
        }
        client.fill(200);
        client.finish();
        assert_eq!(client.shm.lane_end(), Some(LaneEnd::WorkerLost));
        eventually("a lane to the next one", || client.shm.open_lane(client.witness, 256).is_ok());
    }
    story.check(&client);
}

#[test]
fn a_call_that_runs_past_its_time_is_stopped_in_a_lane_too() {
    let story = Story::new(1, "timeout = \"100ms\"");
    let mut client = story.client_with_lane(4);
    client.submit(60_000_000);
    client.submit(0);
    client.finish();
    let timed_out = 33;
    assert_eq!(client.answers[&1], timed_out);
    assert_eq!(client.answers[&2], OK, "what was behind it was not begun, and went another way");
    assert_eq!(client.shm.lane_end(), Some(LaneEnd::WorkerOverstayed));
}

#[test]
fn a_worker_that_stands_still_with_calls_in_its_lane_is_found_and_replaced() {
    // Given: a worker that is stopped, which only the client could tell.
    let story = Story::new(1, "");
    let mut client = story.client_with_lane(4);
    assert!(client.has_been_direct());
    let pid = story.router.workers("witness")[0];
    signal(pid, Signal::STOP);
    eventually("it stands still", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    });
    for _ in 0..4 {
        client.submit(0);
    }
    // Expect: its lease is not renewed, it does not let go, and the next one runs what it had not begun.
    client.finish();
    story.check(&client);
    assert!(client.answers.values().all(|status| *status == OK), "{:?}", client.answers);
    assert_eq!(client.shm.lane_end(), Some(LaneEnd::WorkerLost));
}

#[test]
fn a_worker_busy_with_a_long_call_of_its_ring_keeps_its_life_though_it_keeps_the_lane() {
    let story = Story::new(1, "");
    let mut client = story.client_with_lane(4);
    assert!(client.has_been_direct());
    let pid = story.router.workers("witness");
    // Given: a call through the router that takes longer than lease and grace together; the lane is not used meanwhile.
    let mut other = story.client();
    other.submit(4_000_000);
    other.finish();
    assert_eq!(other.answers[&1], OK);
    assert_eq!(story.router.workers("witness"), pid);
    eventually("the unused lane ends", || {
        client.take();
        client.shm.lane_end() == Some(LaneEnd::Idle)
    });
}

#[test]
fn kill_of_a_client_under_load_gives_its_credits_back() {
    let story = Story::new(1, "slots = 8");
    let mut load = story
        .router
        .command("load")
        .args(["witness", "--direct", "--window", "4", "--connect"])
        .arg(format!("shm://{}", story.router.dir.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // What the generator sends is no text: errors of the function, and as good as any answer.
    eventually("it calls", || story.router.row("witness").errors > 100);
    load.kill().unwrap();
    load.wait().unwrap();
    // Expect: four of eight slots again, which there are only when the dead client's came back.
    eventually("its credits are there again", || {
        let mut client = story.client();
        let ring = client.shm.free_slots();
        client.shm.open_lane(client.witness, 4).is_ok() && client.shm.free_slots() == ring + 4
    });
}

#[test]
fn load_tells_how_many_calls_went_past_the_router_or_why_none_can() {
    let load = |story: &Story| {
        let output = story
            .router
            .command("load")
            .args(["echo", "--direct", "--window", "8", "--duration", "200ms", "--json", "-", "--connect"])
            .arg(format!("shm://{}", story.router.dir.display()))
            .output()
            .unwrap();
        (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, report, text) = load(&Story::new(1, ""));
    assert_eq!(code, Some(0), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["direct"], report["answered"]);
    assert!(report["ok"].as_u64().unwrap() > 0);
    assert!(text.contains("past the router"), "{text}");

    let (code, _, text) = load(&Story::with("", 1, ""));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("direct_lanes = false"), "{text}");
}

#[test]
fn a_lane_that_nobody_uses_goes_back() {
    let story = Story::new(1, "");
    let mut client = story.client_with_lane(4);
    eventually("it ends", || {
        client.take();
        client.shm.lane_end().is_some()
    });
    assert_eq!(client.shm.lane_end(), Some(LaneEnd::Idle));
    assert!(client.shm.call(&Call::of(client.witness), b"").is_ok(), "through the router");
}

#[test]
fn a_draining_router_ends_its_lanes_and_every_call_has_an_answer() {
    let mut story = Story::new(1, "");
    let mut client = story.client_with_lane(32);
    for _ in 0..32 {
        client.submit(2_000);
    }
    client.shm.flush();
    signal(story.router.child.id(), Signal::TERM);
    eventually("every call is answered", || {
        // The router is gone when it has nothing left to say.
        let _ = client.shm.wait(Some(Duration::from_millis(1)));
        while let Ok(Some(answered)) = client.shm.poll() {
            client.note(answered);
        }
        client.shm.outstanding() == 0
    });
    story.check(&client);
    assert!(story.router.child.wait().unwrap().success());
}

#[test]
fn kill_of_the_router_ends_the_lane_like_the_ring() {
    let mut story = Story::new(1, "");
    let mut client = story.client_with_lane(4);
    assert!(client.has_been_direct());
    let warm = story.router.workers("witness");
    story.router.kill_and_start_again();
    eventually("the client notices", || {
        let _ = client.shm.wait(Some(Duration::from_millis(1)));
        client.shm.poll().is_err()
    });
    assert!(client.shm.open_lane(client.witness, 4).is_err());
    // Expect: the same process serves the next router, and a lane of it.
    let mut next = story.client_with_lane(4);
    assert!(next.has_been_direct());
    assert_eq!(story.router.workers("witness"), warm);
}

#[test]
fn cancelled_calls_end_once_in_a_lane_too() {
    let story = Story::new(1, "");
    let mut client = story.client_with_lane(8);
    client.submit(20_000);
    let call = Call { call_id: client.next, ..Call::of(client.witness) };
    let slot = client.shm.submit(&call, payload(client.next, 0).as_bytes()).unwrap();
    client.next += 1;
    client.shm.cancel(slot, call.call_id);
    client.finish();
    story.check(&client);
    let cancelled = 48;
    assert_eq!((client.answers[&1], client.answers[&2]), (OK, cancelled));
}

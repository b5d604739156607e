//! Functions for AWS Lambda, unmodified: with the runtime clients that AWS publishes for Python and Rust, and with a `bootstrap` of a
//! few lines. The clients come from package indexes, and so these tests run where `.ci/run` has installed them; elsewhere they are
//! ignored, and fail when they are asked for without them.

mod support;

use std::process::Output;

use support::{Router, echo_manifest, eventually};

/// An interpreter that has the package.
fn python() -> String {
    let missing = "QUICKFIRE_TEST_AWSLAMBDARIC names no Python with awslambdaric; run these, and the tests again:\n  \
                   python3 -m venv target/awslambdaric\n  target/awslambdaric/bin/pip install awslambdaric\n  \
                   export QUICKFIRE_TEST_AWSLAMBDARIC=$PWD/target/awslambdaric/bin/python";
    let python = std::env::var("QUICKFIRE_TEST_AWSLAMBDARIC").unwrap_or_else(|_| panic!("{missing}"));
    let has_it = std::process::Command::new(&python).args(["-c", "import awslambdaric"]).output();
    assert!(has_it.is_ok_and(|output| output.status.success()), "{missing}");
    python
}

/// The program of `tests/lambda_rust`.
fn rust_program() -> String {
    let missing = "QUICKFIRE_TEST_LAMBDA_RUST names no program; run these, and the tests again:\n  \
                   cargo build --manifest-path tests/lambda_rust/Cargo.toml --target-dir target/lambda_rust\n  \
                   export QUICKFIRE_TEST_LAMBDA_RUST=$PWD/target/lambda_rust/debug/lambda-rust";
    let program = std::env::var("QUICKFIRE_TEST_LAMBDA_RUST").unwrap_or_else(|_| panic!("{missing}"));
    assert!(std::path::Path::new(&program).exists(), "{missing}");
    program
}

/// A function whose module is written in `dir`.
fn function(dir: &std::path::Path, name: &str, module: &str) -> String {
    std::fs::write(dir.join(format!("{name}_module.py")), module).unwrap();
    format!(
        "[functions.{name}]\nruntime = \"lambda\"\ncommand = [{:?}, \"-m\", \"awslambdaric\", \"{name}_module.handler\"]\n\
         env = {{ PYTHONPATH = {:?} }}\n",
        python(),
        dir.display().to_string()
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs awslambdaric from a package index: .ci/run installs it"]
fn the_example_does_its_work() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions");
    let table = format!(
        "[functions.upload]\nruntime = \"lambda\"\ncommand = [\"{folder}/runtimes/upload/bootstrap\"]\nenv = {{ PYTHON = {:?} }}\n",
        python()
    );
    let router = Router::start(&(echo_manifest(1) + &table));
    let steps = json(&router.invoke(&["upload", "--in", &format!("{folder}/samples/s3-put.json")]));
    assert_eq!(steps["function"], "upload");
    let step = |at: usize| {
        (steps["steps"][at]["key"].as_str().unwrap(), steps["steps"][at]["step"].as_str().unwrap())
    };
    assert_eq!((step(0), step(1)), (("2026/beach at noon.JPG", "thumbnail"), ("2026/diary.txt", "moderate")));
    let log = std::fs::read_to_string(router.dir.join("logs/upload.0.log")).unwrap();
    assert!(log.contains(" out ") && log.contains(": 2 files, "), "{log}");
}

#[test]
#[ignore = "needs a program with dependencies of its own: .ci/run builds it"]
fn a_function_in_rust_runs_as_it_is() {
    let table = format!("[functions.rust]\nruntime = \"lambda\"\ncommand = [{:?}]\n", rust_program());
    let router = Router::start(&(echo_manifest(1) + &table));
    let first = json(&router.invoke(&["rust", "--data", "{\"name\": \"Ada\"}"]));
    assert_eq!((&first["name"], &first["function"]), (&"Ada".into(), &"rust".into()));
    let failed = router.invoke(&["rust", "--data", "{\"fail\": \"no such user\"}"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("no such user"), "{}", text(&failed.stderr));
    let last = json(&router.invoke(&["rust", "--data", "{}"]));
    assert_eq!(last["pid"], first["pid"], "an error is no reason to end");
    assert!(last["deadline_ms"].as_u64() >= first["deadline_ms"].as_u64());
    assert_ne!(last["id"], first["id"]);
}

#[test]
#[ignore = "needs curl: .ci/run installs it"]
fn a_custom_runtime_is_a_few_lines_of_shell() {
    // Given the loop that AWS shows for a custom runtime
    let script = r#"
        api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
        headers=$FOLDER/headers
        while :; do
            event=$(curl -sS -D "$headers" "$api/invocation/next") || exit
            id=$(tr -d '\r' < "$headers" | sed -n 's/^lambda-runtime-aws-request-id: //Ip')
            curl -sS -o /dev/null -X POST "$api/invocation/$id/response" -d "$(echo "$event" | tr a-z A-Z)"
        done"#;
    let dir = tempfile::tempdir().unwrap();
    let table = format!(
        "[functions.shell]\nruntime = \"lambda\"\ncommand = [\"sh\", \"-c\", {script:?}]\nenv = {{ FOLDER = {:?} }}\n",
        dir.path().display().to_string()
    );
    let router = Router::start(&(echo_manifest(1) + &table));
    for word in ["one", "two"] {
        let output = router.invoke(&["shell", "--data", word]);
        assert_eq!(text(&output.stdout).trim_end(), word.to_uppercase(), "{}", text(&output.stderr));
    }
}

#[test]
#[ignore = "needs awslambdaric from a package index: .ci/run installs it"]
fn context_errors_and_bad_events_are_what_they_are_on_lambda() {
    let dir = tempfile::tempdir().unwrap();
    let module = "import os\n\
                  calls = 0\n\
                  def handler(event, context):\n  \
                    global calls\n  calls += 1\n  \
                    if event.get('raise'): raise KeyError('no such user')\n  \
                    return {'calls': calls, 'pid': os.getpid(), 'id': context.aws_request_id, 'arn': context.invoked_function_arn,\n    \
                            'left': context.get_remaining_time_in_millis(), 'trace': os.environ.get('_X_AMZN_TRACE_ID')}\n";
    let router = Router::start(&(echo_manifest(1) + &function(dir.path(), "context", module)));
    let first = json(&router.invoke(&["context", "--data", "{}", "--deadline", "20s"]));
    assert_eq!(first["calls"], 1);
    assert_eq!(first["arn"], "arn:aws:lambda:local:000000000000:function:context");
    let left = first["left"].as_u64().unwrap();
    assert!((1..=20_000).contains(&left), "{first}");
    assert_eq!(first["trace"], serde_json::Value::Null);

    // Expect: an exception is a function error with Lambda's own text, and the process goes on.
    let raised = router.invoke(&["context", "--data", "{\"raise\": true}"]);
    assert_eq!(raised.status.code(), Some(1));
    let told = text(&raised.stderr);
    assert!(told.contains("\"errorType\": \"KeyError\"") && told.contains("no such user"), "{told}");
    let bad = router.invoke(&["context", "--data", "this is no JSON"]);
    assert!(text(&bad.stderr).contains("Runtime.UnmarshalError"), "{}", text(&bad.stderr));
    let last = json(&router.invoke(&["context", "--data", "{}"]));
    assert_eq!((&last["calls"], &last["pid"]), (&3.into(), &first["pid"]));
    assert_ne!(last["id"], first["id"]);
}

#[test]
#[ignore = "needs awslambdaric from a package index: .ci/run installs it"]
fn a_function_that_cannot_start_says_why_and_one_that_dies_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let broken = function(dir.path(), "broken", "import no_such_module\n");
    let dies = function(
        dir.path(),
        "dies",
        "import os\ndef handler(event, context):\n  if event.get('die'): os._exit(7)\n  return os.getpid()\n",
    );
    let router = Router::start(&(echo_manifest(1) + &broken + &dies));
    let told = text(&router.invoke(&["broken", "--data", "{}"]).stderr);
    assert!(told.contains("init_error: ") && told.contains("Runtime.ImportModuleError"), "{told}");

    let first = json(&router.invoke(&["dies", "--data", "{}"]));
    let died = text(&router.invoke(&["dies", "--data", "{\"die\": true}"]).stderr);
    assert!(died.contains("died: the program ended (exit status: 7)"), "{died}");
    let second = json(&router.invoke(&["dies", "--data", "{}"]));
    assert_ne!(first, second);
}

#[test]
#[ignore = "needs awslambdaric from a package index: .ci/run installs it"]
fn large_events_and_results_go_through_and_too_large_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let module = "def handler(event, context): return event['text'] * event['times']\n";
    let mut large = function(dir.path(), "large", module);
    large.push_str("payload_size_max = \"4MiB\"\n");
    let router =
        Router::start(&("[router]\nframe_size_max = \"8MiB\"\n".to_owned() + &echo_manifest(1) + &large));
    let event = dir.path().join("event.json");
    std::fs::write(&event, format!("{{\"times\": 1, \"text\": {:?}}}", "x".repeat(3_000_000))).unwrap();
    let result = json(&router.invoke(&["large", "--in", event.to_str().unwrap()]));
    assert_eq!(result.as_str().map(str::len), Some(3_000_000));
    let told = router.invoke(&["large", "--data", "{\"times\": 5000000, \"text\": \"x\"}"]);
    assert!(text(&told.stderr).contains("result_too_large"), "{}", text(&told.stderr));
    eventually("it serves on", || {
        router.invoke(&["large", "--data", "{\"times\": 1, \"text\": \"x\"}"]).stdout.starts_with(b"\"x\"")
    });
}

#[test]
#[ignore = "needs awslambdaric from a package index: .ci/run installs it"]
fn a_function_past_its_time_is_killed_and_the_next_call_gets_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let module =
        "import os, time\ndef handler(event, context):\n  time.sleep(event['sleep'])\n  return os.getpid()\n";
    let router = Router::start(&(echo_manifest(1) + &function(dir.path(), "sleeps", module)));
    let first = json(&router.invoke(&["sleeps", "--data", "{\"sleep\": 0}"]));
    let late = router.invoke(&["sleeps", "--data", "{\"sleep\": 1000}", "--deadline", "500ms"]);
    assert_eq!(late.status.code(), Some(3), "{}", text(&late.stderr));
    let second = json(&router.invoke(&["sleeps", "--data", "{\"sleep\": 0}"]));
    assert_ne!(first, second);
}

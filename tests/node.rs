//! Functions in Node: an HTTP server, and Lambda handlers behind a `bootstrap` of one file. Node is not everywhere, and so these tests
//! run where `.ci/run` has installed it; elsewhere they are ignored, and fail when they are asked for without it.

mod support;

use std::path::Path;
use std::process::Output;

use support::{Router, echo_manifest, eventually};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/functions");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    text(&output.stderr)
}

/// A Lambda handler in `dir`, behind the example's bootstrap.
fn lambda(dir: &Path, name: &str, module: &str) -> String {
    std::fs::write(dir.join(format!("{name}.mjs")), module).unwrap();
    format!(
        "[functions.{name}]\nruntime = \"lambda\"\ncommand = [\"{FOLDER}/runtimes/webhook/bootstrap.mjs\", \"{name}.handler\"]\n\
         env = {{ LAMBDA_FOLDER = {:?} }}\n",
        dir.display().to_string()
    )
}

/// An HTTP server in `dir`, which says with each answer what it was asked.
fn http(dir: &Path, name: &str, more: &str) -> String {
    let server = r#"
        import http from "node:http";
        let isReady = false, calls = 0;
        setTimeout(() => { isReady = true; }, 50);
        const server = http.createServer((request, response) => {
            if (request.url === "/ready") return response.writeHead(isReady ? 204 : 503).end();
            const parts = [];
            request.on("data", (part) => parts.push(part));
            request.on("end", () => {
                const body = Buffer.concat(parts);
                if (body.equals(Buffer.from("hang"))) return;
                if (body.equals(Buffer.from("throw"))) throw new Error("as asked");
                if (body.equals(Buffer.from("refuse"))) return response.writeHead(422).end("not this");
                if (body.length > 10_000) return response.end(body);
                response.end(JSON.stringify({ pid: process.pid, calls: ++calls, isReady, body: body.toString(), headers: request.headers }));
            });
        });
        server.listen(process.env.SOCKET ?? Number(process.env.PORT), process.env.SOCKET ? undefined : "127.0.0.1");
    "#;
    let file = dir.join("server.mjs");
    std::fs::write(&file, server).unwrap();
    format!(
        "[functions.{name}]\nruntime = \"http\"\ncommand = [\"node\", {file:?}]\nhttp_ready_path = \"/ready\"\n\
         start_timeout = \"60s\"\n{more}"
    )
}

#[test]
#[ignore = "needs node: .ci/run installs it"]
fn the_example_checks_who_sent_a_webhook() {
    let manifest = std::fs::read_to_string(format!("{FOLDER}/node.toml")).unwrap();
    let router = Router::start(&(echo_manifest(1) + &manifest.replace("[\"./", &format!("[\"{FOLDER}/"))));
    let event = format!("{FOLDER}/samples/push.json");
    let answer = json(&router.invoke(&["webhook", "--in", &event, "--deadline", "60s"]));
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let summary: serde_json::Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    let expected = r#"{"repository":"example/thumbnails","branch":"main","commits":2,"authors":["Ada","Grace"],"files":3}"#;
    assert_eq!(summary, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    // Expect: one letter more, and the signature is none.
    let changed = std::fs::read_to_string(&event).unwrap().replace("refs/heads/main", "refs/heads/mainz");
    let refused = json(&router.invoke(&["webhook", "--data", &changed, "--deadline", "60s"]));
    assert_eq!(refused["statusCode"], 401, "{refused}");
}

#[test]
#[ignore = "needs node: .ci/run installs it"]
fn lambda_handlers_have_their_context_and_their_errors() {
    let dir = tempfile::tempdir().unwrap();
    let module = r#"
        let calls = 0;
        export async function handler(event, context) {
            if (event.raise) throw new RangeError("no such user");
            if (event.die) process.exit(7);
            if (event.size) return "x".repeat(event.size);
            await new Promise((resolve) => setTimeout(resolve, event.sleep ?? 0));
            return { calls: ++calls, pid: process.pid, id: context.awsRequestId, arn: context.invokedFunctionArn,
                     left: context.getRemainingTimeInMillis(), name: context.functionName };
        }"#;
    let router = Router::start(&(echo_manifest(1) + &lambda(dir.path(), "context", module)));
    let invoke =
        |event: &str, deadline: &str| router.invoke(&["context", "--data", event, "--deadline", deadline]);
    let first = json(&invoke("{}", "60s"));
    assert_eq!((&first["calls"], &first["name"]), (&1.into(), &"context".into()));
    assert_eq!(first["arn"], "arn:aws:lambda:local:000000000000:function:context");
    assert!((1..=60_000).contains(&first["left"].as_u64().unwrap()), "{first}");

    let raised = failed(&invoke("{\"raise\": true}", "60s"), 1);
    assert!(raised.contains("\"errorType\":\"RangeError\"") && raised.contains("no such user"), "{raised}");
    let bad = failed(&invoke("this is no JSON", "60s"), 1);
    assert!(bad.contains("SyntaxError"), "{bad}");
    let again = json(&invoke("{}", "60s"));
    assert_eq!((&again["calls"], &again["pid"]), (&2.into(), &first["pid"]), "an error is no reason to end");
    assert_ne!(again["id"], first["id"]);
    assert_eq!(json(&invoke("{\"size\": 500000}", "60s")).as_str().map(str::len), Some(500_000));
    let large = failed(&invoke("{\"size\": 5000000}", "60s"), 1);
    assert!(large.contains("result_too_large"), "{large}");

    let died = failed(&invoke("{\"die\": true}", "60s"), 1);
    assert!(died.contains("died: the program ended (exit status: 7)"), "{died}");
    let other = json(&invoke("{}", "60s"));
    assert_ne!(other["pid"], first["pid"]);
    failed(&invoke("{\"sleep\": 100000}", "500ms"), 3);
    assert_ne!(json(&invoke("{}", "60s"))["pid"], other["pid"], "what is past its time is killed");
}

#[test]
#[ignore = "needs node: .ci/run installs it"]
fn a_lambda_function_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let imports =
        lambda(dir.path(), "imports", "import \"no-such-package\";\nexport const handler = () => 1;\n");
    let exports = lambda(dir.path(), "exports", "export const other = () => 1;\n");
    let router = Router::start(&(echo_manifest(1) + &imports + &exports));
    for (name, why) in [("imports", "ERR_MODULE_NOT_FOUND"), ("exports", "exports no function handler")] {
        let told = text(&router.invoke(&[name, "--data", "{}", "--deadline", "60s"]).stderr);
        assert!(told.contains("init_error: ") && told.contains(why), "{told}");
    }
}

#[test]
#[ignore = "needs node: .ci/run installs it"]
fn a_server_on_a_port_or_a_socket_gets_cloudevents() {
    let dir = tempfile::tempdir().unwrap();
    let tables = http(dir.path(), "port", "http_content_type = \"text/plain\"\n")
        + &http(dir.path(), "socket", "http_listen = \"socket\"\n");
    let router = Router::start(&(echo_manifest(1) + &tables));
    for name in ["port", "socket"] {
        let invoke =
            |body: &str, deadline: &str| router.invoke(&[name, "--data", body, "--deadline", deadline]);
        let first = json(&invoke("hello", "60s"));
        assert_eq!((&first["body"], &first["isReady"]), (&"hello".into(), &true.into()), "{first}");
        let headers = &first["headers"];
        assert_eq!(
            (&headers["ce-specversion"], &headers["ce-type"]),
            (&"1.0".into(), &"quickfire.call".into())
        );
        assert_eq!(headers["ce-source"], format!("/quickfire/functions/{name}"));
        let content_type = if name == "port" { "text/plain" } else { "application/octet-stream" };
        assert_eq!(headers["content-type"], content_type);

        let refused = failed(&invoke("refuse", "60s"), 1);
        assert!(
            refused.contains("status: the program answered 422") && refused.contains("not this"),
            "{refused}"
        );
        let second = json(&invoke("again", "60s"));
        assert_eq!((&second["pid"], &second["calls"]), (&first["pid"], &2.into()));
        let large = "x".repeat(100_000);
        assert_eq!(text(&invoke(&large, "60s").stdout).trim_end(), large);

        // Expect: an exception nobody catches ends the server, with its words; a call past its time too; and the next one is served.
        let thrown = failed(&invoke("throw", "60s"), 1);
        assert!(thrown.contains("closed") || thrown.contains("died"), "{thrown}");
        eventually("a fresh one serves", || {
            let output = invoke("hello", "60s");
            output.status.success() && json(&output)["pid"] != first["pid"]
        });
        let third = json(&invoke("hello", "60s"));
        failed(&invoke("hang", "500ms"), 3);
        assert_ne!(json(&invoke("hello", "60s"))["pid"], third["pid"]);
    }
}

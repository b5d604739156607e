//! A function as it is written for AWS Lambda in Rust: answers with what its context says, or fails as the event asks.
#![forbid(unsafe_code)]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (payload, context) = event.into_parts();
    if let Some(why) = payload["fail"].as_str() {
        return Err(why.into());
    }
    Ok(json!({
        "name": payload["name"],
        "function": context.env_config.function_name,
        "id": context.request_id,
        "deadline_ms": context.deadline,
        "pid": std::process::id(),
    }))
}

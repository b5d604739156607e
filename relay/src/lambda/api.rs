//! The HTTP of the Runtime API: requests of the program become steps of the conversation.
//!
//! Always: as the API's documents say, in paths, headers, statuses and error bodies. A path that is not there is 404, a step that
//! does not fit is 400 or 403, and both are JSON.
//! Never: more of a body than a result may have, more connections than [`CONNECTIONS_MAX`], or a connection of another user.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::exchange::{Event, Refused, Shared};
use crate::fault::Failed;
use crate::limits::{CONNECTIONS_MAX, FOUND_SIZE_MAX, WANTED_POLL};
use crate::owner;

const API: &str = "/2018-06-01/runtime/";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

type Answer = Response<Full<Bytes>>;

/// Serves one program for as long as its reactor lives.
pub async fn serve(listener: std::net::TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let prepared = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let Ok(listener) = prepared else {
        // The program will not be ready, and that is told.
        return eprintln!("relay: the runtime API cannot listen");
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, as a rule; not asked again and again.
            tokio::time::sleep(WANTED_POLL).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            eprintln!("relay: more than {CONNECTIONS_MAX} connections to the runtime API");
            continue;
        };
        if let Err(error) = owner::check_peer(peer, address) {
            eprintln!("relay: a connection to the runtime API is refused: {error}");
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve_connection(stream, &shared).await;
            drop(place);
        });
    }
}

async fn serve_connection(stream: TcpStream, shared: &Shared) {
    // A short answer that waits for more would cost 40 ms.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(request, shared).await) });
    // What goes wrong with a connection is told by what then does not come.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Answer {
    let path = request.uri().path().to_owned();
    let Some(path) = path.strip_prefix(API) else { return no_such_path() };
    let steps: Vec<_> = path.split('/').collect();
    match (request.method(), steps.as_slice()) {
        (&Method::GET, ["invocation", "next"]) => next(shared).await,
        (&Method::POST, ["invocation", id, "response"]) => response(request, id, shared).await,
        (&Method::POST, ["invocation", id, "error"]) => {
            let body = read_error(request, shared.result_size_max()).await;
            done(shared.answer(id, Err(Failed::Function(body))), StatusCode::BAD_REQUEST)
        }
        (&Method::POST, ["init", "error"]) => {
            let body = read_error(request, FOUND_SIZE_MAX).await;
            done(shared.init_error(&body), StatusCode::FORBIDDEN)
        }
        _ => no_such_path(),
    }
}

async fn next(shared: &Shared) -> Answer {
    let event = match shared.next() {
        Ok(event) => event,
        Err(refused) => return done(Err(refused), StatusCode::FORBIDDEN),
    };
    // Ends otherwise only with the relay.
    let Ok(event) = event.await else { return done(Err(Refused("the relay ends")), StatusCode::GONE) };
    let Event { id, deadline_ms, trace, function_arn, payload } = event;
    let mut answer = Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header("Lambda-Runtime-Aws-Request-Id", id)
        .header("Lambda-Runtime-Deadline-Ms", deadline_ms)
        .header("Lambda-Runtime-Invoked-Function-Arn", function_arn);
    if let Some(trace) = trace {
        answer = answer.header("Lambda-Runtime-Trace-Id", trace);
    }
    answer.body(Full::new(Bytes::from(payload))).unwrap_or_else(|error| {
        // A region that is no header.
        eprintln!("relay: {error}");
        error_answer(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string())
    })
}

/// A result, whole or streamed; a stream can say in its trailers that it failed after all.
async fn response(request: Request<Incoming>, id: &str, shared: &Shared) -> Answer {
    let size_max = shared.result_size_max();
    match read(request.into_body(), size_max).await {
        Ok((body, trailers)) if body.len() <= size_max => {
            let answer = match streamed_error(&trailers) {
                None => Ok(body),
                Some(error) => Err(Failed::Function(error)),
            };
            done(shared.answer(id, answer), StatusCode::BAD_REQUEST)
        }
        Ok((body, _)) => {
            let told = shared.answer(id, Ok(body));
            let told = told.and(Err(Refused("the result is larger than it may be")));
            done(told, StatusCode::PAYLOAD_TOO_LARGE)
        }
        // A connection that broke within a body has not answered.
        Err(error) => error_answer(StatusCode::BAD_REQUEST, "InvalidRequest", &error.to_string()),
    }
}

/// A body, at most one byte more of it than it may have, and what came behind it.
async fn read(mut body: Incoming, size_max: usize) -> hyper::Result<(Vec<u8>, HeaderMap)> {
    let mut bytes = Vec::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                let room = size_max.saturating_add(1).saturating_sub(bytes.len());
                bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
                if bytes.len() > size_max {
                    break;
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((bytes, trailers))
}

/// What a program says of an error, cut to what its caller can get; its type where it says no more.
async fn read_error(request: Request<Incoming>, size_max: usize) -> Vec<u8> {
    let kind = request.headers().get(ERROR_TYPE).map(|kind| kind.as_bytes().to_vec());
    let mut body = read(request.into_body(), size_max).await.map(|(body, _)| body).unwrap_or_default();
    if body.is_empty() {
        body = kind.unwrap_or_default();
    }
    body.truncate(size_max);
    body
}

fn streamed_error(trailers: &HeaderMap) -> Option<Vec<u8>> {
    let kind = trailers.get(ERROR_TYPE)?;
    let body = trailers.get(ERROR_BODY).and_then(|body| BASE64.decode(body.as_bytes()).ok());
    Some(body.filter(|body| !body.is_empty()).unwrap_or_else(|| kind.as_bytes().to_vec()))
}

fn done(step: Result<(), Refused>, otherwise: StatusCode) -> Answer {
    match step {
        Ok(()) => json(StatusCode::ACCEPTED, &serde_json::json!({ "status": "OK" })),
        Err(Refused(why)) => {
            let kind = match otherwise {
                StatusCode::BAD_REQUEST => "InvalidRequestID",
                StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
                _ => "InvalidStateTransition",
            };
            error_answer(otherwise, kind, why)
        }
    }
}

fn no_such_path() -> Answer {
    error_answer(StatusCode::NOT_FOUND, "NotFound", "the runtime API has no such path")
}

fn error_answer(status: StatusCode, kind: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({ "errorMessage": message, "errorType": kind }))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}

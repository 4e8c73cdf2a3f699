//! A small HTTP server for scrapers and probes: `/metrics`, `/healthz`, `/readyz`, nothing else.
//!
//! It is bounded in all that a client can make it hold: connections, the head of a request, and time. A connection answers
//! one request and is closed; where there are too many, the oldest goes, so that clients that only wait keep nobody out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{pending, ready};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{AbortHandle, abortable};
use futures::stream::FuturesUnordered;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::metrics::Source;
use crate::metrics::address::Address;

/// Connections at once.
const CONNECTIONS: usize = 16;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(2);
/// How long a connection may take.
const LIFE: Duration = Duration::from_secs(5);
/// The largest head of a request, and the least that hyper allows.
const HEAD_LIMIT: usize = 8192;
/// The most headers in it.
const HEADERS: usize = 64;
/// Before a taken port is tried again: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// After a connection could not be taken, for want of file descriptors above all.
const BREATH: Duration = Duration::from_millis(100);

/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves for ever. What hinders it is logged, and hinders nothing else.
pub async fn serve(address: Address, source: &impl Source) -> Infallible {
    let Some(listener) = listen(address).await else { return pending().await };
    tracing::info!(%address, "serving metrics");
    let mut connections = FuturesUnordered::new();
    let mut open: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if open.len() >= CONNECTIONS && let Some((_, oldest)) = open.pop_first() {
                        oldest.abort();
                    }
                    number += 1;
                    let this = number;
                    let (connection, handle) = abortable(async move {
                        connect(stream, source).await;
                        this
                    });
                    open.insert(number, handle);
                    connections.push(connection);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot take a connection");
                    sleep(BREATH).await;
                }
            },
            // a pattern that some do not match would leave the others unserved until somebody connects
            ended = connections.next(), if !connections.is_empty() => {
                if let Some(Ok(ended)) = ended {
                    open.remove(&ended);
                }
            }
        }
    }
}

/// Listens as soon as that is possible; says once why not.
async fn listen(address: Address) -> Option<TcpListener> {
    let (mut pause, longest) = PAUSES;
    let mut told = String::new();
    loop {
        match address.listen() {
            Ok(listener) => return listener,
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!(%address, error = text, "metrics cannot be served, all else goes on; tried again, see --metrics-address");
                    told = text;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

async fn connect(stream: TcpStream, source: &impl Source) {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(&request, source))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_LIMIT)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // whatever went wrong, it is the client's
    let _ = timeout(LIFE, connection).await;
}

fn answer<T>(request: &Request<T>, source: &impl Source) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".into());
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match source.page().text() {
            Ok(page) => text(StatusCode::OK, METRICS, page),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/healthz" => checked(&source.ailments()),
        "/readyz" => checked(&[source.ailments(), source.hindrances()].concat()),
        _ => text(StatusCode::NOT_FOUND, TEXT, "/metrics, /healthz or /readyz\n".into()),
    }
}

fn checked(failing: &[String]) -> Response<Full<Bytes>> {
    if failing.is_empty() {
        return text(StatusCode::OK, TEXT, "ok\n".into());
    }
    text(StatusCode::SERVICE_UNAVAILABLE, TEXT, failing.join("\n") + "\n")
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

//! A small HTTP server for scrapers and probes: `/metrics`, `/healthz`, `/readyz`, nothing else.
//!
//! Everything that a client can make it hold is bounded: connections, the head of a request, and
//! time. A connection answers one request and is closed. If there are too many, the oldest is
//! closed, so that idle clients do not lock others out.

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

/// The most connections at the same time.
const CONNECTIONS: usize = 16;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(2);
/// How long a connection may last.
const LIFE: Duration = Duration::from_secs(5);
/// The largest head of a request, in bytes; hyper allows no smaller limit.
const HEAD_LIMIT: usize = 8192;
/// The most headers in the head of a request.
const HEADERS: usize = 64;
/// Pauses before a port in use is tried again: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Pause after a connection could not be accepted, for example for lack of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves forever. An error is logged and affects nothing else.
pub async fn serve(address: Address, source: &impl Source) -> Infallible {
    let Some(listener) = listen(address).await else {
        return pending().await;
    };
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
                    tracing::debug!(%error, "cannot accept a connection");
                    sleep(BREATH).await;
                }
            },
            // a pattern that does not match would disable this branch until the next connection
            ended = connections.next(), if !connections.is_empty() => {
                if let Some(Ok(ended)) = ended {
                    open.remove(&ended);
                }
            }
        }
    }
}

/// Listens as soon as that is possible; logs each cause of failure once.
async fn listen(address: Address) -> Option<TcpListener> {
    let (mut pause, longest) = PAUSES;
    let mut logged = String::new();
    loop {
        match address.listen() {
            Ok(listener) => return listener,
            Err(error) => {
                let text = error.to_string();
                if text != logged {
                    tracing::warn!(%address, error = text, "cannot serve metrics, will retry; everything else goes on; see --metrics-address");
                    logged = text;
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
    // an error of a connection concerns its client only
    let _ = timeout(LIFE, connection).await;
}

fn answer<T>(request: &Request<T>, source: &impl Source) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".into());
        response
            .headers_mut()
            .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match source.page().text() {
            Ok(page) => text(StatusCode::OK, METRICS, page),
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("{error}\n"),
            ),
        },
        "/healthz" => checked(&source.unhealthy()),
        "/readyz" => checked(&[source.unhealthy(), source.not_ready()].concat()),
        _ => text(
            StatusCode::NOT_FOUND,
            TEXT,
            "/metrics, /healthz or /readyz\n".into(),
        ),
    }
}

fn checked(failing: &[String]) -> Response<Full<Bytes>> {
    if failing.is_empty() {
        return text(StatusCode::OK, TEXT, "ok\n".into());
    }
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        TEXT,
        failing.join("\n") + "\n",
    )
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

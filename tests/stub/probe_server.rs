//! The API server as probes meet it: on 127.0.0.1 with TLS, with every fault that a connection can
//! have. Answers `/livez` as set; behind it is an API server in memory.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pod_checkpointer::node::host::HostRoot;
use pod_checkpointer::node::kubelet::Server;
use pod_checkpointer::node::probe::Prober;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::api::{Answer, Api};
use super::authority::{Authority, EXPIRED, NOT_YET_VALID, VALID};

const BACKLOG: u32 = 128;

/// How the server behaves. A change to anything but an answer or a hang also closes open
/// connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `/livez` is answered with this status.
    Status(u16),
    /// Requests are accepted and not answered.
    Hang,
    /// Connections are accepted, but TLS is not answered.
    HangBeforeTls,
    /// Connections are refused.
    Refuse,
    /// Connections are closed as soon as they are open.
    Close,
    /// The server does not use TLS.
    Plain,
    /// The certificate was issued by another authority.
    Foreign,
    Expired,
    NotYetValid,
    /// The certificate is for another name.
    Misnamed,
}

#[derive(Clone, Debug)]
pub struct State {
    pub mode: Mode,
    /// Size of the body of `/livez`.
    pub body: usize,
    /// The connection is closed after each answer.
    pub closes: bool,
    /// Number of accepted connections.
    pub connections: u32,
    /// Method, path and `User-Agent` of accepted requests, and whether they had credentials.
    pub requests: Vec<(String, String, String, bool)>,
}

pub struct ProbeServer {
    pub state: Arc<watch::Sender<State>>,
    pub address: SocketAddr,
    authority: Arc<Authority>,
    task: AbortHandle,
}

impl ProbeServer {
    /// A server without objects.
    pub fn start() -> Self {
        Self::before(Api::default())
    }

    /// A server for this API.
    pub fn before(api: Api) -> Self {
        let state = State {
            mode: Mode::Status(200),
            body: 2,
            closes: false,
            connections: 0,
            requests: Vec::new(),
        };
        let state = Arc::new(watch::Sender::new(state));
        let socket = reserve("127.0.0.1:0".parse().unwrap());
        let address = socket.local_addr().unwrap();
        let listener = socket.listen(BACKLOG).unwrap();
        let authority = Arc::new(Authority::new("cluster"));
        let task =
            tokio::spawn(run(state.clone(), listener, authority.clone(), api)).abort_handle();
        Self {
            state,
            address,
            authority,
            task,
        }
    }

    /// Changes the behavior from now on.
    pub async fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
        // the task releases and binds the port
        let is_refused = async || TcpStream::connect(self.address).await.is_err();
        tokio::time::timeout(super::PATIENCE, async {
            while is_refused().await != (mode == Mode::Refuse) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the stub does not follow");
    }

    /// The server as in the kubelet's kubeconfig.
    pub fn server(&self) -> Server {
        Server {
            url: format!("https://{}", self.address),
            ca: self.authority.pem.clone(),
            tls_name: None,
            proxy: None,
        }
    }

    pub fn prober(&self, limit: Duration) -> Prober {
        Prober::new(self.server(), HostRoot::new("/"), limit).unwrap()
    }

    /// For a client without credentials.
    pub fn config(&self) -> kube::Config {
        let mut config = kube::Config::new(self.server().url.parse().unwrap());
        config.root_cert = Some(vec![self.authority.der.clone()]);
        config
    }

    pub fn write_kubeconfig(&self, path: &Path) {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.authority.pem);
        let url = self.server().url;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts: [{{name: here, context: {{cluster: one, user: me}}}}]\n\
             clusters: [{{name: one, cluster: {{server: \"{url}\", certificate-authority-data: {ca}}}}}]\nusers: []\n"
        );
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for ProbeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket that is bound to the port but does not listen: connections are refused, and no other
/// process can bind the port.
fn reserve(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn run(
    state: Arc<watch::Sender<State>>,
    listener: TcpListener,
    authority: Arc<Authority>,
    api: Api,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut reserved = None;
    // also see a change that was made before this task began
    let mut changes = state.subscribe();
    changes.mark_changed();
    let mut last = Mode::Status(200);
    let mut connections = JoinSet::new();
    let names = ["127.0.0.1", "localhost", "api.example"];
    loop {
        tokio::select! {
            accepted = async { match &listener { Some(listener) => listener.accept().await, None => pending().await } } => {
                let Ok((stream, _)) = accepted else { continue };
                state.send_modify(|state| state.connections += 1);
                let acceptor = match last {
                    Mode::Foreign => Authority::new("another").server(&names, VALID),
                    Mode::Expired => authority.server(&names, EXPIRED),
                    Mode::NotYetValid => authority.server(&names, NOT_YET_VALID),
                    Mode::Misnamed => authority.server(&["other.example"], VALID),
                    _ => authority.server(&names, VALID),
                };
                connections.spawn(connection(last, stream, acceptor, state.clone(), api.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = changes.changed() => {
                let mode = changes.borrow_and_update().mode;
                if mode == last {
                    continue;
                }
                last = mode;
                if !matches!(mode, Mode::Status(_) | Mode::Hang) {
                    connections.abort_all();
                    while connections.join_next().await.is_some() {}
                }
                if mode == Mode::Refuse {
                    reserved = Some(reserve(address));
                    listener = None;
                } else if let Some(socket) = reserved.take() {
                    listener = Some(socket.listen(BACKLOG).unwrap());
                }
            }
        }
    }
}

async fn connection(
    mode: Mode,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    state: Arc<watch::Sender<State>>,
    api: Api,
) {
    match mode {
        Mode::Close | Mode::Refuse => {}
        Mode::HangBeforeTls => {
            let _open = stream;
            pending::<()>().await;
        }
        Mode::Plain => requests(stream, state, api).await,
        _ => {
            if let Ok(stream) = acceptor.accept(stream).await {
                requests(stream, state, api).await;
            }
        }
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    state: Arc<watch::Sender<State>>,
    api: Api,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (state, api) = (state.clone(), api.clone());
        async move {
            let header = |name| {
                request
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            let agent = header("user-agent").unwrap_or_default();
            let has_credential = header("authorization").is_some();
            let (method, path) = (
                request.method().to_string(),
                request.uri().path().to_owned(),
            );
            state.send_modify(|state| {
                state
                    .requests
                    .push((method, path.clone(), agent, has_credential));
            });
            let _ = state
                .subscribe()
                .wait_for(|state| state.mode != Mode::Hang)
                .await;
            let State {
                mode, body, closes, ..
            } = state.borrow().clone();
            if path != "/livez" {
                return api.serve(request).await;
            }
            let status = if let Mode::Status(status) = mode {
                StatusCode::from_u16(status).unwrap()
            } else {
                StatusCode::OK
            };
            let mut response = answer(status, body);
            if closes {
                response
                    .headers_mut()
                    .insert("connection", "close".parse().unwrap());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(status: StatusCode, body: usize) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(vec![b'k'; body])).boxed_unsync());
    *response.status_mut() = status;
    response
}

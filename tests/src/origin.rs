//! An origin for the tests of upstreams: says what it is told to say, well or badly, and counts who asks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Pair;

/// What a client's first message in TLS begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// What it answers next.
#[derive(Debug, Clone)]
pub enum Script {
    /// This head (without the status line's end) and body, as they are.
    Say(String),
    /// What this makes of the head of the request: its line, and its headers by names in lower case.
    With(fn(&str) -> String),
    /// A head and body, and then the connection is cut.
    SayAndCut(String),
    /// Nothing: the connection is cut.
    Cut,
    /// Nothing for so long.
    Silent(Duration),
    /// These pieces, with so long a pause before each but the first.
    Slow(Vec<String>, Duration),
}

/// A running origin; it ends with the test.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<AtomicU64>,
    under_way: Arc<AtomicU64>,
    peak: Arc<AtomicU64>,
    script: Arc<Mutex<Script>>,
    delay: Arc<Mutex<Duration>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// Starts one that says this.
    pub async fn start(script: Script) -> Self {
        Self::start_as(script, None).await
    }

    /// The same over TLS, with this certificate.
    pub async fn start_with(script: Script, pair: &Pair) -> Self {
        Self::start_as(script, Some(acceptor(pair))).await
    }

    async fn start_as(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let origin = Self {
            address: listener.local_addr().expect("its address"),
            asked: Arc::default(),
            under_way: Arc::default(),
            peak: Arc::default(),
            script: Arc::new(Mutex::new(script)),
            delay: Arc::default(),
            heads: Arc::default(),
        };
        let serving = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (serving, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serving.serve(stream).await,
                        // A client that does not go on has its reasons.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serving.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        origin
    }

    /// What it says from now on.
    pub fn say(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// How long it thinks before it answers.
    pub fn think(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    /// How many requests it has got.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The most requests that it had at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::SeqCst)
    }

    /// The heads of all requests.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The head of the last request.
    pub fn last_head(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        let mut received = Vec::new();
        loop {
            while !received.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut piece = [0; 4096];
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => received.extend_from_slice(&piece[..length]),
                }
                // A client that speaks TLS where there is none is told so in plain, as servers do.
                if received.first() == Some(&TLS_HANDSHAKE) {
                    let _ = stream.write_all(answer("400 Bad Request", "", "").as_bytes()).await;
                    return;
                }
            }
            // Requests of these tests have no bodies worth reading.
            let head = String::from_utf8_lossy(&received).into_owned();
            received.clear();
            self.heads.lock().unwrap().push(head.clone());
            self.asked.fetch_add(1, Ordering::SeqCst);
            let under_way = UnderWay::begin(&self.under_way);
            self.peak.fetch_max(under_way.count, Ordering::SeqCst);
            let (script, delay) = (self.script.lock().unwrap().clone(), *self.delay.lock().unwrap());
            tokio::time::sleep(delay).await;
            let script = match script {
                Script::With(answer) => Script::Say(answer(&head)),
                script => script,
            };
            match script {
                Script::With(_) => return,
                Script::Say(text) => {
                    if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
                Script::SayAndCut(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                    let _ = stream.flush().await;
                    return;
                }
                Script::Slow(pieces, pause) => {
                    for (place, piece) in pieces.iter().enumerate() {
                        if place > 0 {
                            tokio::time::sleep(pause).await;
                        }
                        if stream.write_all(piece.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                }
                Script::Cut => return,
                Script::Silent(time) => {
                    tokio::time::sleep(time).await;
                    return;
                }
            }
        }
    }
}

fn acceptor(pair: &Pair) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

/// One request, until it is answered.
struct UnderWay<'a> {
    all: &'a AtomicU64,
    count: u64,
}

impl<'a> UnderWay<'a> {
    fn begin(all: &'a AtomicU64) -> Self {
        Self { all, count: all.fetch_add(1, Ordering::SeqCst) + 1 }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A whole answer of status 200.
pub fn ok(headers: &str, body: &str) -> Script {
    Script::Say(answer("200 OK", headers, body))
}

/// A whole answer.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

/// A header of a request, by its name in lower case; all lines of it.
pub fn lines<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let of_name = |line: &'a str| line.split_once(": ").filter(|(known, _)| *known == name).map(|(_, value)| value);
    head.lines().filter_map(of_name).collect()
}

/// The one line of a header, or the empty text.
pub fn line<'a>(head: &'a str, name: &str) -> &'a str {
    lines(head, name).first().copied().unwrap_or_default()
}

/// An answer of status 200 whose body takes its time: `pieces` pieces of `piece`, with a pause before each.
pub fn slow(headers: &str, piece: &str, pieces: usize, pause: Duration) -> Script {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n", piece.len() * pieces);
    let body = std::iter::repeat_n(piece.to_owned(), pieces);
    Script::Slow([head].into_iter().chain(body).collect(), pause)
}

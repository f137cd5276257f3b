//! A small HTTP client for the operators' listener of a running host.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;
use crate::config::AdminConfig;

/// Time for a whole answer, where the caller does not say.
const DEADLINE: Duration = Duration::from_secs(30);
/// Size of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the operators' listener of a running host is.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminAddress {
    /// Address of the host's operators' listener, when it is not the configured one.
    #[arg(long = "admin", value_name = "ADDR")]
    pub address: Option<String>,
    /// File with its token, when it is not the configured one.
    #[arg(long = "admin-token-file", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// One request.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Type and bytes of its body.
    pub body: Option<(String, Bytes)>,
    /// Who asks, for the audit log.
    pub operator: Option<String>,
    /// Time for the whole answer.
    pub deadline: Duration,
}

impl Asked {
    /// Without a body, within 30 s.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, operator: None, deadline: DEADLINE }
    }
}

/// What a host answered.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    /// The JSON document: of a refusal its problem, null when there was none.
    pub body: Value,
}

/// A host's operators' listener.
pub struct AdminClient {
    address: String,
    token: Option<String>,
    named: bool,
    /// Whether the user was told that a running host answers, and which.
    said: AtomicBool,
}

impl AdminClient {
    /// The host that the arguments, or else the configuration, name.
    ///
    /// # Errors
    /// When the token's file cannot be read.
    pub fn new(given: &AdminAddress, config: &AdminConfig) -> Result<Self, Failure> {
        let with_file = AdminConfig { token: None, token_file: given.token_file.clone(), ..config.clone() };
        let token = if given.token_file.is_some() { with_file.read_token()? } else { config.read_token()? };
        let address = match &given.address {
            // As listeners write it, this machine.
            Some(port) if port.starts_with(':') => format!("127.0.0.1{port}"),
            Some(address) => address.clone(),
            None => config.listen.to_string(),
        };
        Ok(Self { address, token, named: given.address.is_some(), said: AtomicBool::new(false) })
    }

    /// The JSON answer of a host; `None` when no host listens there and the address was not named on the command line.
    ///
    /// # Errors
    /// When the host refuses or answers something else, or when a named address does not answer.
    pub async fn call(&self, method: Method, path: &str) -> Result<Option<Value>, Failure> {
        match self.ask(Asked::new(method, path)).await? {
            Some(answer) => self.accept(answer).map(Some),
            None => Ok(None),
        }
    }

    /// What a host answers, a refusal too; `None` when no host listens there and the address was not named on the
    /// command line.
    ///
    /// # Errors
    /// When a named address does not answer, or what listens there is no host.
    pub async fn ask(&self, asked: Asked) -> Result<Option<Answer>, Failure> {
        let stream = match TcpStream::connect(&self.address).await {
            Ok(stream) => stream,
            Err(_) if !self.named => return Ok(None),
            Err(error) => return Err(self.no_host(&format!(" ({error})"))),
        };
        if !self.said.swap(true, Ordering::Relaxed) {
            eprintln!("asking the host at {}", self.address);
        }
        let deadline = asked.deadline;
        match tokio::time::timeout(deadline, self.exchange(stream, asked)).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) => Err(Failure::unavailable(format!(
                "what listens at {} is not a weir operators' listener ({error}); give --admin ADDR",
                self.address
            ))),
            Err(_) => Err(Failure::unavailable(format!(
                "no answer from the host at {} in {} s",
                self.address,
                deadline.as_secs()
            ))),
        }
    }

    /// What to say when no host listens; `why` goes behind the address.
    pub fn no_host(&self, why: &str) -> Failure {
        let address = &self.address;
        Failure::unavailable(format!(
            "no host listens at {address}{why}; start one: weir serve, or name it: --admin HOST:PORT"
        ))
    }

    /// The document of an answer that is no refusal.
    ///
    /// # Errors
    /// Why the host refused, and the exit code for it.
    pub fn accept(&self, Answer { status, body }: Answer) -> Result<Value, Failure> {
        if status.is_success() {
            return Ok(body);
        }
        let text = |name| body.get(name).and_then(Value::as_str);
        let detail = text("detail").or(text("title")).unwrap_or_default();
        let message = format!("the host at {} answered {status}: {detail}", self.address);
        Err(match status {
            StatusCode::UNPROCESSABLE_ENTITY => {
                let code = text("code").map(|code| format!(" (code {code})")).unwrap_or_default();
                Failure::no(format!("refused: {detail}{code}"))
            }
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Failure::no(message),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::no(format!("{message}; the host's policy.module_bytes_max sets the limit"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::usage(format!("{message}; give its token: --admin-token-file FILE"))
            }
            status if status.is_client_error() => Failure::usage(message),
            _ => Failure::unavailable(message),
        })
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        asked: Asked,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(asked.method).uri(asked.path).header("Host", &self.address);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(operator) = asked.operator {
            request = request.header("X-Operator", operator);
        }
        let mut body = Bytes::new();
        if let Some((content_type, bytes)) = asked.body {
            request = request.header("Content-Type", content_type);
            body = bytes;
        }
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        Ok(Answer { status, body })
    }
}

/// One path segment, or one value of a query, percent-encoded.
pub fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

//! A small HTTP client for the operators' listener of a running host.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;
use crate::config::AdminConfig;
use crate::operators::Problem;

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

/// One request to a host.
#[derive(Debug)]
pub struct Call {
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

impl Call {
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

impl Answer {
    /// What it says, whatever its status; nothing where it says something else.
    pub fn read<T: DeserializeOwned + Default>(&self) -> T {
        serde_json::from_value(self.body.clone()).unwrap_or_default()
    }
}

/// A host's operators' listener.
pub struct AdminClient {
    address: String,
    token: Option<String>,
    named: bool,
    /// Whether the output has already said that a running host answers, and which one.
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

    /// The answer of a host; `None` when no host listens there and the address was not named on the command line.
    ///
    /// # Errors
    /// When the host refuses or answers something else, or when a named address does not answer.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<Option<T>, Failure> {
        match self.ask(Call::new(method, path)).await? {
            Some(answer) => self.accept(answer).map(Some),
            None => Ok(None),
        }
    }

    /// What a host answers, a refusal too; `None` when no host listens there and the address was not named on the
    /// command line.
    ///
    /// # Errors
    /// When a named address does not answer, or what listens there is no host.
    pub async fn ask(&self, call: Call) -> Result<Option<Answer>, Failure> {
        let stream = match TcpStream::connect(&self.address).await {
            Ok(stream) => stream,
            Err(_) if !self.named => return Ok(None),
            Err(error) => return Err(self.no_host(&format!(" ({error})"))),
        };
        if !self.said.swap(true, Ordering::Relaxed) {
            eprintln!("asking the host at {}", self.address);
        }
        let deadline = call.deadline;
        match tokio::time::timeout(deadline, self.exchange(stream, call)).await {
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

    /// What an answer says that is no refusal.
    ///
    /// # Errors
    /// Why the host refused, and the exit code for it; an answer of another shape than this weir knows.
    pub fn accept<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, Failure> {
        self.check(&answer)?;
        serde_json::from_value(answer.body).map_err(|error| {
            Failure::unavailable(format!(
                "the host at {} answered in a form that this weir does not know ({error}); use the weir of its version",
                self.address
            ))
        })
    }

    /// Whether an answer is no refusal.
    ///
    /// # Errors
    /// Why the host refused, and the exit code for it.
    pub fn check(&self, answer: &Answer) -> Result<(), Failure> {
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        let Problem { title, detail, code, .. } = answer.read();
        let detail = if detail.is_empty() { title } else { detail };
        let message = format!("the host at {} answered {status}: {detail}", self.address);
        Err(match status {
            StatusCode::UNPROCESSABLE_ENTITY => {
                let code = code.map(|code| format!(" (code {code})")).unwrap_or_default();
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
        call: Call,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(call.method).uri(call.path).header("Host", &self.address);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(operator) = call.operator {
            request = request.header("X-Operator", operator);
        }
        let mut body = Bytes::new();
        if let Some((content_type, bytes)) = call.body {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operators::PolicyList;

    #[test]
    fn an_answer_of_another_shape_is_no_answer() {
        let client = AdminClient::new(&AdminAddress::default(), &AdminConfig::default()).unwrap();
        let answer = |body| Answer { status: StatusCode::OK, body };
        let failure = client.accept::<PolicyList>(answer(json!({ "active": 1 }))).unwrap_err();
        assert!(failure.message.contains("in a form that this weir does not know"), "{failure:?}");
        let list: PolicyList = client.accept(answer(json!({ "later": 1, "modules": [{ "name": "a" }] }))).unwrap();
        assert_eq!(list.modules[0].name, "a");
    }
}

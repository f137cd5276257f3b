//! A small HTTP client for the operators' listener of a running host.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;
use crate::config::AdminConfig;

/// Time for a whole answer, in seconds.
const DEADLINE_S: u64 = 30;

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
        let address = given.address.clone().unwrap_or_else(|| config.listen.to_string());
        Ok(Self { address, token, named: given.address.is_some(), said: AtomicBool::new(false) })
    }

    /// The JSON answer of a host; `None` when no host listens there and the address was not named on the command line.
    ///
    /// # Errors
    /// When the host refuses or answers something else, or when a named address does not answer.
    pub async fn call(&self, method: Method, path: &str) -> Result<Option<Value>, Failure> {
        let stream = match TcpStream::connect(&self.address).await {
            Ok(stream) => stream,
            Err(_) if !self.named => return Ok(None),
            Err(error) => {
                return Err(Failure::unavailable(format!("no host at {}: {error}; give HOST:PORT", self.address)));
            }
        };
        if !self.said.swap(true, Ordering::Relaxed) {
            eprintln!("asking the host at {}", self.address);
        }
        let answer = tokio::time::timeout(Duration::from_secs(DEADLINE_S), self.exchange(stream, method, path)).await;
        match answer {
            Ok(Ok((status, body))) if status.is_success() => Ok(Some(body)),
            Ok(Ok((status, body))) => {
                let detail = body.get("detail").or(body.get("title")).and_then(Value::as_str).unwrap_or_default();
                let message = format!("the host at {} answered {status}: {detail}", self.address);
                Err(match status {
                    StatusCode::NOT_FOUND | StatusCode::CONFLICT => Failure::no(message),
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        Failure::usage(format!("{message}; give its token: --admin-token-file FILE"))
                    }
                    status if status.is_client_error() => Failure::usage(message),
                    _ => Failure::unavailable(message),
                })
            }
            Ok(Err(error)) => Err(Failure::unavailable(format!(
                "what listens at {} is not a weir operators' listener ({error}); give --admin ADDR",
                self.address
            ))),
            Err(_) => {
                Err(Failure::unavailable(format!("no answer from the host at {} in {DEADLINE_S} s", self.address)))
            }
        }
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Value), Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("Host", &self.address);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        Ok((status, body))
    }
}

/// One path segment, percent-encoded.
pub fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

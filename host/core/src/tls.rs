//! Encrypted connections to others: whom we trust, who we are, and in plain words what is wrong when it fails.
//!
//! May use the floor. One crypto library, aws-lc-rs. Trusts the system's authorities, and those of a file besides them.
//!
//! - `failure`: what a failed handshake means · `verify`: chains without names · `fetch`: one GET over `http` or `https`, bounded
//!
//! Never connects without encryption where it was asked to encrypt, never goes on after a certificate that does not hold.
//! Files are read when a [`ClientTls`] is made.

mod failure;
pub mod fetch;
mod verify;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Once};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{ConfigError, TlsConfig};

pub use failure::TlsFailure;

/// Makes aws-lc-rs what libraries use that do not say so themselves. Harmless when it was done before.
pub fn install_provider() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // An earlier caller has installed the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// How connections of one place are encrypted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Of the settings of `place`, such as `store`; reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else; no authority at all.
    pub fn new(place: &str, config: &TlsConfig) -> Result<Self, ConfigError> {
        let wrong = |field: &str, reason: String| ConfigError::Value { field: format!("{place}.{field}"), reason };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots(config).map_err(|reason| wrong("tls_ca_file", reason))?);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("tls", error.to_string()))?;
        let builder = if config.verify_name {
            builder.with_root_certificates(roots)
        } else {
            let verifier =
                verify::without_name(roots, provider).map_err(|error| wrong("tls_ca_file", error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        };
        let client = match (&config.client_certificate_file, &config.client_key_file) {
            (Some(chain_file), Some(key_file)) => {
                let chain = certificates(chain_file).map_err(|reason| wrong("tls_client_certificate_file", reason))?;
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| wrong("tls_client_key_file", format!("{}: {error}", key_file.display())))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    wrong("tls_client_key_file", format!("does not go with tls_client_certificate_file: {error}"))
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        let name = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|error| wrong("tls_server_name", format!("{name:?}: {error}")))
        };
        Ok(Self { config: Arc::new(client), server_name: config.server_name.as_ref().map(name).transpose()? })
    }

    /// Encrypts a connection that leads to `host`.
    ///
    /// # Errors
    /// See [`TlsFailure`].
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => {
                let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                ServerName::try_from(bare).map_err(|error| TlsFailure::Other(format!("{host:?}: {error}")))?
            }
        };
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        connecting.await.map_err(|error| TlsFailure::of_handshake(&error))
    }

    /// For clients that encrypt by themselves.
    pub fn client_config(&self) -> ClientConfig {
        (*self.config).clone()
    }

    /// The name that certificates must have, where it is not that of the host.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }
}

/// For a client that encrypts nothing but needs a configuration: trusts no certificate.
///
/// # Errors
/// None that is known.
pub fn plain() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The system's authorities, and those of the file; those of the file alone where no name is compared, because of the system's
/// authorities anybody gets a certificate for some name.
fn roots(config: &TlsConfig) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if config.verify_name {
        let system = rustls_native_certs::load_native_certs();
        let (_, unusable) = roots.add_parsable_certificates(system.certs);
        if unusable > 0 || !system.errors.is_empty() {
            tracing::debug!(unusable, errors = ?system.errors, "some of the system's certificates cannot be used");
        }
    }
    if let Some(file) = &config.ca_file {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    if roots.is_empty() {
        return Err("this system has no certificates of authorities: install ca-certificates, or name a file".into());
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |what: String| format!("{}: {what}", file.display());
    let text = fs::read(file).map_err(|error: io::Error| named(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| named(error.to_string()))?;
    if found.is_empty() { Err(named("has no certificate (PEM)".into())) } else { Ok(found) }
}

//! `tls` and what goes with it, in `[sql]`, `[store]`, `[cache.shared]` and `[[upstream]]`: whether connections are encrypted, and
//! how the other side proves who it is.
//!
//! What leaves this machine is encrypted unless `tls = "off"` says otherwise. Loopback addresses and sockets are plain unless the
//! URL, or `tls = "required"`, asks for TLS. Nothing is encrypted "if possible": whoever stands in between decides that.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, value};

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// They are, and the other side's certificate is verified; there is no connection otherwise.
    Required,
    /// They are not.
    Off,
}

/// The [`TlsConfig`] of settings whose names begin with `tls`. They cannot be one flattened table: unknown settings are refused.
macro_rules! tls_settings {
    ($settings:expr) => {
        $crate::config::TlsConfig {
            server_name: $settings.tls_server_name.clone(),
            ..$crate::config::tls::tls_settings!($settings, without_server_name)
        }
    };
    ($settings:expr, without_server_name) => {
        $crate::config::TlsConfig {
            mode: $settings.tls,
            ca_file: $settings.tls_ca_file.clone(),
            client_certificate_file: $settings.tls_client_certificate_file.clone(),
            client_key_file: $settings.tls_client_key_file.clone(),
            verify_name: $settings.tls_verify_name,
            server_name: None,
        }
    };
}
pub(super) use tls_settings;

/// The settings of one place, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The word, where one is written.
    pub mode: Option<TlsMode>,
    /// Certificates of authorities that are trusted besides the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and what leads from it to an authority, as PEM.
    pub client_certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    pub client_key_file: Option<PathBuf>,
    /// Whether the certificate must be for the name that is connected to.
    pub verify_name: bool,
    /// The name that it must be for instead.
    pub server_name: Option<String>,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            mode: None,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            verify_name: true,
            server_name: None,
        }
    }
}

/// What a URL says of TLS, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlTls {
    /// Nothing.
    Silent,
    /// Not to encrypt.
    Plain {
        /// What says so, such as `redis://`.
        word: &'static str,
        /// What to write for the contrary.
        instead: &'static str,
    },
    /// To encrypt.
    Required {
        /// What says so.
        word: &'static str,
    },
}

impl TlsConfig {
    /// Whether connections from `place` (such as `sql`) to these hosts are encrypted.
    ///
    /// # Errors
    /// Contradictions; plain connections to other machines that nobody has asked for; settings of TLS where there is none.
    pub fn decide(&self, place: &str, url: UrlTls, hosts: &[&str]) -> Result<bool, ConfigError> {
        let field = format!("{place}.tls");
        let far = hosts.iter().find(|host| !is_near(host));
        let is_on = match (self.mode, url) {
            (Some(TlsMode::Off), UrlTls::Required { word }) => {
                return Err(value(field, format!("is \"off\", and the URL says {word}: leave one of them out")));
            }
            (Some(TlsMode::Required), UrlTls::Plain { word, instead }) => {
                return Err(value(field, format!("is \"required\", and the URL says {word}: write {instead}")));
            }
            (None, UrlTls::Plain { word, instead }) => {
                if let Some(host) = far {
                    let reason = format!(
                        "{word} to {host} is not encrypted and leaves this machine: write {instead}, or {field} = \"off\" \
                         where nobody else can listen"
                    );
                    return Err(value(field, reason));
                }
                false
            }
            (Some(TlsMode::Off), _) => false,
            (Some(TlsMode::Required), _) | (None, UrlTls::Required { .. }) => true,
            (None, UrlTls::Silent) => far.is_some(),
        };
        if is_on && let Some(socket) = hosts.iter().find(|host| host.starts_with('/')) {
            return Err(value(
                field,
                format!("the socket {socket} does not leave this machine and has no TLS: leave it out"),
            ));
        }
        self.check_files(place, is_on)?;
        Ok(is_on)
    }

    fn check_files(&self, place: &str, is_on: bool) -> Result<(), ConfigError> {
        let field = |name: &str| format!("{place}.{name}");
        let given = [
            ("tls_ca_file", self.ca_file.is_some()),
            ("tls_client_certificate_file", self.client_certificate_file.is_some()),
            ("tls_client_key_file", self.client_key_file.is_some()),
            ("tls_server_name", self.server_name.is_some()),
            ("tls_verify_name", !self.verify_name),
        ];
        if !is_on && let Some((name, _)) = given.iter().find(|(_, is_given)| *is_given) {
            let reason = "is set, and these connections are not encrypted: write tls = \"required\", or leave it out";
            return Err(value(field(name), reason));
        }
        if self.client_certificate_file.is_some() != self.client_key_file.is_some() {
            let reason = "tls_client_certificate_file and tls_client_key_file belong together: set both, or none";
            return Err(value(field("tls_client_key_file"), reason));
        }
        if !self.verify_name && self.ca_file.is_none() {
            let reason =
                "false needs tls_ca_file: of the system's authorities anybody gets a certificate for some name";
            return Err(value(field("tls_verify_name"), reason));
        }
        if !self.verify_name && self.server_name.is_some() {
            return Err(value(
                field("tls_server_name"),
                "no name is compared with tls_verify_name = false: leave one out",
            ));
        }
        Ok(())
    }
}

/// Whether what goes there stays on this machine: a loopback address, its name, a socket, or no host at all.
pub(super) fn is_near(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() || bare.starts_with('/') {
        return true;
    }
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    // Of what ends with it a resolver may think otherwise.
    bare.trim_end_matches('.').eq_ignore_ascii_case("localhost")
}

/// `true`, for serde.
pub(super) fn yes() -> bool {
    true
}

/// Whether it is the default, for serde.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references over")]
pub(super) fn is_yes(given: &bool) -> bool {
    *given
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: UrlTls = UrlTls::Plain { word: "redis://", instead: "rediss://" };
    const ASKED: UrlTls = UrlTls::Required { word: "rediss://" };

    fn with(mode: Option<TlsMode>) -> TlsConfig {
        TlsConfig { mode, ..TlsConfig::default() }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses_and_names() {
        for near in ["", "localhost", "LOCALHOST.", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "/run/pg"] {
            assert!(is_near(near), "{near}");
        }
        for far in
            ["10.0.0.7", "db", "db.localhost", "localhost.example", "0.0.0.0", "[2001:db8::1]", "::ffff:10.0.0.1"]
        {
            assert!(!is_near(far), "{far}");
        }
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_said_otherwise() {
        let decide = |mode, url, host: &str| with(mode).decide("store", url, &[host]);
        assert_eq!(decide(None, UrlTls::Silent, "db.example"), Ok(true));
        assert_eq!(decide(None, UrlTls::Silent, "127.0.0.1"), Ok(false));
        assert_eq!(decide(None, UrlTls::Silent, "/run/postgresql"), Ok(false));
        assert_eq!(decide(None, ASKED, "127.0.0.1"), Ok(true));
        assert_eq!(decide(Some(TlsMode::Required), UrlTls::Silent, "127.0.0.1"), Ok(true));
        assert_eq!(decide(Some(TlsMode::Off), UrlTls::Silent, "db.example"), Ok(false));
        assert_eq!(decide(Some(TlsMode::Off), PLAIN, "db.example"), Ok(false));
        assert_eq!(decide(None, PLAIN, "localhost"), Ok(false));
        assert_eq!(with(None).decide("store", UrlTls::Silent, &["127.0.0.1", "db.example"]), Ok(true));
    }

    #[test]
    fn a_plain_connection_to_another_machine_must_be_asked_for() {
        let told = with(None).decide("store", PLAIN, &["10.0.0.7"]).unwrap_err().to_string();
        assert_eq!(
            told,
            "store.tls: redis:// to 10.0.0.7 is not encrypted and leaves this machine: write rediss://, or store.tls = \
             \"off\" where nobody else can listen"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let why = |mode, url, host: &str| with(mode).decide("store", url, &[host]).unwrap_err().to_string();
        assert!(why(Some(TlsMode::Off), ASKED, "db").contains("is \"off\", and the URL says rediss://"));
        assert!(why(Some(TlsMode::Required), PLAIN, "127.0.0.1").contains("write rediss://"));
        assert!(why(Some(TlsMode::Required), UrlTls::Silent, "/run/pg").contains("has no TLS"));
    }

    #[test]
    fn settings_that_would_do_nothing_or_too_much_are_refused() {
        let why =
            |config: TlsConfig, host: &str| config.decide("sql", UrlTls::Silent, &[host]).unwrap_err().to_string();
        let ca = TlsConfig { ca_file: Some("ca.pem".into()), ..TlsConfig::default() };
        assert!(why(ca.clone(), "127.0.0.1").starts_with("sql.tls_ca_file: is set, and these connections are not"));
        assert_eq!(ca.decide("sql", UrlTls::Silent, &["db"]), Ok(true));
        let half = TlsConfig { client_key_file: Some("key.pem".into()), ..TlsConfig::default() };
        assert!(why(half, "db").contains("belong together"));
        let any = TlsConfig { verify_name: false, ..TlsConfig::default() };
        assert!(why(any.clone(), "db").starts_with("sql.tls_verify_name: false needs tls_ca_file"));
        let both = TlsConfig { server_name: Some("x".into()), ca_file: ca.ca_file, ..any };
        assert!(why(both, "db").contains("no name is compared"));
    }
}

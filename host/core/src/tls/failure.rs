//! What a failed handshake means: which certificate, why, and what to do. Pure.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as RustlsError};

/// What sqlx says of a server without TLS; it has no type of its own for that.
const SQLX_PLAIN: &str = "server does not support TLS";

/// What rustls says before the name of an alert.
const ALERT: &str = "received fatal alert: ";
/// With these a server refuses us.
const OF_OUR_CERTIFICATE: [AlertDescription; 8] = [
    AlertDescription::CertificateRequired,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
];

/// Why a connection could not be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    /// The server's certificate was issued by an authority that we do not trust.
    #[error("the server's certificate is issued by an authority that is not trusted (unknown CA)")]
    UnknownIssuer,
    /// It has expired.
    #[error("the server's certificate expired{}", on(.since.as_ref()))]
    Expired {
        /// When.
        since: Option<SystemTime>,
    },
    /// It is not valid yet.
    #[error("the server's certificate is not valid yet{}", on(.from.as_ref()))]
    NotYetValid {
        /// From when.
        from: Option<SystemTime>,
    },
    /// It is for other names.
    #[error("the server's certificate is for {presented}, not for {expected} (wrong name)")]
    WrongName {
        /// The name that was connected to.
        expected: String,
        /// The names that it has.
        presented: String,
    },
    /// It does not hold for another reason.
    #[error("the server's certificate does not hold: {0}")]
    Certificate(String),
    /// The server refuses us: it wants a certificate, or another one.
    #[error("the server refuses our certificate, or that we have none ({0})")]
    ClientRefused(String),
    /// The server does not speak TLS.
    #[error("the server does not speak TLS, and TLS is required")]
    Plain,
    /// The connection ended, or something else went wrong.
    #[error("no TLS connection: {0}")]
    Other(String),
}

fn on(time: Option<&SystemTime>) -> String {
    time.map(|time| format!(" on {}", httpdate::fmt_http_date(*time))).unwrap_or_default()
}

impl TlsFailure {
    /// Of an error, if TLS is anywhere in its causes.
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(failure) = error.downcast_ref::<Self>() {
                return Some(failure.clone());
            }
            if let Some(rustls) = error.downcast_ref::<RustlsError>() {
                return Some(Self::of_rustls(rustls));
            }
            // The source of an I/O error is the source of the error inside, not that error.
            let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(failure) = inside.and_then(|inside| Self::of(inside)) {
                return Some(failure);
            }
            let text = error.to_string();
            if text == SQLX_PLAIN {
                return Some(Self::Plain);
            }
            // A library may have kept the words only.
            let alert = text.split_once(ALERT).map(|(_, alert)| alert.split(|c: char| !c.is_alphanumeric()).next());
            if let Some(Some(alert)) = alert
                && OF_OUR_CERTIFICATE.iter().any(|known| format!("{known:?}") == alert)
            {
                return Some(Self::ClientRefused(alert.to_owned()));
            }
            next = error.source();
        }
        None
    }

    /// Of what ended a handshake, whatever it was.
    pub fn of_handshake(error: &io::Error) -> Self {
        Self::of(error).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Other("the server ended the connection in the handshake".into()),
            _ => Self::Other(error.to_string()),
        })
    }

    fn of_rustls(error: &RustlsError) -> Self {
        match error {
            RustlsError::InvalidCertificate(certificate) => Self::of_certificate(certificate),
            RustlsError::InvalidMessage(_) => Self::Plain,
            RustlsError::AlertReceived(alert) if OF_OUR_CERTIFICATE.contains(alert) => {
                Self::ClientRefused(format!("{alert:?}"))
            }
            other => Self::Other(other.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired => Self::Expired { since: None },
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired { since: Some(system(*not_after)) },
            CertificateError::NotValidYet => Self::NotYetValid { from: None },
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid { from: Some(system(*not_before)) }
            }
            CertificateError::NotValidForName => {
                Self::WrongName { expected: "the name in the URL".into(), presented: "other names".into() }
            }
            CertificateError::NotValidForNameContext { expected, presented } => Self::WrongName {
                expected: expected.to_str().into_owned(),
                presented: if presented.is_empty() { "no name at all".into() } else { names(presented) },
            },
            other => Self::Certificate(other.to_string()),
        }
    }

    /// What it is called in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown-ca",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::WrongName { .. } => "wrong-name",
            Self::Certificate(_) => "certificate",
            Self::ClientRefused(_) => "client-refused",
            Self::Plain => "plain-server",
            Self::Other(_) => "other",
        }
    }

    /// Whether a text is what [`TlsFailure::told`] says.
    pub fn is_told(text: &str) -> bool {
        text.starts_with("the server's certificate ")
            || text.starts_with("the server refuses our certificate")
            || text.starts_with("the server does not speak TLS")
            || text.starts_with("no TLS connection: ")
    }

    /// What is wrong and what to do, where the settings are those of `place`.
    pub fn told(&self, place: &str) -> String {
        let remedy = match self {
            Self::UnknownIssuer => format!("name the file with that authority's certificate in {place}.tls_ca_file"),
            Self::Expired { .. } => "renew it, or set this machine's clock".into(),
            Self::NotYetValid { .. } => "set this machine's clock".into(),
            Self::WrongName { .. } => format!(
                "connect by a name that it has, get one for this name, or trust an authority of your own \
                 ({place}.tls_ca_file) for any name ({place}.tls_verify_name = false)"
            ),
            Self::ClientRefused(_) => {
                format!("see {place}.tls_client_certificate_file and {place}.tls_client_key_file")
            }
            Self::Plain => format!("switch TLS on there, or write {place}.tls = \"off\""),
            Self::Certificate(_) | Self::Other(_) => return self.to_string(),
        };
        format!("{self}: {remedy}")
    }
}

fn system(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// As people write names: rustls has `DnsName("a.example")` and `IpAddress(10.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').to_owned()
    };
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    fn of(error: CertificateError) -> TlsFailure {
        let held = io::Error::new(io::ErrorKind::InvalidData, RustlsError::InvalidCertificate(error));
        TlsFailure::of(&held).unwrap()
    }

    #[test]
    fn a_certificate_says_why_it_does_not_hold_and_what_to_do() {
        let wrong_name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("db.example").unwrap().to_owned(),
            presented: vec!["DnsName(\"other.example\")".into(), "IpAddress(10.0.0.1)".into()],
        };
        let expired = CertificateError::ExpiredContext {
            time: UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000)),
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000)),
        };
        for (failure, name, expected) in [
            (
                of(CertificateError::UnknownIssuer),
                "unknown-ca",
                "the server's certificate is issued by an authority that is not trusted (unknown CA): name the file with \
                 that authority's certificate in sql.tls_ca_file",
            ),
            (
                of(expired),
                "expired",
                "the server's certificate expired on Sun, 09 Sep 2001 01:46:40 GMT: renew it, or set this machine's clock",
            ),
            (
                of(wrong_name),
                "wrong-name",
                "the server's certificate is for other.example, 10.0.0.1, not for db.example (wrong name): connect by a \
                 name that it has, get one for this name, or trust an authority of your own (sql.tls_ca_file) for any name \
                 (sql.tls_verify_name = false)",
            ),
            (
                TlsFailure::Plain,
                "plain-server",
                "the server does not speak TLS, and TLS is required: switch TLS on there, or write sql.tls = \"off\"",
            ),
        ] {
            assert_eq!((failure.name(), failure.told("sql").as_str()), (name, expected));
            assert!(TlsFailure::is_told(expected), "{expected}");
        }
    }

    #[test]
    fn what_is_no_failure_of_tls_is_none() {
        assert_eq!(TlsFailure::of(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
        assert_eq!(TlsFailure::of(&io::Error::other("something else")), None);
        let refused = io::Error::other(RustlsError::AlertReceived(AlertDescription::CertificateRequired));
        assert_eq!(TlsFailure::of(&refused), Some(TlsFailure::ClientRefused("CertificateRequired".into())));
        let words = io::Error::other("received fatal alert: CertificateRequired (broken pipe)");
        assert_eq!(TlsFailure::of(&words), Some(TlsFailure::ClientRefused("CertificateRequired".into())));
        assert_eq!(TlsFailure::of(&io::Error::other("received fatal alert: InternalError")), None);
    }
}

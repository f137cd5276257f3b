//! `sql.url` of a server, taken apart: which hosts, and what it says of TLS. What is left is for the engine's driver, which knows
//! one host and may encrypt "if possible".

use std::path::PathBuf;

use super::tls::{TlsConfig, UrlTls};

/// What the driver of PostgreSQL takes in the query.
const POSTGRES: [&str; 9] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];
/// What that of MySQL takes.
const MYSQL: [&str; 6] = ["socket", "charset", "collation", "timezone", "time-zone", "statement-cache-capacity"];

/// A URL of one server, or of several of which one takes writes.
#[derive(Clone, PartialEq, Eq)]
pub struct SqlUrl {
    scheme: String,
    /// `user:password@`, or nothing.
    user: String,
    /// Each `host:port`, as written.
    hosts: Vec<String>,
    path: String,
    /// As written, without what this type knows.
    query: Vec<String>,
    /// A host or a socket that stands in the query goes before the one in the authority.
    elsewhere: Option<String>,
    tls: UrlTls,
    files: TlsConfig,
}

impl std::fmt::Debug for SqlUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without passwords, which stand before the hosts or in the query.
        let Self { scheme, hosts, path, tls, .. } = self;
        f.debug_struct("SqlUrl")
            .field("scheme", scheme)
            .field("hosts", hosts)
            .field("path", path)
            .field("tls", tls)
            .finish_non_exhaustive()
    }
}

impl SqlUrl {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("must be postgres://… or mysql://…")?;
        if rest.contains('#') {
            // A driver would see another host than we do.
            return Err("has a # in it: write %23, as a password with one needs it".into());
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let hosts: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
        if hosts.len() > 1 && hosts.iter().any(|host| bare(host).is_empty()) {
            return Err("names an empty host: write user@one:5432,two:5432".into());
        }
        let mut parsed = Self {
            scheme: scheme.into(),
            user: if user.is_empty() { String::new() } else { format!("{user}@") },
            hosts,
            path: path.into(),
            query: Vec::new(),
            elsewhere: None,
            tls: UrlTls::Silent,
            files: TlsConfig::default(),
        };
        query.split('&').filter(|pair| !pair.is_empty()).try_for_each(|pair| parsed.take(pair))?;
        match &parsed.elsewhere {
            Some(host) if parsed.hosts.len() > 1 || host.contains(',') => {
                Err("names several hosts in two places: write all before the path, user@one:5432,two:5432".into())
            }
            _ => Ok(parsed),
        }
    }

    fn take(&mut self, pair: &str) -> Result<(), String> {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let text = decoded(text);
        match name {
            "sslmode" | "ssl-mode" => self.tls = tls_of(&text)?,
            // libpq's word for the system's authorities, which are trusted anyway.
            "sslrootcert" if text == "system" => {}
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslca" => self.files.ca_file = Some(PathBuf::from(text)),
            "sslcert" | "ssl-cert" => self.files.client_certificate_file = Some(PathBuf::from(text)),
            "sslkey" | "ssl-key" => self.files.client_key_file = Some(PathBuf::from(text)),
            // weir writes: of several hosts it takes the one that lets it, whatever this says.
            "target_session_attrs" if !["read-write", "primary", "any"].contains(&text.as_str()) => {
                return Err(format!("says {name}={text}, and weir writes: write {name}=read-write, or leave it out"));
            }
            "target_session_attrs" => {}
            _ if !self.is_known(name) => {
                // What a driver leaves out may be what keeps strangers out.
                return Err(format!("says {name}, which means nothing here: leave it out; of TLS see sql.tls"));
            }
            _ => {
                if matches!(name, "host" | "hostaddr" | "socket") {
                    self.elsewhere = Some(text);
                }
                self.query.push(pair.into());
            }
        }
        Ok(())
    }

    fn is_known(&self, name: &str) -> bool {
        match self.scheme.as_str() {
            "mysql" | "mariadb" => MYSQL.contains(&name),
            _ => POSTGRES.contains(&name) || name.starts_with("options["),
        }
    }

    /// The hosts, without ports; of a socket its path.
    pub fn hosts(&self) -> Vec<String> {
        match &self.elsewhere {
            Some(host) => vec![host.clone()],
            None => self.hosts.iter().map(|host| decoded(bare(host))).collect(),
        }
    }

    /// What it says of TLS.
    pub fn tls(&self) -> UrlTls {
        self.tls
    }

    /// The settings of TLS, with the files that the URL names where the configuration has none.
    ///
    /// # Errors
    /// Both name one, and not the same.
    pub fn with_files(&self, config: TlsConfig) -> Result<TlsConfig, String> {
        let one = |name: &str, ours: Option<PathBuf>, theirs: &Option<PathBuf>| match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours != *theirs => Err(format!(
                "sql.{name} is {}, and the URL says {}: leave one of them out",
                ours.display(),
                theirs.display()
            )),
            (ours, theirs) => Ok(ours.or_else(|| theirs.clone())),
        };
        let of_url = &self.files;
        Ok(TlsConfig {
            ca_file: one("tls_ca_file", config.ca_file, &of_url.ca_file)?,
            client_certificate_file: one(
                "tls_client_certificate_file",
                config.client_certificate_file,
                &of_url.client_certificate_file,
            )?,
            client_key_file: one("tls_client_key_file", config.client_key_file, &of_url.client_key_file)?,
            ..config
        })
    }

    /// A URL for each host, in order, without what a driver would make of TLS.
    pub fn singles(&self) -> Vec<String> {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query.join("&")) };
        let slash = if self.path.is_empty() { "" } else { "/" };
        let Self { scheme, user, path, .. } = self;
        self.hosts.iter().map(|host| format!("{scheme}://{user}{host}{slash}{path}{query}")).collect()
    }
}

/// Without the port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Of `[::1]` the last colon is inside.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

fn tls_of(text: &str) -> Result<UrlTls, String> {
    match text.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "disabled" => Ok(UrlTls::Plain {
            word: "sslmode=disable (ssl-mode=DISABLED)",
            instead: "sslmode=verify-full (VERIFY_IDENTITY)",
        }),
        "require" | "required" => Ok(UrlTls::Required { word: "sslmode=require (ssl-mode=REQUIRED)" }),
        "verify-ca" => Ok(UrlTls::Required { word: "sslmode=verify-ca (ssl-mode=VERIFY_CA)" }),
        "verify-full" | "verify-identity" => {
            Ok(UrlTls::Required { word: "sslmode=verify-full (ssl-mode=VERIFY_IDENTITY)" })
        }
        "prefer" | "allow" | "preferred" => Err(format!(
            "says {text}, which encrypts only if whoever answers wants to: write sslmode=verify-full (ssl-mode=VERIFY_IDENTITY), \
             or sql.tls = \"off\""
        )),
        _ => Err(format!("says {text:?} of TLS, which is unknown: leave it out, and see sql.tls")),
    }
}

/// Without `%20` and the like; what is no such thing stays.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> SqlUrl {
        SqlUrl::parse(url).unwrap()
    }

    #[test]
    fn several_hosts_are_as_many_urls() {
        let url =
            of("postgres://app:s%40cret@one:5432,two:6432/shop?target_session_attrs=read-write&application_name=x");
        assert_eq!(url.hosts(), ["one", "two"]);
        assert_eq!(
            url.singles(),
            [
                "postgres://app:s%40cret@one:5432/shop?application_name=x",
                "postgres://app:s%40cret@two:6432/shop?application_name=x"
            ]
        );
        assert_eq!(of("mysql://root@[::1]:3306,[2001:db8::7]/shop").hosts(), ["[::1]", "[2001:db8::7]"]);
        for wrong in
            ["postgres://one,,two/shop", "postgres://one,two/shop?host=/run/pg", "postgres://u@/s?host=a,b", "x"]
        {
            assert!(SqlUrl::parse(wrong).is_err(), "{wrong}");
        }
        let reads = SqlUrl::parse("postgres://one,two/shop?target_session_attrs=standby").unwrap_err();
        assert!(reads.contains("weir writes"), "{reads}");
    }

    #[test]
    fn what_a_driver_would_understand_otherwise_or_not_at_all_is_refused() {
        for (wrong, word) in [
            ("mysql://app:pw@db.example/shop?host=localhost", "host"),
            ("mysql://db.example#@localhost/x", "#"),
            ("mysql://127.0.0.1/x?sslMode=REQUIRED", "sslMode"),
            ("postgres://127.0.0.1/x?channel_binding=require", "channel_binding"),
            ("postgres://127.0.0.1/x?sslpassword=s3cret", "sslpassword"),
        ] {
            let why = SqlUrl::parse(wrong).unwrap_err();
            assert!(why.contains(word) && !why.contains("s3cret"), "{wrong}: {why}");
        }
        let shown = format!("{:?}", of("postgres://app:s3cret@db/shop?password=s3cret"));
        assert!(shown.contains("db") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn sockets_are_known() {
        assert_eq!(of("postgres://%2Frun%2Fpostgresql/shop").hosts(), ["/run/postgresql"]);
        assert_eq!(of("postgres://app@/shop?host=/run/pg").hosts(), ["/run/pg"]);
        assert_eq!(of("mysql://app@localhost/shop?socket=%2Frun%2Fmysqld.sock").hosts(), ["/run/mysqld.sock"]);
        assert_eq!(of("postgres:///shop").hosts(), [""]);
        assert_eq!(of("mysql://app@db/shop?socket=/run/m.sock").singles(), ["mysql://app@db/shop?socket=/run/m.sock"]);
    }

    #[test]
    fn what_it_says_of_tls_is_taken_out() {
        for (mode, is_asked) in [("sslmode=require", true), ("ssl-mode=VERIFY_CA", true), ("sslmode=disable", false)] {
            let url = of(&format!("postgres://db/shop?{mode}"));
            assert_eq!(matches!(url.tls(), UrlTls::Required { .. }), is_asked, "{mode}");
            assert_eq!(url.singles(), ["postgres://db/shop"]);
        }
        for mode in ["sslmode=prefer", "sslmode=allow", "ssl-mode=PREFERRED"] {
            let why = SqlUrl::parse(&format!("postgres://db/shop?{mode}")).unwrap_err();
            assert!(why.contains("only if whoever answers wants to") && why.contains("sql.tls = \"off\""), "{why}");
        }
        assert!(SqlUrl::parse("mysql://db/shop?ssl-mode=maybe").unwrap_err().contains("unknown"));
    }

    #[test]
    fn files_are_named_in_one_place() {
        let url = of("postgres://db/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem&sslcert=c.pem&sslkey=k.pem");
        let files = url.with_files(TlsConfig::default()).unwrap();
        assert_eq!(files.ca_file, Some("/etc/ca.pem".into()));
        assert_eq!(
            (files.client_certificate_file, files.client_key_file),
            (Some("c.pem".into()), Some("k.pem".into()))
        );
        let other = TlsConfig { ca_file: Some("/other.pem".into()), ..TlsConfig::default() };
        assert!(url.with_files(other).unwrap_err().contains("leave one of them out"));
        assert_eq!(
            of("postgres://db/shop?sslrootcert=system").with_files(TlsConfig::default()),
            Ok(TlsConfig::default())
        );
    }
}

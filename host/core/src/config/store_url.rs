//! `store.url` and `cache.shared.url`, as far as hosts, sentinels and TLS are concerned.

use super::tls::UrlTls;

/// Schemes, and whether they say to encrypt.
const SCHEMES: [(&str, Way); 9] = [
    ("redis", Way::Plain),
    ("valkey", Way::Plain),
    ("rediss", Way::Tls),
    ("valkeys", Way::Tls),
    ("unix", Way::Socket),
    ("redis+unix", Way::Socket),
    ("valkey+unix", Way::Socket),
    ("redis+sentinel", Way::Plain),
    ("rediss+sentinel", Way::Tls),
];
/// Port of a sentinel that names none.
const SENTINEL_PORT: u16 = 26_379;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    Socket,
}

/// A URL of a Redis: of one server, of nodes of a cluster, or of sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// Host names, without ports; of a socket its path.
    pub hosts: Vec<String>,
    /// What it says of TLS.
    pub tls: UrlTls,
    /// The sentinels, where it names some.
    pub sentinels: Option<SentinelUrl>,
}

/// Who knows the master.
#[derive(Clone, PartialEq, Eq)]
pub struct SentinelUrl {
    /// Host and port of each sentinel.
    pub nodes: Vec<(String, u16)>,
    /// What they call the master.
    pub master: String,
    /// The master's URL with a place for its address: user, password and database are in it.
    pub template: String,
    /// Who we are to the sentinels; these have users of their own.
    pub username: Option<String>,
    /// With which password.
    pub password: Option<String>,
}

impl std::fmt::Debug for SentinelUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without passwords.
        f.debug_struct("SentinelUrl").field("nodes", &self.nodes).field("master", &self.master).finish_non_exhaustive()
    }
}

impl StoreUrl {
    /// Takes a URL apart; several servers stand with commas between them.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(url.trim())?;
        let way = way_of(scheme)?;
        if rest.contains('#') {
            return Err(
                "ends with #…, which would switch verification off: leave it out, and see tls_verify_name".into()
            );
        }
        let tls = match way {
            Way::Tls if scheme.ends_with("+sentinel") => UrlTls::Required { word: "rediss+sentinel://" },
            Way::Tls => UrlTls::Required { word: "rediss://" },
            Way::Socket => {
                // Behind it a password may stand.
                let path = rest.split_once('?').map_or(rest, |(path, _)| path);
                return Ok(Self {
                    hosts: vec![format!("/{}", path.trim_start_matches('/'))],
                    tls: UrlTls::Silent,
                    sentinels: None,
                });
            }
            Way::Plain if scheme.ends_with("+sentinel") => {
                UrlTls::Plain { word: "redis+sentinel://", instead: "rediss+sentinel://" }
            }
            Way::Plain => UrlTls::Plain { word: "redis://", instead: "rediss://" },
        };
        if scheme.ends_with("+sentinel") {
            let sentinels = SentinelUrl::parse(rest, way == Way::Tls)?;
            let hosts = sentinels.nodes.iter().map(|(host, _)| host.clone()).collect();
            return Ok(Self { hosts, tls, sentinels: Some(sentinels) });
        }
        let hosts: Result<Vec<String>, String> = url
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (of_part, place) = if part.contains("://") { split_scheme(part)? } else { (scheme, part) };
                if way_of(of_part)? != way {
                    return Err(format!("names servers with {scheme}:// and with {of_part}://: all alike, please"));
                }
                Ok(host_of(place).to_owned())
            })
            .collect();
        Ok(Self { hosts: hosts?, tls, sentinels: None })
    }
}

impl SentinelUrl {
    /// Of what follows the scheme: `[user:password@]host:port,host:port/master[/database][?sentinel_password=…]`.
    fn parse(rest: &str, is_tls: bool) -> Result<Self, String> {
        let example = "write redis+sentinel://[user:password@]host:26379,host:26379/master-name[/database]";
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').ok_or_else(|| format!("names no master: {example}"))?;
        let (user, nodes) =
            authority.rsplit_once('@').map_or((String::new(), authority), |(user, nodes)| (format!("{user}@"), nodes));
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(format!("names no master: {example}"));
        }
        let node = |node: &str| {
            let host = host_of(node).to_owned();
            let port = node.strip_prefix(host.as_str()).and_then(|rest| rest.strip_prefix(':'));
            let port =
                port.map_or(Ok(SENTINEL_PORT), |port| port.parse().map_err(|_| format!("{node:?}: {example}")))?;
            if host.is_empty() { Err(format!("names an empty sentinel: {example}")) } else { Ok((host, port)) }
        };
        let nodes: Vec<(String, u16)> =
            nodes.split(',').map(|text| node(text.trim())).collect::<Result<_, String>>()?;
        let (mut username, mut password) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("sentinel_username", text) => username = Some(super::sql_url::decoded(text)),
                ("sentinel_password", text) => password = Some(super::sql_url::decoded(text)),
                (other, _) => return Err(format!("says {other}, which is unknown: {example}")),
            }
        }
        let scheme = if is_tls { "rediss" } else { "redis" };
        let database = if database.is_empty() { "0" } else { database };
        let template = format!("{scheme}://{user}sentinel.invalid:1/{database}");
        Ok(Self { nodes, master: super::sql_url::decoded(master), template, username, password })
    }
}

fn split_scheme(url: &str) -> Result<(&str, &str), String> {
    let (scheme, rest) = url.split_once(':').ok_or("must be redis://host:port or rediss://host:port")?;
    Ok((scheme, rest.strip_prefix("//").unwrap_or(rest)))
}

fn way_of(scheme: &str) -> Result<Way, String> {
    let known = SCHEMES.iter().find(|(name, _)| *name == scheme).map(|(_, way)| *way);
    known.ok_or_else(|| format!("begins with {scheme:?}: write redis://, rediss://, unix:// or redis+sentinel://"))
}

/// `user:password@host:port/database` → `host`.
fn host_of(place: &str) -> &str {
    let authority = place.split(['/', '?']).next().unwrap_or(place);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        StoreUrl::parse(url).unwrap().hosts
    }

    #[test]
    fn hosts_are_found_in_each_form() {
        assert_eq!(hosts("redis://user:p@ss@a:6379/2"), ["a"]);
        assert_eq!(hosts("rediss://a:1, b:2,rediss://c:3"), ["a", "b", "c"]);
        assert_eq!(hosts("redis://[::1]:6379"), ["[::1]"]);
        assert_eq!(hosts("unix:///run/redis.sock?db=1")[0].split('?').next(), Some("/run/redis.sock"));
        assert_eq!(hosts("redis://"), [""]);
        assert!(["unix:/a", "redis+unix:///a", "valkey+unix:///a"].iter().all(|url| hosts(url) == ["/a"]));
        for wrong in ["a:6379", "http://a", "redis://a,rediss://b", "rediss://a/#insecure"] {
            assert!(StoreUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sentinels_name_a_master() {
        let url = "rediss+sentinel://app:word@s1:26380,s2/shop-master/3?sentinel_password=p%40";
        let parsed = StoreUrl::parse(url).unwrap();
        let sentinels = parsed.sentinels.unwrap();
        assert_eq!(sentinels.nodes, [("s1".to_owned(), 26_380), ("s2".to_owned(), 26_379)]);
        assert_eq!((sentinels.master.as_str(), sentinels.password.as_deref()), ("shop-master", Some("p@")));
        assert_eq!(sentinels.template, "rediss://app:word@sentinel.invalid:1/3");
        assert!(!format!("{sentinels:?}").contains("word"), "no password in what is printed");
        assert_eq!(parsed.tls, UrlTls::Required { word: "rediss+sentinel://" });
        for wrong in
            ["redis+sentinel://s1:1", "redis+sentinel://s1:1/", "redis+sentinel://s1:x/m", "redis+sentinel://,/m"]
        {
            let why = StoreUrl::parse(wrong).unwrap_err();
            assert!(why.contains("master-name"), "{wrong}: {why}");
        }
    }
}

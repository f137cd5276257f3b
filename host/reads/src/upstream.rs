//! Upstream: a reverse proxy with a shared cache that is correct by RFC 9111.
//!
//! Uses `weir-cache`, and `weir-listener` for bodies. Never imports a capability, SQL or the store. Bodies
//! are streamed; memory holds at most the stored responses, each queue is bounded.
//!
//! - `serve`: the life of a request. `fetch`: the origin's answer. `deliver`: the reply to the client.
//! - `control`: caching directives. `stored`: whether and how long a response may be stored, and its age.
//! - `outgoing`: a request as the origin gets it; `names` selects its headers. `key`: cache keys, made of that value alone.
//!   `location`: URLs in answers, as the client sees them.
//! - `conditional`, `range`, `hop`: one part of HTTP each. `message`: the end of an answer. `events`: event streams.
//! - `allowance`: the effect of a rule on a response.
//! - `origin`: connections and their bounds. `shared_body`: a body that many clients share while it arrives. `fill`: storing it
//!   meanwhile.
//!
//! Why not the crate `http-cache-semantics`: it stores no variants side by side, knows no targeted headers, windows or groups, and
//! takes the first of two lifetimes; the useful rest is smaller than the glue.
//!
//! Never stores a body that was cut short, never sends a request twice, never trusts a client about its identity towards
//! others, and never stores or serves to others a response to one person's cookie.

mod allowance;
mod conditional;
mod control;
mod deliver;
mod events;
mod fetch;
mod fill;
mod hop;
mod key;
mod location;
mod message;
mod names;
mod origin;
mod outgoing;
mod range;
mod serve;
mod shared_body;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;

use fill::InFlight;
use hop::Pseudonym;
use origin::Origin;
use outgoing::Passage;
use stored::Cached;
use weir_cache::{Cache, CacheLimits, CacheStatus, Forwarded, Leader, Rules, Ruling, Subject, Totals};
use weir_core::clock::Clock;
use weir_core::config::{AuthConfig, CacheConfig, ConfigError, UpstreamConfig};
use weir_core::operators::{CacheMemory, UpstreamCache};

/// The methods that are forwarded by name, for `Allow`; unknown ones are forwarded, too.
pub const UPSTREAM_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The stored responses of all upstreams; waiters may follow a response in flight.
type Responses = Cache<Cached, InFlight>;
/// The right to ask the origin for all waiters.
type UpstreamLeader = Leader<InFlight>;

/// Why an upstream has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("the origin cannot be reached")]
    Unreachable,
    /// The answer is invalid, too large, or did not arrive.
    #[error("the origin's answer is not usable")]
    Broken,
    /// No answer in time.
    #[error("the origin did not answer in time")]
    Late,
    /// The request's body is too large.
    #[error("the request's body is too large")]
    RequestBodyTooLarge,
    /// The request's body ended early, or its end is ambiguous.
    #[error("the request's body did not come whole")]
    RequestBodyBroken,
    /// Too many requests to the origin, or too many that wait for the same response.
    #[error("too many requests to the origin")]
    Overloaded,
    /// The path has a segment `.` or `..`, plain or encoded: the origin would read it as another path.
    #[error("the path has a segment that is `.` or `..`")]
    DotSegment,
    /// The path cannot be forwarded.
    #[error("the path is not one that can be sent on")]
    BadPath,
    /// The client wants a response from the cache only, which has none.
    #[error("nothing is kept of it")]
    NotCached,
    /// The request has passed this host before.
    #[error("the request has come through this host before")]
    Loop,
    /// A method that is not forwarded: `TRACE` reveals the other headers of a request.
    #[error("the method is not passed on")]
    MethodRefused,
}

impl UpstreamError {
    /// Whether the request went to the origin, or weir tried to send it.
    fn was_asked(self) -> bool {
        matches!(self, Self::Unreachable | Self::Broken | Self::Late)
    }

    /// Whether the upstream failed, and not the request.
    fn is_of_upstream(self) -> bool {
        self.was_asked() || self == Self::Overloaded
    }
}

/// A request without an answer, and what the cache did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct UpstreamFailure {
    /// Why.
    pub error: UpstreamError,
    status: CacheStatus,
}

impl UpstreamFailure {
    /// Of a request that was to be sent to the origin, for the reason `why`.
    fn after(error: UpstreamError, why: Forwarded) -> Self {
        Self { error, status: CacheStatus::unanswered(error.was_asked().then_some(why)) }
    }

    /// `Cache-Status`, with this reason.
    pub fn cache_status(&self, detail: &'static str) -> String {
        self.status.because(detail).text()
    }
}

impl From<UpstreamError> for UpstreamFailure {
    /// The origin was not asked.
    fn from(error: UpstreamError) -> Self {
        Self { error, status: CacheStatus::unanswered(None) }
    }
}

/// All upstreams, the longest prefix first.
#[derive(Clone, Default)]
pub struct Upstreams(Arc<Vec<Arc<Upstream>>>);

/// One origin and its stored responses.
pub struct Upstream {
    config: UpstreamConfig,
    origin: Origin,
    cache: Arc<Responses>,
    clock: Clock,
    wait: Duration,
    ruling: Ruling,
    passage: Passage,
}

impl Upstreams {
    /// Asks for the rules; opens no connection yet.
    ///
    /// # Errors
    /// An invalid origin; an invalid name of the trusted header.
    pub async fn start(
        configs: &[UpstreamConfig],
        (cache, auth): (&CacheConfig, &AuthConfig),
        rules: &Rules,
        clock: &Clock,
    ) -> Result<Self, ConfigError> {
        if configs.is_empty() {
            return Ok(Self::default());
        }
        let identity = auth.trusted_header.as_ref().map(|name| HeaderName::from_bytes(name.as_bytes()));
        let identity = identity
            .transpose()
            .map_err(|error| ConfigError::Value { field: "auth.trusted_header".into(), reason: error.to_string() })?;
        let limits = CacheLimits { bytes_max: cache.upstream_bytes_max, waiters_max: cache.waiters_max };
        let responses = Arc::new(Responses::new("upstream", limits, Arc::clone(&rules.invalidations)));
        let totals = Arc::<Totals>::default();
        let pseudonym = Pseudonym::random();
        let open = |config: &UpstreamConfig| {
            let origin = Origin::new(config)?;
            Ok(Arc::new(Upstream {
                config: config.clone(),
                passage: Passage::new(config, origin.authority.clone(), identity.clone(), pseudonym.clone())?,
                origin,
                cache: Arc::clone(&responses),
                clock: clock.clone(),
                wait: Duration::from_millis(cache.wait_ms),
                ruling: Ruling::new(subject(config), rules.clone(), Arc::clone(&totals)),
            }))
        };
        let mut upstreams: Vec<Arc<Upstream>> = configs.iter().map(open).collect::<Result<_, ConfigError>>()?;
        for upstream in &upstreams {
            let _ = upstream.ask_rule_aside().await;
        }
        upstreams.sort_by_key(|upstream| std::cmp::Reverse(upstream.config.prefix.len()));
        Ok(Self(Arc::new(upstreams)))
    }

    /// The upstream of a path, at the host that the client requests.
    pub fn find(&self, path: &str, host: Option<&str>) -> Option<&Arc<Upstream>> {
        let is_of = |config: &UpstreamConfig| path.starts_with(&config.prefix) && answers_for(&config.hosts, host);
        self.0.iter().find(|upstream| is_of(&upstream.config))
    }

    /// The size of the cache: entries, and their memory in bytes.
    pub fn memory(&self) -> CacheMemory {
        self.0.first().map(|upstream| upstream.cache.memory()).unwrap_or_default()
    }

    /// What operators see.
    pub fn states(&self) -> Vec<UpstreamCache> {
        self.0.iter().map(|upstream| upstream.state()).collect()
    }

    /// The group of all variants of a key; `None` where no upstream can have it.
    pub fn group_of_key(&self, key: &str) -> Option<String> {
        let known = self.0.iter().any(|upstream| key.starts_with(&key::begin(&upstream.config)));
        known.then(|| key::uri_group(key))
    }

    /// Whether keys of some upstream can start with this prefix.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        let begins = self.0.iter().map(|upstream| key::begin(&upstream.config));
        begins.into_iter().any(|begin| begin.starts_with(prefix) || prefix.starts_with(&begin))
    }

    /// Whether responses of some upstream can belong to this group, by the groups that rules name now.
    pub fn has_group(&self, group: &str) -> bool {
        if self.0.iter().any(|upstream| upstream.ruling.groups().iter().any(|known| known == group)) {
            return true;
        }
        let (kind, name) = group.split_once(':').unwrap_or_default();
        let known = |name: &str| self.0.iter().any(|upstream| upstream.config.name == name);
        match kind {
            "upstream" => known(name),
            "group" => name.split_once(':').is_some_and(|(upstream, group)| known(upstream) && !group.is_empty()),
            "table" => !self.0.is_empty() && !name.is_empty(),
            "uri" => self.group_of_key(name).is_some(),
            _ => false,
        }
    }

    /// The upstreams whose connections cannot be encrypted now: the name, why, and what to do.
    pub fn distrusted(&self) -> Vec<(String, String)> {
        let one = |upstream: &Arc<Upstream>| Some((upstream.config.name.clone(), upstream.origin.distrust()?));
        self.0.iter().filter_map(one).collect()
    }

    /// Their names and prefixes.
    pub fn prefixes(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|upstream| (upstream.config.name.as_str(), upstream.config.prefix.as_str())).collect()
    }
}

impl Upstream {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    fn state(&self) -> UpstreamCache {
        let config = &self.config;
        let mut groups = self.ruling.groups();
        groups.push(format!("group:{}:<name in Cache-Groups>", config.name));
        groups.push("table:<name in Cache-Groups>".into());
        UpstreamCache {
            name: config.name.clone(),
            prefix: config.prefix.clone(),
            usage: self.ruling.state(),
            key: format!("{}<path>?<query>", key::begin(config)),
            groups,
        }
    }

    /// Shows the profile to the rule, on a thread that may wait for a module's grants.
    fn ask_rule_aside(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let upstream = Arc::clone(self);
        tokio::task::spawn_blocking(move || upstream.ruling.ask(upstream.clock.steady_ms()))
    }
}

/// Tries whether an origin's connections can be encrypted; `None` where they need not be.
///
/// # Errors
/// Why not, and what to do.
pub async fn try_encrypting(config: &UpstreamConfig) -> Result<Option<()>, String> {
    origin::try_encrypting(config).await
}

/// Whether a host is one of these: with its port, where one is named; `*.` stands for any subdomain.
fn answers_for(hosts: &[String], host: Option<&str>) -> bool {
    let Some(host) = host.filter(|_| !hosts.is_empty()) else { return hosts.is_empty() };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    hosts.iter().any(|known| {
        let known = known.to_ascii_lowercase();
        match known.strip_prefix("*.") {
            Some(rest) => [name, host].iter().any(|host| host.strip_suffix(rest).is_some_and(|sub| sub.ends_with('.'))),
            None => known == name || known == host,
        }
    })
}

fn subject(config: &UpstreamConfig) -> Subject {
    let name = format!("upstream:{}", config.name);
    Subject { name: name.clone(), class: config.class, group: name, of_origin: true }
}

#[cfg(test)]
mod tests {
    use super::answers_for;

    #[test]
    fn an_upstream_answers_for_its_hosts() {
        let of =
            |hosts: &[&str], host| answers_for(&hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(), host);
        assert!(of(&[], Some("any")) && of(&[], None));
        let some = ["Shop.example", "b.example:8443", "*.c.example", "[::1]"];
        for known in
            ["shop.example", "shop.example:81", "b.example:8443", "x.c.example", "x.y.c.example:81", "[::1]:8080"]
        {
            assert!(of(&some, Some(known)), "{known}");
        }
        for other in ["b.example", "c.example", "xc.example", "evil.example", "shop.example.evil"] {
            assert!(!of(&some, Some(other)), "{other}");
        }
        assert!(!of(&some, None));
    }
}

//! A reload (SIGHUP) reads the configuration and the files that it names again, and applies what can change while the
//! host runs: all of it or nothing. A configuration that does not fit changes nothing and ends nothing.
//!
//! What can change: the token key (`auth.jwt`), the operators' token, the keys of waiting rooms, the log level, and
//! request limits. The log names everything else as waiting for a restart.

use std::path::PathBuf;
use std::sync::Arc;

use metrics::counter;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::App;
use crate::admin::AdminState;
use crate::config::{Config, ConfigError, JwtConfig};
use crate::http::{AccessLog, HttpState};
use crate::room::token::Keyring;
use crate::telemetry;

/// What a running host can take on.
pub struct Running {
    /// What holds now, with the addresses of the command line.
    pub config: Config,
    /// The public API.
    pub http: Arc<HttpState>,
    /// The access log, where there is one.
    pub access: Option<Arc<AccessLog>>,
    /// The operators' API.
    pub admin: Arc<AdminState>,
    /// The rest.
    pub app: Arc<App>,
    /// What the files that it names held when they were read last.
    pub files: Vec<(PathBuf, Option<[u8; 32]>)>,
}

/// What a reload did, as paths of settings and files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// In force.
    pub changed: Vec<String>,
    /// Other than what runs, and in force after a restart.
    pub needs_restart: Vec<String>,
}

impl Running {
    /// Reloads and says in the log what came of it. `read` reads the configuration.
    pub fn reload(&mut self, read: impl FnOnce() -> Result<Config, ConfigError>) {
        let _ = self.reopen();
        let (outcome, result) = match read().and_then(|config| self.take(&config)) {
            Ok(Reloaded { changed, needs_restart }) => {
                let (changed, needs_restart) = (changed.join(", "), needs_restart.join(", "));
                tracing::info!(
                    changed,
                    needs_restart,
                    "reloaded: keys, tokens and limits are as the configuration says"
                );
                if !needs_restart.is_empty() {
                    tracing::warn!("restart weir for what changed in {needs_restart}");
                }
                ("done", Ok(()))
            }
            Err(error) => ("refused", Err(error)),
        };
        counter!(telemetry::RELOADS_TOTAL, "outcome" => outcome).increment(1);
        if let Err(error) = result {
            tracing::error!(%error, "the configuration is not reloaded: all stays as it was; mend it (weir check) and send SIGHUP again");
        }
    }

    /// Reopens the access log after it was moved away. Returns whether there is one.
    pub fn reopen(&self) -> bool {
        self.access.as_ref().map(|access| access.reopen()).is_some()
    }

    /// Takes on of `config` what can change now.
    ///
    /// # Errors
    /// Something in it does not fit, or a file cannot be read: nothing has changed.
    fn take(&mut self, config: &Config) -> Result<Reloaded, ConfigError> {
        config.validate()?;
        let next = merged(&self.config, config);
        next.validate()?;
        // All that can fail comes first.
        let http = HttpState::prepare(&next.http, &next.auth, self.app.clock.clone())?;
        let token = next.admin.read_token()?;
        let keyrings = next.rooms.iter().map(Keyring::new).collect::<Result<Vec<_>, _>>()?;
        let files = files(&next);

        self.http.take_over(&http);
        self.admin.set_token(token.as_deref());
        for (room, keyring) in next.rooms.iter().zip(keyrings) {
            if let Some(kind) = self.app.kinds().rooms.kinds.get(&room.kind) {
                kind.set_keyring(keyring);
            }
        }
        telemetry::set_log_level(&next.log.level);
        let mut changed = different(&self.config, &next);
        let others = files
            .iter()
            .filter(|(path, held)| self.files.iter().any(|(known, before)| known == path && before != held));
        changed.extend(others.map(|(path, _)| format!("what {} holds", path.display())));
        let needs_restart = different(&next, config);
        (self.config, self.files) = (next, files);
        Ok(Reloaded { changed, needs_restart })
    }
}

/// `running`, with what of `wanted` can change while it runs.
fn merged(running: &Config, wanted: &Config) -> Config {
    let mut next = running.clone();
    // Whether tokens are asked for at all is part of what upstreams and the description of the API were made from.
    if next.auth.jwt.is_some() && wanted.auth.jwt.is_some() {
        // Where keys are published is read all the time: only what is asked of tokens changes.
        let published = next.auth.jwt.clone();
        next.auth.jwt.clone_from(&wanted.auth.jwt);
        keep_published(&mut next, published);
    }
    next.admin.token.clone_from(&wanted.admin.token);
    next.admin.token_file.clone_from(&wanted.admin.token_file);
    next.log.level.clone_from(&wanted.log.level);
    next.http.requests_max = wanted.http.requests_max;
    next.http.body_bytes_max = wanted.http.body_bytes_max;
    next.http.body_timeout_ms = wanted.http.body_timeout_ms;
    for room in &mut next.rooms {
        if let Some(wanted) = wanted.rooms.iter().find(|wanted| wanted.kind == room.kind) {
            room.keys.clone_from(&wanted.keys);
        }
    }
    next
}

/// Where keys are, or will be, published: what is read of them has been begun, and needs a restart to change.
fn keep_published(next: &mut Config, running: Option<JwtConfig>) {
    let (Some(jwt), Some(running)) = (&mut next.auth.jwt, running) else { return };
    if jwt.jwks_url.is_none() && running.jwks_url.is_none() {
        return;
    }
    let asked = std::mem::replace(jwt, running);
    (jwt.audience, jwt.issuer, jwt.actor_claim, jwt.leeway_s) =
        (asked.audience, asked.issuer, asked.actor_claim, asked.leeway_s);
}

/// The files that a reload reads, and the hash of what they hold.
pub fn files(config: &Config) -> Vec<(PathBuf, Option<[u8; 32]>)> {
    let jwt = config.auth.jwt.as_ref().and_then(|jwt| jwt.key_file.clone());
    let keys = config.rooms.iter().flat_map(|room| room.keys.iter().filter_map(|key| key.key_file.clone()));
    let all = jwt.into_iter().chain(config.admin.token_file.clone()).chain(keys);
    all.map(|path| {
        let held = std::fs::read(&path).ok().map(|bytes| Sha256::digest(&bytes).into());
        (path, held)
    })
    .collect()
}

/// The settings in which two configurations differ, without their values: some are secret.
fn different(before: &Config, after: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    compare("", &value(before), &value(after), &mut paths);
    paths
}

fn compare(path: &str, before: &Value, after: &Value, paths: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(
                    &path,
                    before.get(name).unwrap_or(&Value::Null),
                    after.get(name).unwrap_or(&Value::Null),
                    paths,
                );
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{index}]"), before, after, paths);
            }
        }
        _ if before != after => paths.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_is_taken_and_the_rest_is_named() {
        let running = Config::demo("data".as_ref());
        let mut wanted = running.clone();
        wanted.admin.token = Some("0123456789abcdef".into());
        wanted.http.requests_max += 1;
        wanted.log.level = "debug".into();
        wanted.store.partitions += 1;
        wanted.http.connections_max += 1;
        wanted.rooms[0].capacity += 1;
        wanted.rooms[0].keys[0].kid = "other".into();
        let next = merged(&running, &wanted);
        let changed = ["admin.token", "http.requests_max", "log.level", "room[0].keys[0].kid"];
        assert_eq!(different(&running, &next), changed);
        assert_eq!(different(&next, &wanted), ["http.connections_max", "room[0].capacity", "store.partitions"]);
        assert_eq!(different(&wanted, &wanted), Vec::<String>::new());
    }
}

//! How each server of the URL is connected to, and tried.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _, MySqlConnection, MySqlPool};

use super::catalogue::text;
use super::{STATEMENTS_KEPT, statements};
use crate::config::{ConfigError, SqlConfig, TlsConfig};
use crate::sql::classify::sql_error;
use crate::sql::health::Known;
use crate::sql::hosts::{Hosts, Shown, servers};
use crate::sql::{SqlError, Standing};

/// How to connect to each server that the settings name.
pub(super) fn hosts(settings: &SqlConfig) -> Result<Hosts<MySqlConnectOptions>, SqlError> {
    let wrong = |error: ConfigError| SqlError::Permanent(error.to_string());
    let (url, tls) = servers(settings).map_err(wrong)?;
    let one = |url: &String| {
        let mut options = url.parse::<MySqlConnectOptions>().map_err(sql_error)?;
        // As URLs have it, an IPv6 address stands in brackets.
        if let Some(bare) = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let bare = bare.to_owned();
            options = options.host(&bare);
        }
        let options =
            encrypted(options, tls.as_ref()).statement_cache_capacity(STATEMENTS_KEPT).disable_statement_logging();
        if tls.is_none() && options.get_socket().is_none() {
            settings.check_plain(options.get_host()).map_err(wrong)?;
        }
        let address = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        Ok((options, address))
    };
    Ok(Hosts::new(url.singles().iter().map(one).collect::<Result<_, SqlError>>()?))
}

/// Never "if possible": whoever answers would decide that. But on a socket, where the file system has said who answers, and where
/// the driver sends a password to MySQL only over TLS: it takes the socket itself for no safer than TCP.
fn encrypted(options: MySqlConnectOptions, tls: Option<&TlsConfig>) -> MySqlConnectOptions {
    let Some(tls) = tls else {
        let is_socket = options.get_socket().is_some();
        return options.ssl_mode(if is_socket { MySqlSslMode::Preferred } else { MySqlSslMode::Disabled });
    };
    let mode = if tls.verify_name { MySqlSslMode::VerifyIdentity } else { MySqlSslMode::VerifyCa };
    let options = options.ssl_mode(mode);
    let options = tls.ca_file.iter().fold(options, MySqlConnectOptions::ssl_ca);
    let options = tls.client_certificate_file.iter().fold(options, MySqlConnectOptions::ssl_client_cert);
    tls.client_key_file.iter().fold(options, MySqlConnectOptions::ssl_client_key)
}

/// Why a server takes no writes; `None`: it does.
pub(super) async fn read_only(connection: &mut MySqlConnection) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::raw_sql(statements::IS_READ_ONLY).fetch_one(connection).await?;
    // Numbers in some versions, words in others.
    for (place, name) in ["read_only", "innodb_read_only"].into_iter().enumerate() {
        let word = text(&row, place)?;
        if !matches!(word.as_str(), "0" | "OFF") {
            return Ok(Some(format!("{name} = {word}, it takes no writes")));
        }
    }
    Ok(None)
}

/// Tries a server on a connection of its own: whether it takes writes, with one that changes nothing. Where there is a choice one
/// that says beforehand that it takes none is asked for none.
pub(super) fn trying(
    is_choice: bool,
) -> impl Fn(MySqlConnectOptions) -> BoxFuture<'static, Shown> + Clone + Send + Sync {
    move |options| {
        Box::pin(async move {
            let mut connection = match options.connect().await {
                Ok(connection) => connection,
                Err(error) => return Shown::Refuses(error),
            };
            let told = if is_choice { read_only(&mut connection).await } else { Ok(None) };
            let shown = match told {
                Ok(Some(reason)) => Shown::ReadOnly(reason),
                Ok(None) => {
                    Shown::of(sqlx::raw_sql(statements::WRITE_NOTHING).execute(&mut connection).await.map(drop))
                }
                Err(error) => Shown::Answers(error),
            };
            // It has done its work: how it ends does not matter.
            drop(connection.close().await);
            shown
        })
    }
}

/// What finds SQL back, and leads the pool there.
pub(super) fn probing(
    (hosts, pool, known): (&Arc<Hosts<MySqlConnectOptions>>, &MySqlPool, &Arc<Known>),
    patience: Duration,
) -> impl Fn() -> BoxFuture<'static, Standing> + Send + use<> {
    let (hosts, pool, known) = (Arc::clone(hosts), pool.clone(), Arc::clone(known));
    move || {
        let (hosts, pool, known) = (Arc::clone(&hosts), pool.clone(), Arc::clone(&known));
        Box::pin(async move {
            let moved = |options| {
                pool.set_connect_options(options);
                known.moved();
            };
            hosts.find(patience, trying(hosts.are_several()), moved).await
        })
    }
}

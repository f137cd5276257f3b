//! How a server of the URL is connected to, and tried.

use std::sync::{Arc, OnceLock};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, MySql};

use super::catalogue::text;
use super::{MysqlDriver, STATEMENTS_KEPT, statements};
use crate::SqlError;
use crate::classify::sql_error;
use crate::server::{Endpoint, ServerDriver, unbracketed};
use weir_core::config::{SqlConfig, TlsConfig};

/// What begins a session, and learns from it which server this is.
#[derive(Clone)]
pub(crate) struct Session {
    /// Their time limits are the session's.
    pub settings: Arc<SqlConfig>,
    /// Whether it is MariaDB.
    pub maria: Arc<OnceLock<bool>>,
    /// The server's version.
    pub version: Arc<OnceLock<String>>,
}

impl ServerDriver for MysqlDriver {
    type Sqlx = MySql;
    type Session = Session;

    fn endpoint(
        _settings: &SqlConfig,
        url: &str,
        tls: Option<&TlsConfig>,
    ) -> Result<Endpoint<MySqlConnectOptions>, SqlError> {
        let given: MySqlConnectOptions = url.parse().map_err(sql_error)?;
        let options = match unbracketed(given.get_host()) {
            Some(host) => given.host(&host),
            None => given,
        };
        let options = encrypted(options, tls).statement_cache_capacity(STATEMENTS_KEPT);
        let (socket, host, port) = (options.get_socket().cloned(), options.get_host().to_owned(), options.get_port());
        Ok(Endpoint::new(options, socket, host, port, tls))
    }

    async fn begin_session(session: &Session, connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        let version: String = sqlx::query_scalar(statements::VERSION).fetch_one(&mut *connection).await?;
        let maria = *session.maria.get_or_init(|| version.contains("MariaDB"));
        let _ = session.version.set(version);
        let text = AssertSqlSafe(statements::session(&session.settings, maria));
        sqlx::raw_sql(text).execute(connection).await.map(drop)
    }

    async fn read_only(connection: &mut MySqlConnection) -> Result<Option<String>, sqlx::Error> {
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

    async fn write_nothing(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statements::WRITE_NOTHING).execute(connection).await.map(drop)
    }
}

/// But on a socket, where the file system has said who answers, and where the driver sends a password to MySQL only over TLS: it
/// takes the socket itself for no safer than TCP.
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

//! How a server of the URL is connected to, and tried.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, Postgres, Row as _};

use super::{PostgresDriver, statements};
use crate::SqlError;
use crate::classify::sql_error;
use crate::server::{Endpoint, ServerDriver, unbracketed};
use weir_core::config::{Pooler, SqlConfig, TlsConfig};

impl ServerDriver for PostgresDriver {
    type Sqlx = Postgres;
    type Session = Arc<str>;

    fn endpoint(
        settings: &SqlConfig,
        url: &str,
        tls: Option<&TlsConfig>,
    ) -> Result<Endpoint<PgConnectOptions>, SqlError> {
        let given: PgConnectOptions = url.parse().map_err(sql_error)?;
        let options = match unbracketed(given.get_host()) {
            Some(host) => given.host(&host),
            None => given,
        };
        let mut options = encrypted(options, tls).application_name("weir");
        if settings.pooler == Pooler::Transaction {
            // PgBouncer lets no session begin with what it does not know.
            options = options.extra_float_digits(None);
        }
        let (socket, host, port) = (options.get_socket().cloned(), options.get_host().to_owned(), options.get_port());
        Ok(Endpoint::new(options, socket, host, port, tls))
    }

    async fn begin_session(session: &Arc<str>, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if session.is_empty() {
            return Ok(());
        }
        sqlx::raw_sql(AssertSqlSafe(Arc::clone(session))).execute(connection).await.map(drop)
    }

    async fn read_only(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
        let row = sqlx::raw_sql(statements::IS_READ_ONLY).fetch_one(connection).await?;
        Ok(match (row.try_get::<bool, _>(0)?, row.try_get::<bool, _>(1)?) {
            (true, _) => Some("a standby, which takes no writes".into()),
            (_, true) => Some("its transactions are read-only".into()),
            _ => None,
        })
    }

    async fn write_nothing(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statements::WRITE_NOTHING).execute(connection).await.map(drop)
    }
}

fn encrypted(options: PgConnectOptions, tls: Option<&TlsConfig>) -> PgConnectOptions {
    let Some(tls) = tls else { return options.ssl_mode(PgSslMode::Disable) };
    let mode = if tls.verify_name { PgSslMode::VerifyFull } else { PgSslMode::VerifyCa };
    let options = options.ssl_mode(mode);
    let options = tls.ca_file.iter().fold(options, PgConnectOptions::ssl_root_cert);
    let options = tls.client_certificate_file.iter().fold(options, PgConnectOptions::ssl_client_cert);
    tls.client_key_file.iter().fold(options, PgConnectOptions::ssl_client_key)
}

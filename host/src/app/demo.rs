//! The embedded demo: what `weir serve` does without a configuration file.

use std::net::SocketAddr;
use std::path::Path;

use super::AppError;
use crate::config::Config;

/// The demo's configuration; its SQLite file and tables are created under `data` when they are not there.
///
/// # Errors
/// When the directory or the database cannot be made.
pub async fn prepare(data: &Path) -> Result<Config, AppError> {
    std::fs::create_dir_all(data)
        .map_err(|error| AppError::System { what: format!("create {}", data.display()), reason: error.to_string() })?;
    let config = Config::demo(data);
    let sql = crate::sql::open(&config.sql).await?;
    sql.execute_script(include_str!("demo.sql")).await?;
    sql.close().await;
    Ok(config)
}

/// Lines to try, for the terminal.
pub fn lines_to_try(public: SocketAddr, operators: SocketAddr) -> String {
    format!(
        "try, in another terminal:\n  \
         curl -X POST -H 'X-Actor-Id: 7' http://{public}/v1/toggles/feed-like/3\n  \
         curl -H 'X-Actor-Id: 7' http://{public}/v1/toggles/feed-like/3\n  \
         curl http://{operators}/admin/v1/explain/feed-like/3/7\n  \
         curl -X POST http://{public}/v1/counters/video-view/3\n  \
         curl -H 'X-Actor-Id: 7' --json '{{\"title\":\"Rainy day\"}}' http://{public}/v1/ingest/playlist\n  \
         curl -i 'http://{public}/v1/reads/concert-dates?concert=1'"
    )
}

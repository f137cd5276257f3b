//! The embedded demo: what `weir serve` does without a configuration file.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::AppError;
use crate::config::Config;

/// The statements that make its tables, where they are not there.
pub const TABLES: &str = include_str!("demo.sql");

/// Whether the demo has run with this directory.
pub fn is_made(data: &Path) -> bool {
    data.exists()
}

/// The first line of a host without a configuration.
pub fn first_line(data: &Path) -> String {
    format!(
        "this is the demo: there is no weir.toml here and no --config, so weir serves sample kinds from SQLite in {} \
         (weir init writes a configuration for your own tables)",
        data.display()
    )
}

/// The demo's configuration; its SQLite file and tables are created under `data` when they are not there.
///
/// # Errors
/// When the directory or the database cannot be made.
pub async fn prepare(data: &Path) -> Result<Config, AppError> {
    std::fs::create_dir_all(data)
        .map_err(|error| AppError::System { what: format!("create {}", data.display()), reason: error.to_string() })?;
    let config = Config::demo(data);
    for key in config.rooms.iter().flat_map(|room| &room.keys) {
        if let Some(path) = key.key_file.as_ref().filter(|path| !path.exists()) {
            make_key(path).map_err(|error| AppError::System {
                what: format!("create {}", path.display()),
                reason: error.to_string(),
            })?;
        }
    }
    let sql = crate::sql::open(&config.sql).await?;
    sql.execute_script(TABLES).await?;
    sql.close().await;
    Ok(config)
}

/// Makes an Ed25519 key, which only this user can read: PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` does.
fn make_key(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // A PKCS #8 document up to the key: version 0, algorithm 1.3.101.112, an octet string in an octet string.
    const BEFORE: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let secret: [u8; 32] = rand::random();
    let text = STANDARD.encode([&BEFORE[..], &secret].concat());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    write!(file, "-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
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
         curl --json '{{\"topic\":\"social\",\"members\":[1,2,3,4,5,6]}}' http://{public}/v1/preferences/notification/lookup\n  \
         curl -X POST -H 'X-Actor-Id: 7' http://{public}/v1/rooms/concert/1/tokens\n  \
         curl -i 'http://{public}/v1/reads/concert-dates?concert=1'"
    )
}

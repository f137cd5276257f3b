//! The kinds that tests and benchmarks name: of each its configuration and its tables, so that neither depends on what the
//! demo has today. Whoever wants a host says which kinds; nothing is taken away from another configuration.

use std::path::{Path, PathBuf};

use weir::config::{
    AuthConfig, Config, CounterConfig, IngestConfig, PolicyConfig, PreferenceConfig, RoomConfig, SqlConfig,
    StoreConfig, ToggleConfig,
};

use crate::database::Database;

/// A kind, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `feed-like`, a toggle on `feed` and `feed_like`.
    FeedLike,
    /// `video-view`, a counter on `video`.
    VideoView,
    /// `playlist`, an ingest into `playlist` and `playlist_track`.
    Playlist,
    /// `notification`, a preference on `notification_setting`.
    Notification,
    /// `concert`, a room. It has no table.
    Concert,
}

impl Kind {
    /// Adds it to a configuration, as it is by default.
    pub fn add_to(self, config: &mut Config) {
        match self {
            Self::FeedLike => config.toggles.push(ToggleConfig::demo()),
            Self::VideoView => config.counters.push(CounterConfig::demo()),
            Self::Playlist => config.ingests.push(IngestConfig::demo()),
            Self::Notification => config.preferences.push(PreferenceConfig::demo()),
            // A test gives it keys of its own.
            Self::Concert => config.rooms.push(RoomConfig::demo(PathBuf::from("room.pem"))),
        }
    }

    /// Creates its tables, empty.
    pub async fn create_tables(self, database: &Database) {
        let (integer, text, time, id) = match database {
            Database::Sqlite(_) => ("INTEGER", "TEXT", "TEXT", "TEXT"),
            Database::Postgres(_) => ("BIGINT", "TEXT", "TIMESTAMPTZ", "UUID"),
            Database::MySql(_) => {
                ("BIGINT", "VARCHAR(200)", "DATETIME(3)", "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin")
            }
        };
        let script = match self {
            Self::FeedLike => return crate::stand::create_tables(database, "").await,
            Self::VideoView => format!(
                "CREATE TABLE video (id {integer} NOT NULL PRIMARY KEY, view_count {integer} NOT NULL DEFAULT 0);"
            ),
            Self::Playlist => format!(
                "CREATE TABLE playlist (id {id} NOT NULL PRIMARY KEY, user_id {integer} NOT NULL, title {text} NOT NULL, \
                 description {text}, created_at {time} NOT NULL);\n\
                 CREATE TABLE playlist_track (playlist_id {id} NOT NULL, position {integer} NOT NULL, \
                 title {text} NOT NULL, seconds {integer}, PRIMARY KEY (playlist_id, position), \
                 FOREIGN KEY (playlist_id) REFERENCES playlist (id));"
            ),
            Self::Notification => format!(
                "CREATE TABLE notification_setting (member_id {integer} NOT NULL PRIMARY KEY, enabled BOOLEAN NOT NULL, \
                 social BOOLEAN NOT NULL, event BOOLEAN NOT NULL, marketing BOOLEAN NOT NULL, \
                 quiet_from {integer} NOT NULL, quiet_until {integer} NOT NULL, app_version {text} NOT NULL);"
            ),
            Self::Concert => return,
        };
        database.script(&script).await;
    }
}

/// A host on the embedded store with these kinds and no other, each as it is by default: store and modules under
/// `directory`, actor by trusted header.
pub fn config(directory: &Path, sql_url: &str, kinds: &[Kind]) -> Config {
    let mut config = Config {
        auth: AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() },
        store: StoreConfig { path: directory.join("store"), ..StoreConfig::default() },
        policy: PolicyConfig { registry: directory.join("policies"), ..PolicyConfig::default() },
        sql: SqlConfig { url: sql_url.to_owned(), ..SqlConfig::default() },
        ..Config::default()
    };
    kinds.iter().for_each(|kind| kind.add_to(&mut config));
    config
}

/// URL of a SQLite file in `directory`.
pub fn sqlite_in(directory: &Path) -> String {
    format!("sqlite://{}", directory.join("application.db").display())
}

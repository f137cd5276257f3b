//! A real browser without a screen, with a profile of its own.

use std::process::Command;

use tempfile::TempDir;

use super::{Process, temporary_directory};

/// A browser; it ends with the test.
#[derive(Debug)]
pub struct Browser {
    process: Process,
    profile: TempDir,
}

impl Browser {
    /// Opens a page. Panics with one line where there is no browser.
    pub fn open(url: &str) -> Self {
        let directories: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let mut paths = names.iter().flat_map(|name| directories.iter().map(move |path| path.join(name)));
        let chromium = paths.find(|path| path.is_file());
        let chromium = chromium.expect("chromium is not installed: apt-get install chromium, or use tests/run");
        let profile = temporary_directory("browser");
        let mut command = Command::new(chromium);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server"])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .arg(url);
        let (out, log) = (profile.path().join("browser.out"), profile.path().join("browser.log"));
        Self { process: Process::spawn("chromium", command, &out, &log, None), profile }
    }

    /// The end of what it has to say.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.profile.path().join("browser.log"));
        log.unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.kill();
    }
}

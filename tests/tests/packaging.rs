//! What weir is shipped as: the image is built without an engine, started once and liked through; the Compose files and the unit say
//! what weir and their readers understand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::kinds::Kind;
use weir_tests::services::host::{get, weir_binary};
use weir_tests::services::{START_TIMEOUT, free_port, temporary_directory, wait_until};
use weir_tests::stand;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/packaging").canonicalize().unwrap()
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// buildah with a store of its own, and no isolation that needs an engine.
struct Buildah {
    directory: tempfile::TempDir,
}

impl Buildah {
    fn new() -> Self {
        assert!(has("buildah"), "buildah is missing: apt-get install buildah (or run tests/run, which does it)");
        let directory = temporary_directory("image");
        let place = directory.path().display();
        let storage =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{place}/graph\"\nrunroot = \"{place}/run\"\n");
        fs::write(directory.path().join("storage.conf"), storage).unwrap();
        Self { directory }
    }

    fn command(&self, program: &str) -> Command {
        // Without being root, files of other users are in a namespace of our own.
        let mut command = if geteuid().is_root() {
            Command::new(program)
        } else {
            let mut command = Command::new("buildah");
            command.args(["unshare", program]);
            command
        };
        command.env("CONTAINERS_STORAGE_CONF", self.directory.path().join("storage.conf"));
        command.env("BUILDAH_ISOLATION", "chroot").env("TMPDIR", self.directory.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(program).args(arguments).output().unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{program} {arguments:?}: {said}{wrong}");
        said.trim().to_owned()
    }
}

/// What runs in a container; ended with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        for child in children_below(self.0.id()) {
            let _ = Pid::from_raw(child).map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All processes below one, by the parents that /proc names.
fn children_below(parent: u32) -> Vec<i32> {
    let mut found = vec![i32::try_from(parent).unwrap()];
    let mut at = 0;
    while at < found.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", found[at])).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().map(|child| child.parse::<i32>().unwrap()));
        }
        at += 1;
    }
    found.split_off(1)
}

const FILES: [&str; 4] = ["--config", "/usr/share/weir/image.toml", "--config", "/etc/weir"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_image_is_built_started_and_liked_through() {
    let buildah = Buildah::new();
    let build = packaging().join("image/build");
    let built = buildah
        .run(build.to_str().unwrap(), &["--binary", weir_binary().to_str().unwrap(), "--tag", "localhost/weir:test"]);
    let image = buildah.run("buildah", &["inspect", "--type", "image", "--format", "{{.Docker.Config.User}} {{.Docker.Config.Healthcheck.Test}} {{.Docker.Config.Volumes}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}}", "localhost/weir:test"]);
    let right = "10001:10001 [CMD /usr/bin/weir health --config /usr/share/weir/image.toml --config /etc/weir] map[/var/lib/weir:{}] \
                 [/usr/bin/weir] [serve --config /usr/share/weir/image.toml --config /etc/weir]";
    assert_eq!(image, right);

    let container = buildah.run("buildah", &["from", "localhost/weir:test"]);
    let (etc, data) = (buildah.directory.path().join("etc"), buildah.directory.path().join("data"));
    fs::create_dir(&etc).unwrap();
    fs::create_dir(&data).unwrap();
    let kind = fs::read_to_string(packaging().join("compose/weir.toml")).unwrap();
    fs::write(etc.join("weir.toml"), kind.replace("\"10.0.0.0/8\"", "\"loopback\"")).unwrap();
    let database = Database::connect(&format!("sqlite://{}?mode=rwc", data.join("weir.db").display())).await;
    Kind::FeedLike.create_tables(&database).await;
    stand::add_targets(&database, 3).await;
    drop(database);
    open_to_others(&[(buildah.directory.path(), 0o755), (&data, 0o777), (&etc, 0o755)]);
    let (port, admin) = (free_port(), free_port());
    let volumes = [format!("{}:/etc/weir:ro", etc.display()), format!("{}:/tmp/data", data.display())];
    let variables = [
        format!("WEIR_HTTP__LISTEN=127.0.0.1:{port}"),
        format!("WEIR_ADMIN__LISTEN=127.0.0.1:{admin}"),
        // The application's database is not in weir's own volume.
        "WEIR_SQL__URL=sqlite:///tmp/data/weir.db".to_owned(),
    ];
    let inside = |words: &[&str]| -> Vec<String> {
        let given = volumes.iter().flat_map(|volume| ["-v", volume]);
        let given = std::iter::once("run").chain(given).chain(variables.iter().flat_map(|variable| ["-e", variable]));
        given
            .chain([container.as_str(), "--"])
            .chain(words.iter().copied())
            .chain(FILES)
            .map(ToOwned::to_owned)
            .collect()
    };
    let before = listing(&buildah.run("buildah", &["mount", &container]));
    let started = Instant::now();
    let log = fs::File::create(buildah.directory.path().join("log")).unwrap();
    let mut command = buildah.command("buildah");
    command.args(inside(&["/usr/bin/weir", "serve"])).stdout(log.try_clone().unwrap()).stderr(log);
    let running = Running(command.spawn().unwrap());
    let log = || fs::read_to_string(buildah.directory.path().join("log")).unwrap();
    let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let ready = wait_until(START_TIMEOUT, || get(address(admin), "/readyz").is_some_and(|(status, _)| status == 200));
    assert!(ready, "{}", log());
    let started_ms = started.elapsed().as_millis();
    assert_eq!(Client::new(address(port)).like(3, 7).await, (true, 1));

    let health: Vec<String> = inside(&["/usr/bin/weir", "health", "--ready"]);
    let health: Vec<&str> = health.iter().map(String::as_str).collect();
    assert_eq!(buildah.run("buildah", &health).lines().last(), Some("ready"));
    // Nobody special, and nothing written outside of its volume.
    let weir = children_below(running.0.id()).into_iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("/usr/bin/weir\0serve"))
    });
    let status = fs::read_to_string(format!("/proc/{}/status", weir.expect("weir runs"))).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(!status.contains("Uid:\t0"), "{status}");
    assert_eq!(listing(&buildah.run("buildah", &["mount", &container])), before);
    drop(running);
    let mib = built.rsplit(", ").next().unwrap_or_default();
    println!("image: {mib}, started in {started_ms} ms");
}

/// The user of the image has a number that nobody has here.
fn open_to_others(directories: &[(&Path, u32)]) {
    for (path, mode) in directories {
        for file in fs::read_dir(path).unwrap().map(Result::unwrap).filter(|file| file.file_type().unwrap().is_file()) {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }
}

/// Names of all files below, but for what a container is given.
fn listing(root: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from(root)];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let is_given =
                ["proc", "sys", "dev", "run", "etc", "var/lib/weir", "tmp"].iter().any(|given| name == *given);
            if is_given {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            found.push(name);
        }
    }
    found.sort();
    found
}

/// The variables of weir and the images in a Compose file.
fn read_compose(name: &str) -> (String, Vec<(String, String)>) {
    let text = fs::read_to_string(packaging().join(name)).unwrap();
    let variables = text.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(": ")?;
        name.starts_with("WEIR_").then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
    });
    let variables = variables.collect();
    (text, variables)
}

#[test]
fn compose_files_say_what_weir_understands() {
    for (name, sql) in [("compose.yaml", "compose/sql.postgres.toml"), ("compose.mysql.yaml", "compose/sql.mysql.toml")]
    {
        let (text, mut variables) = read_compose(name);
        assert!(variables.len() >= 3, "{name}: {variables:?}");
        assert_eq!(text.matches("healthcheck:").count(), 3, "{name}: each service has one");
        let commands = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        assert!(commands.into_iter().all(|line| !line.contains("sleep")), "{name}");
        for image in text.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
            assert!(!image.split('/').next().unwrap().contains('.'), "{name}: {image} names a registry");
        }
        // Secrets are where Compose puts them.
        let directory = temporary_directory("compose");
        let secret = |name: &str| directory.path().join(name);
        fs::write(secret("db-password"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(secret("admin-token"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let here = |text: &str| text.replace("/run/secrets", directory.path().to_str().unwrap());
        for (_, value) in &mut variables {
            *value = here(value);
        }
        for (file, written) in [("image/image.toml", "0.toml"), ("compose/weir.toml", "1.toml"), (sql, "2.toml")] {
            assert!(text.contains(file.rsplit('/').next().unwrap()) || file.starts_with("image"), "{name}: {file}");
            fs::write(secret(written), here(&fs::read_to_string(packaging().join(file)).unwrap())).unwrap();
        }
        let mut check = Command::new(weir_binary());
        check.args(["config", "check", "--config"]).arg(directory.path()).envs(variables);
        let ended = check.output().unwrap();
        assert!(
            ended.status.success() && !String::from_utf8_lossy(&ended.stdout).contains("warning"),
            "{name}: {ended:?}"
        );
        // The real reader, where there is one; a client without its plugin has none.
        let real =
            Command::new("docker").args(["compose", "-f"]).arg(packaging().join(name)).args(["config", "-q"]).output();
        let real = real.ok().filter(|ended| !String::from_utf8_lossy(&ended.stderr).contains("docker --help"));
        match real {
            Some(ended) => assert!(ended.status.success(), "{name}: {ended:?}"),
            None => println!("{name}: docker compose is not here; what weir reads of it was checked"),
        }
    }
}

#[test]
fn the_unit_is_right_and_hardened() {
    assert!(
        has("systemd-analyze"),
        "systemd-analyze is missing: apt-get install systemd (or run tests/run, which does it)"
    );
    let directory = temporary_directory("unit");
    let unit = directory.path().join("weir.service");
    let text = fs::read_to_string(packaging().join("weir.service")).unwrap();
    fs::write(&unit, text.replace("/usr/bin/weir", weir_binary().to_str().unwrap())).unwrap();
    let analyze = |arguments: &[&str]| {
        let ended = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "systemd-analyze {arguments:?}: {said}");
        said
    };
    // Other units of the machine may have faults of their own.
    let said = analyze(&["verify"]);
    assert!(!said.contains("weir.service"), "{said}");
    // From 0 (safe) to 100.
    let said = analyze(&["security", "--offline=true", "--threshold=20"]);
    println!("{}", said.lines().last().unwrap_or_default());
}

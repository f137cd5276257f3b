//! What becomes of an embedded store whose files are damaged, whose disk is full, or for which no file can be opened.

use weir_tests::services::host::weir_binary;

use super::*;

/// The words of a command in a message, from `begin` up to ` --`.
fn printed_command<'a>(message: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    let from = message.find(begin).unwrap_or_else(|| panic!("no {begin:?} in {message}"));
    let command = &message[from + "weir ".len()..];
    command[..command.find(end).expect("the end of the command")].split(' ').collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_refused_and_the_printed_way_out_keeps_the_rest() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 5).await;
    let mut config = stand.config();
    set(&mut config, "flush-entries", "100000");
    set(&mut config, "flush-age-ms", "3600000");
    config.store.partitions = 1;
    let mut host = stand.host(&config);
    let mut client = Client::new(host.public());
    for actor in 1..=40 {
        assert!(client.like(1 + actor % 5, actor).await.0);
    }
    host.kill();
    let log = config.store.path.join("0.jnl");
    let mut bytes = std::fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end * 3 / 5..end * 3 / 5 + 64].fill(0);
    std::fs::write(&log, bytes).unwrap();

    let refused = Host::start_refused(HostConfig::of(&config), stand.directory.path());
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(refused.stderr.contains("0.jnl, bytes") && refused.stderr.contains("missing"), "{}", refused.stderr);
    let verify = printed_command(&refused.stderr, "weir store verify", " -- ");
    let salvage = printed_command(&refused.stderr, "weir store salvage", " -- ");
    let verified = weir(stand.directory.path(), &verify);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("damaged: "), "{verified:?}");
    let salvaged = weir(stand.directory.path(), &salvage);
    assert_eq!(salvaged.code, Some(0), "{salvaged:?}");
    let missing = salvaged.stdout.lines().filter_map(|line| line.strip_prefix("missing: ")?.split_once(": "));
    let lost: i64 = missing.filter_map(|(_, what)| what.split(' ').next()?.parse::<i64>().ok()).sum();
    assert!((1..=3).contains(&lost), "{salvaged:?}");

    config.store.path = salvage.last().expect("the new directory").into();
    set(&mut config, "flush-age-ms", "100");
    // What is missing is a hole in the journal, which an operator acknowledges.
    let host = Host::start(HostConfig::of(&config), stand.directory.path());
    let mut admin = Client::new(host.admin());
    let unready = until_answer(&mut admin, "/readyz", 503).await;
    assert!(unready.text().contains("journal:feed-like"), "{}", unready.text());
    let recorded = "SELECT COUNT(*) FROM weir_journal_hole";
    until("the hole is recorded", async || stand.database.integer(recorded).await > 0).await;
    let acknowledged =
        admin.request("POST", "/admin/v1/journal/feed-like/acknowledge", &[], "").await.expect("an answer");
    assert_eq!(acknowledged.status, 200, "{}", acknowledged.text());
    until_answer(&mut admin, "/readyz", 200).await;
    until("what could be read is in SQL", async || stand.database.likes().await.len() as i64 == 40 - lost).await;
    stand.database.assert_counts_equal_rows().await;
}

/// A file system of its own, a few megabytes large; goes with it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Self {
        let directory = temporary_directory("small-disk");
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "weir-test"]).arg(directory.path());
        let mounted = command.output().map_err(|error| error.to_string());
        let is_mounted = mounted.as_ref().is_ok_and(|output| output.status.success());
        assert!(is_mounted, "this test mounts a tmpfs: run it as root: {mounted:?}");
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Asks until the answer has `status`; panics after [`LIMIT`].
async fn until_answer(client: &mut Client, path: &str, status: u16) -> Reply {
    let start = Instant::now();
    loop {
        let reply = client.get(path).await;
        if reply.status == status {
            return reply;
        }
        assert!(start.elapsed() < LIMIT, "{path}: not {status} within {LIMIT:?}: {}", reply.text());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Creates a playlist of some kilobytes; the status.
async fn create_playlist(client: &mut Client) -> u16 {
    let track = format!(r#"{{"title":"{}"}}"#, "x".repeat(180));
    let body = format!(r#"{{"title":"A","tracks":[{}]}}"#, vec![track; 60].join(","));
    let headers = [("x-actor-id", "7"), ("content-type", "application/json")];
    client.request("POST", "/v1/ingest/playlist", &headers, &body).await.map_or(0, |reply| reply.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_a_full_disk_goes_on_when_there_is_room_again() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 3).await;
    let disk = SmallDisk::mount(48 << 20);
    let mut config = stand.config();
    config.store.path = disk.0.path().join("store");
    config.store.restart_after_ms = 400;
    let mut host = stand.host(&config);
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    let mut liked = 0;
    for round in 0..2 {
        for _ in 0..5 {
            liked += 1;
            assert_eq!(client.like(1, liked).await, (true, liked), "round {round}");
        }
        // Exactly full, up to the last page of the log.
        let filler = disk.0.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4_096]).is_ok() {}
        drop(file);
        let mut unknown = Vec::new();
        // Of the first that fails the outcome is unknown.
        loop {
            let actor = 1_000 * (round + 1) + unknown.len() as i64;
            unknown.push(actor);
            let reply = client.toggle("POST", 2, actor, None).await;
            match reply {
                Ok(reply) if reply.status == 503 => break,
                Ok(reply) if reply.status == 200 => assert!(unknown.len() < 900, "the disk is never full"),
                other => panic!("{other:?}"),
            }
        }
        assert_refused_for_now(&client.toggle("POST", 2, 9_999, None).await.expect("an answer"));
        assert_eq!(admin.get("/readyz").await.status, 503, "at once");
        let stuck = until_answer(&mut admin, "/livez", 503).await;
        assert!(stuck.json()["reason"].as_str().is_some_and(|reason| reason.contains("disk")), "{}", stuck.text());
        std::fs::remove_file(&filler).unwrap();
        until_answer(&mut admin, "/readyz", 200).await;
        assert_eq!(admin.get("/livez").await.status, 200);
    }
    assert!(host.is_running());
    liked += 1;
    assert_eq!(client.like(1, liked).await, (true, liked), "what was acknowledged is there, without a restart");
    assert_eq!(host.terminate().code(), Some(0));
    let likes = stand.database.likes().await;
    assert!((1..=liked).all(|actor| likes.contains(&(1, actor))), "{likes:?}");
    stand.database.assert_counts_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ran_out_of_files_goes_on_when_there_are_some_again() {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 3).await;
    let mut config = stand.full_config();
    config.ingests[0].settings.insert("flush-entries".into(), "1000000".into());
    config.ingests[0].settings.insert("flush-age-ms".into(), "3600000".into());
    let mut host = stand.host(&config);
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    assert_eq!((create_playlist(&mut client).await, admin.get("/livez").await.status), (202, 200));
    let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid().as_raw_nonzero())).unwrap().count() as u64;
    // The hard limit stays as it was inherited: nobody may raise it again.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(Some(host.pid()), Resource::Nofile, Rlimit { current: Some(open), maximum });
    let before = before.unwrap_or_else(|error| panic!("this test sets the limits of another process: {error}"));
    let mut accepted = 1;
    // Until a table cannot be written, and then a sync that fails for it.
    let mut status = 202;
    while status == 202 {
        status = create_playlist(&mut client).await;
        accepted += i64::from(status == 202);
        assert!(accepted < 4_000, "it never needs a file");
    }
    assert_eq!(status, 503);
    assert_eq!(admin.get("/readyz").await.status, 503, "at once");
    assert_eq!(admin.get("/livez").await.status, 200, "it may mend itself");
    prlimit(Some(host.pid()), Resource::Nofile, before).unwrap();
    until_answer(&mut admin, "/readyz", 200).await;
    assert_eq!(create_playlist(&mut client).await, 202);
    assert_eq!(host.terminate().code(), Some(0));
    let stored = stand.database.integer("SELECT COUNT(*) FROM playlist").await;
    assert!(stored > accepted, "{stored} of {} at least", accepted + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_fit_the_files_that_may_be_open() {
    let _turn = TURN.lock().await;
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let file = stand.directory.path().join("limited.toml");
    let mut config = stand.config();
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let start = |files: u64| {
        let script = format!("ulimit -n {files} && exec {} serve --config {}", weir_binary().display(), file.display());
        let mut command = std::process::Command::new("bash");
        command.arg("-c").arg(script).current_dir(stand.directory.path());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = start(200).wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("200 files may be open") && message.contains("ulimit -Hn"), "{message}");
    let mut lowered = start(1_024);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(lowered.stderr.take().unwrap()));
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("does not fit the files")));
    let line = line.expect("the log says that it was lowered");
    assert!(line.contains("http.connections_max = 10000"), "{line}");
    lowered.kill().unwrap();
    lowered.wait().unwrap();
}

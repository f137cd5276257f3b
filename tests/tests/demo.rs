//! A first run: no configuration file, no server. What the host prints is what a newcomer types.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use weir_tests::client::Client;
use weir_tests::database::Database;
use weir_tests::services::{Host, HostConfig, temporary_directory};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_lines_work_and_the_rows_are_in_sql() {
    let directory = temporary_directory("demo");
    let mut host = Host::start_on_picked_ports(HostConfig::Demo, directory.path());
    let printed = host.stdout();
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 3, "curl lines must be printed, the first three about a like:\n{printed}");
    let mut admin = Client::new(host.admin());
    let expected = [("likeCount", host.public()), ("likeCount", host.public()), ("row", host.admin())];
    for (line, printed) in lines.iter().zip(expected) {
        assert!(line.contains(&printed.1.to_string()), "{line} must name the picked address {}", printed.1);
        if printed.0 == "row" {
            admin.wait_drained(LIMIT).await;
        }
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        let body = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{line} failed (curl is needed: apt-get install curl): {output:?}");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        match printed.0 {
            "row" => {
                assert_eq!((&value["sql"]["count"], value["sql"]["row"].is_object()), (&1.into(), true), "{value}")
            }
            name => assert_eq!(value[name], 1, "{line} printed {body}"),
        }
    }
    for line in &lines[3..] {
        let output = Command::new("sh").args(["-c", &line.replacen("curl ", "curl -fsS ", 1)]).output().unwrap();
        assert!(output.status.success(), "{line} failed: {output:?}");
    }
    let database = Database::connect(&demo_database(&host)).await;
    database.assert_counts_equal_rows().await;
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_like_an_unlike_and_a_read_of_the_demo() {
    let directory = temporary_directory("demo");
    let mut host = Host::start_on_picked_ports(HostConfig::Demo, directory.path());
    let (mut client, mut admin) = (Client::new(host.public()), Client::new(host.admin()));
    let liked = client.toggle("POST", 3, 7, None).await.unwrap();
    let body = liked.json();
    assert_eq!((liked.like(), body["durability"].as_str()), ((true, 1), Some("journaled")));
    assert!(body["message"].is_string() && body["timestamp"].is_string(), "{body}");
    assert_eq!(client.like(3, 8).await, (true, 2));
    assert_eq!(client.like(3, 7).await, (false, 1));
    assert_eq!(client.toggle("GET", 3, 8, None).await.unwrap().like(), (true, 1));
    assert_eq!(client.toggle("POST", 1_001, 7, None).await.unwrap().status, 404, "the demo has 1,000 rows");
    admin.wait_drained(LIMIT).await;

    let url = demo_database(&host);
    let database = Database::connect(&url).await;
    assert_eq!(database.integer("SELECT COUNT(*) FROM feed").await, 1_000);
    assert_eq!(database.likes().await, [(3, 8)].into());
    assert_eq!(database.integer("SELECT like_count FROM feed WHERE id = 3").await, 1);
    database.assert_counts_equal_rows().await;

    // A second run finds what the first one left.
    assert_eq!(host.terminate().code(), Some(0), "{}", host.log());
    host.restart();
    assert_eq!(Client::new(host.public()).like(3, 8).await, (false, 0));
}

/// The demo's database, in the default data directory below the working directory.
fn demo_database(host: &Host) -> String {
    let file = host.directory().join("weir-data/demo.db");
    assert!(file.is_file(), "{} is missing", file.display());
    format!("sqlite://{}", file.display())
}

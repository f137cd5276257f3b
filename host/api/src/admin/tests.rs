//! The operators' listener over real sockets, with operations that are written down.

#![cfg(test)]

mod policies;

use serde_json::json;

use super::testing::{Written, admin, request};
use super::*;
use weir_core::config::{Networks, PolicyConfig};
use weir_listener::testing::serve;

const TOKEN: &str = "0123456789abcdef";

#[tokio::test]
async fn readiness_names_what_is_not_ready() {
    let (unready, _) = admin(None, false).await;
    let answer = unready.ask(&request("GET", "/readyz", "")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["not_ready"], json!(["sql"]));
    assert_eq!(answer.json()["checks"].as_array().unwrap().len(), 2);
    assert_eq!(unready.ask(&request("GET", "/livez", "")).await.status, 200);
    let (ready, _) = admin(None, true).await;
    let answer = ready.ask(&request("GET", "/readyz", "")).await;
    assert_eq!((answer.status, &answer.json()["ready"]), (200, &json!(true)));
}

#[tokio::test]
async fn a_token_keeps_all_but_probes_and_pages() {
    let (served, written) = admin(Some(TOKEN), true).await;
    for open in ["/", "/dashboard.js", "/dashboard.css", "/livez", "/readyz"] {
        assert_eq!(served.ask(&request("GET", open, "")).await.status, 200, "{open}");
    }
    for (method, closed) in [
        ("GET", "/metrics"),
        ("GET", "/admin/v1/flush"),
        ("GET", "/admin/v1/nothing"),
        ("POST", "/admin/v1/flush"),
        ("POST", "/admin/v1/dead-letters/1/replay"),
        ("DELETE", "/admin/v1/dead-letters/1"),
    ] {
        let answer = served.ask(&request(method, closed, "Authorization: Bearer 0123456789abcdeX\r\n")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "admin-token-required"), "{closed}");
        assert!(answer.header("www-authenticate").is_some());
    }
    assert!(written.calls().is_empty());
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(served.ask(&request("GET", "/metrics", &bearer)).await.body, "weir_up 1\n");
    assert_eq!(served.ask(&request("GET", "/admin/v1/flush", &bearer)).await.json(), json!({ "kinds": [] }));
    assert_eq!(written.calls(), ["flush"]);
}

#[tokio::test]
async fn without_a_token_another_name_is_refused() {
    let (served, _) = admin(None, true).await;
    let answer = served.ask("GET /admin/v1/flush HTTP/1.1\r\nHost: rebound.example\r\n\r\n").await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "admin-not-from-here"));
}

#[tokio::test]
async fn without_a_token_whom_a_trusted_proxy_asks_for_must_be_on_this_machine() {
    let config = AdminConfig { trusted_proxies: Networks::loopback(), ..AdminConfig::default() };
    let limits = PolicyLimits::from(&PolicyConfig::default());
    let state = AdminState::new(&config, limits, Written::new(true)).unwrap();
    let served = serve(Arc::new(state), LIMITS).await;
    for (client, status) in [("127.0.0.1", 200), ("203.0.113.9", 403), ("127.0.0.1, 203.0.113.9", 403)] {
        let said = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(served.ask(&request("GET", "/admin/v1/flush", &said)).await.status, status, "{client}");
    }
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_dropped() {
    let (served, written) = admin(None, true).await;
    for (method, target, status) in [
        ("GET", "/admin/v1/dead-letters", 200),
        ("GET", "/admin/v1/dead-letters?kind=feed-like&after=5&limit=2", 200),
        ("GET", "/admin/v1/dead-letters?limit=0", 400),
        ("GET", "/admin/v1/dead-letters?limit=1001", 400),
        ("GET", "/admin/v1/dead-letters?what=1", 400),
        ("POST", "/admin/v1/dead-letters/12/replay", 200),
        ("POST", "/admin/v1/dead-letters/13/replay", 409),
        ("POST", "/admin/v1/dead-letters/x/replay", 400),
        ("DELETE", "/admin/v1/dead-letters/12", 200),
        ("DELETE", "/admin/v1/dead-letters/13", 404),
        ("GET", "/admin/v1/dead-letters/12", 405),
        ("GET", "/admin/v1/dead-letters/12/replay", 405),
    ] {
        assert_eq!(served.ask(&request(method, target, "")).await.status, status, "{method} {target}");
    }
    let expected =
        ["letters None 0 100", "letters Some(\"feed-like\") 5 2", "replay 12", "replay 13", "drop 12", "drop 13"];
    assert_eq!(written.calls(), expected);
}

#[tokio::test]
async fn a_flush_is_of_one_kind_or_of_all() {
    let (served, written) = admin(None, true).await;
    for (target, status) in [
        ("/admin/v1/flush", 200),
        ("/admin/v1/flush?kind=feed-like", 200),
        ("/admin/v1/flush?kind=nothing", 404),
        ("/admin/v1/flush?kinds=feed-like", 400),
    ] {
        assert_eq!(served.ask(&request("POST", target, "")).await.status, status, "{target}");
    }
    assert_eq!(served.ask(&request("DELETE", "/admin/v1/flush", "")).await.status, 405);
    let elsewhere = served.ask(&request("POST", "/admin/v1/flush", "Origin: http://evil.example\r\n")).await;
    assert_eq!(elsewhere.status, 403, "no page of another origin flushes");
    assert_eq!(written.calls(), ["flush now None", "flush now Some(\"feed-like\")"]);
}

#[tokio::test]
async fn explain_decodes_its_ids() {
    let (served, written) = admin(None, true).await;
    let answer = served.ask(&request("GET", "/admin/v1/explain/feed-like/a%2Fb/7", "")).await;
    assert_eq!((answer.status, written.calls()), (200, vec!["explain feed-like a/b 7".to_owned()]));
    assert_eq!(served.ask(&request("GET", "/admin/v1/explain/feed-like/a/x", "")).await.status, 400);
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let (served, _) = admin(None, true).await;
    let page = served.ask(&request("GET", "/", "")).await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for content in [PAGE, SCRIPT, STYLE] {
        assert!(!content.contains("http:") && !content.contains("https:") && !content.contains("innerHTML"));
    }
    assert!(page.body.contains("/dashboard.js") && page.body.contains("/dashboard.css"));
}

#[tokio::test]
async fn the_description_needs_the_token() {
    let (served, _) = admin(Some(TOKEN), true).await;
    let path = "/admin/v1/openapi.json";
    assert_eq!(served.ask(&request("GET", path, "")).await.status, 401);
    let answer = served.ask(&request("GET", path, &format!("Authorization: Bearer {TOKEN}\r\n"))).await;
    assert_eq!((answer.status, &answer.json()["openapi"]), (200, &json!("3.1.0")));
}

#[test]
fn every_problem_has_its_status() {
    for kind in ADMIN_TYPES {
        assert_eq!(Problem::new(kind, "").status().as_u16(), kind.status);
        assert!(kind.name.starts_with("admin-"));
    }
}

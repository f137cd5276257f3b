//! The API over real sockets, as far as it goes without a kind; with kinds it is tested where the whole host runs.

#![cfg(test)]

use super::*;
use weir_listener::testing::{Served, serve};

async fn weir() -> Served {
    let auth = AuthConfig { trusted_header: Some("X-Actor-Id".into()), ..AuthConfig::default() };
    let state = HttpState::new(&HttpConfig::default(), &auth, Kinds::default(), Clock::Real).unwrap();
    let limits = state.limits;
    serve(Arc::new(state), limits).await
}

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX-Actor-Id: 7\r\n\r\n")
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let weir = weir().await;
    for target in
        ["/nothing", "/v1/toggles", "/v1/toggles/a/b/c", "//", "/v1/toggles/a/b/", "/livez", "/admin/v1/flush"]
    {
        assert_eq!(weir.ask(&request("GET", target)).await.problem(), "route-missing", "{target}");
    }
    for target in ["/v1/toggles/feed-like/3", "/v1/toggles/feed-like?targets=1", "/v1/toggles/x/3/actors"] {
        let answer = weir.ask(&request("GET", target)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "kind-missing"), "{target}");
    }
    assert_eq!(weir.ask(&request("POST", "/v1/toggles/feed-like/3")).await.problem(), "kind-missing");
    assert_eq!(weir.ask(&request("GET", "/v1/toggles/%ff/3")).await.problem(), "bad-path");
}

#[tokio::test]
async fn wrong_methods_are_told_the_right_ones() {
    let weir = weir().await;
    for (method, target, allow) in [
        ("PATCH", "/v1/toggles/feed-like/3", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("BREW", "/v1/toggles/feed-like/3", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        ("TRACE", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/toggles/feed-like", "GET, HEAD, OPTIONS"),
        ("DELETE", "/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let answer = weir.ask(&request(method, target)).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {target}");
        assert_eq!(answer.problem(), "method-not-allowed");
    }
}

#[tokio::test]
async fn options_name_the_methods() {
    let weir = weir().await;
    for target in ["*", "/v1/toggles/feed-like/3"] {
        let answer = weir.ask(&request("OPTIONS", target)).await;
        assert_eq!((answer.status, answer.header("allow").is_some_and(|allow| allow.contains("PUT"))), (204, true));
    }
}

#[tokio::test]
async fn the_document_and_the_root_are_json_for_get_and_head() {
    let weir = weir().await;
    let document = weir.ask(&request("GET", "/openapi.json")).await;
    assert_eq!(document.json()["openapi"], "3.1.0");
    assert_eq!(weir.ask(&request("GET", "/")).await.json()["openapi"], "/openapi.json");
    let head = weir.ask(&request("HEAD", "/openapi.json")).await;
    assert_eq!(head.header("content-length"), document.header("content-length"));
}

#[tokio::test]
async fn a_connection_outlives_refusals() {
    let weir = weir().await;
    let mut client = weir.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&request("POST", "/v1/toggles/none/3")).await.status, 404);
        assert_eq!(client.ask(&request("PATCH", "/")).await.status, 405);
        assert_eq!(client.ask(&request("GET", "/")).await.status, 200);
    }
}

#[tokio::test]
async fn a_body_where_none_belongs_is_refused() {
    let weir = weir().await;
    let answer = weir.ask("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad-body"));
}

#[tokio::test]
async fn requests_over_the_bound_are_shed() {
    let config = HttpConfig { requests_max: 0, ..HttpConfig::default() };
    let state = HttpState::new(&config, &AuthConfig::default(), Kinds::default(), Clock::Real).unwrap();
    let limits = state.limits;
    let answer = serve(Arc::new(state), limits).await.ask(&request("GET", "/")).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "overloaded"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn a_trusted_header_must_be_a_header_name() {
    let auth = AuthConfig { trusted_header: Some("X Actor".into()), ..AuthConfig::default() };
    let error = HttpState::new(&HttpConfig::default(), &auth, Kinds::default(), Clock::Real).err().unwrap();
    assert!(error.to_string().contains("auth.trusted_header"), "{error}");
}

/// What a call leaves to be polled, in bytes.
fn future_bytes<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

/// Each request has a box for its future. One branch that holds much makes all of them large, and beyond 10 KiB the
/// allocator gives their memory back to the kernel after each request.
#[test]
fn a_request_holds_little_while_it_is_answered() {
    let bytes = future_bytes(<HttpState as Handler>::handle);
    assert!(bytes <= 4_096, "{bytes} bytes: put the large branch of HttpState::answer in a box of its own");
}

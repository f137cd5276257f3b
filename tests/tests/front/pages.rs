//! Pages of other origins: who is named may read, also what is refused; who is not gets no word of CORS.

use std::collections::BTreeMap;

use weir::config::{CorsConfig, UpstreamConfig};
use weir_tests::client::Client;
use weir_tests::origin::{Origin, lines, ok};
use weir_tests::stand::{Setup, Stand};

use crate::{LIKE, ask, cors};

const APP: &str = "https://app.example";
const SHOP: &str = "https://shop.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_may_do_what_their_origin_may() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let theirs =
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nCache-Control: max-age=60\r\n";
    let origin = Origin::start(ok(theirs, "hello")).await;
    let mut config = stand.full_config();
    let of = |origin: &str| CorsConfig { origins: vec![origin.into()], ..CorsConfig::default() };
    let everybody = CorsConfig { max_age_s: 5, ..of("*") };
    let shop = CorsConfig { headers: vec!["*".into()], credentials: true, ..of(SHOP) };
    let kinds = [("video-view", everybody), ("playlist", CorsConfig::default()), ("upstream:shop", shop)];
    let kinds: BTreeMap<_, _> = kinds.map(|(kind, cors)| (kind.to_owned(), cors)).into();
    config.http.cors = CorsConfig { kinds, ..of(APP) };
    config.upstreams.push(UpstreamConfig::new("shop", "/shop/", &format!("http://{}", origin.address)));
    config.upstreams.push(UpstreamConfig::new("plain", "/plain/", &format!("http://{}", origin.address)));
    let host = stand.host(&config);
    let mut client = Client::new(host.public());
    preflights(&mut client).await;
    answers_and_refusals(&mut client).await;
    kinds_of_their_own(&mut client).await;
    upstreams(&mut client, &origin).await;
    drop(host);
}

/// Before it is known who asks, and before anything is changed.
async fn preflights(client: &mut Client) {
    let wanted = [
        ("origin", APP),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let allowed = ask(client, "OPTIONS", LIKE, &wanted).await;
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin"), allowed.header("vary")),
        (204, APP, "Origin")
    );
    assert_eq!(allowed.header("access-control-allow-methods"), "GET, HEAD, POST, PUT, DELETE, OPTIONS");
    for (other, method) in [("null", "POST"), (SHOP, "POST"), ("https://app.example:8443", "POST"), (APP, "PATCH")] {
        let asked = [("origin", other), ("access-control-request-method", method)];
        let refused = ask(client, "OPTIONS", LIKE, &asked).await;
        assert_eq!(
            (refused.status, cors(&refused), refused.header("vary")),
            (204, vec![], "Origin"),
            "{other} {method}"
        );
    }
}

/// The answer, and what is refused.
async fn answers_and_refusals(client: &mut Client) {
    let liked = ask(client, "POST", LIKE, &[("origin", APP), ("x-actor-id", "7")]).await;
    assert_eq!((liked.status, liked.header("access-control-allow-origin")), (200, APP));
    let exposed = liked.header("access-control-expose-headers");
    for name in
        ["x-request-id", "ratelimit", "ratelimit-policy", "retry-after", "etag", "age", "cache-status", "location"]
    {
        assert!(exposed.split(", ").any(|known| known == name), "{name}: {exposed}");
    }
    for (method, path, status) in
        [("POST", LIKE, 401), ("GET", "/v1/toggles/none/3", 404), ("PATCH", LIKE, 405), ("GET", "/no", 404)]
    {
        let refused = ask(client, method, path, &[("origin", APP)]).await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (status, APP), "{method} {path}");
        let refused = ask(client, method, path, &[("origin", "null")]).await;
        assert_eq!(
            (refused.status, cors(&refused), refused.header("vary")),
            (status, vec![], "Origin"),
            "{method} {path}"
        );
    }
    let plain = ask(client, "OPTIONS", LIKE, &[]).await;
    assert!(plain.header("allow").contains("PUT") && cors(&plain).is_empty(), "no preflight");
}

async fn kinds_of_their_own(client: &mut Client) {
    let counted = ask(client, "GET", "/v1/counters/video-view/3", &[("origin", "null")]).await;
    assert_eq!((counted.header("access-control-allow-origin"), counted.header("vary")), ("*", ""));
    let asked = [("origin", SHOP), ("access-control-request-method", "POST")];
    let counter = ask(client, "OPTIONS", "/v1/counters/video-view/3", &asked).await;
    assert_eq!((counter.header("access-control-allow-origin"), counter.header("access-control-max-age")), ("*", "5"));
    let listed = ask(client, "GET", "/v1/ingest/playlist", &[("origin", APP), ("x-actor-id", "7")]).await;
    assert_eq!((listed.status, cors(&listed)), (200, vec![]), "this kind has none");
}

/// weir decides for an upstream that is configured, also of cached answers; else the origin does.
async fn upstreams(client: &mut Client, origin: &Origin) {
    for _ in 0..2 {
        let read = ask(client, "GET", "/shop/a", &[("origin", SHOP)]).await;
        let named = read.headers.get_all("access-control-allow-origin").iter();
        let named: Vec<&str> = named.map(|origin| origin.to_str().unwrap()).collect();
        assert_eq!((named, read.header("access-control-allow-credentials")), (vec![SHOP], "true"));
        let read = ask(client, "GET", "/shop/a", &[("origin", APP)]).await;
        assert_eq!((read.text().as_str(), cors(&read)), ("hello", vec![]));
    }
    let before = origin.asked();
    let asked =
        [("origin", SHOP), ("access-control-request-method", "PATCH"), ("access-control-request-headers", "x-any")];
    let allowed = ask(client, "OPTIONS", "/shop/a", &asked).await;
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-headers"), origin.asked()),
        (204, "x-any", before)
    );
    assert!(lines(&origin.last_head(), "origin").len() <= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_name_the_pages_of_their_listener() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 1).await;
    let mut config = stand.config();
    let host = stand.host(&config);
    let asked = [
        ("origin", APP),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let mut client = Client::new(host.admin());
    let none = ask(&mut client, "OPTIONS", "/admin/v1/flush", &asked).await;
    let read = ask(&mut client, "GET", "/livez", &[("origin", APP)]).await;
    assert_eq!((cors(&none), read.status, cors(&read)), (vec![], 200, vec![]), "none by default");
    drop(host);

    config.admin.cors.origins = vec![APP.into()];
    assert!(config.validate().unwrap_err().to_string().contains("needs admin.token"));
    config.admin.token = Some("0123456789abcdef".into());
    let host = stand.host(&config);
    let mut client = Client::new(host.admin());
    let allowed = ask(&mut client, "OPTIONS", "/admin/v1/flush", &asked).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, APP));
    let token = ("authorization", "Bearer 0123456789abcdef");
    let flushed = ask(&mut client, "POST", "/admin/v1/flush", &[token, ("origin", APP)]).await;
    assert_eq!((flushed.status, flushed.header("access-control-allow-origin")), (200, APP), "{}", flushed.text());
    let refused = ask(&mut client, "POST", "/admin/v1/flush", &[("origin", APP)]).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, APP));
    let other = ask(&mut client, "POST", "/admin/v1/flush", &[token, ("origin", SHOP)]).await;
    assert_eq!((other.status, cors(&other)), (403, vec![]));
}

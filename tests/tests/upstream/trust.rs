//! Whose word is taken for who asks, how and for what; and what an origin hears of it.

use weir::config::{Config, Networks};
use weir_tests::origin::{Script, answer, line, lines, ok};

use super::{before, before_with};

fn behind_a_proxy(config: &mut Config) {
    config.http.trusted_proxies = Networks::loopback();
}

/// An application that wants TLS, and keeps saying so.
fn wants_tls(head: &str) -> String {
    let fresh = "Cache-Control: max-age=60\r\n";
    match (line(head, "x-forwarded-proto"), line(head, "x-forwarded-host")) {
        ("https", _) => answer("200 OK", fresh, "safe"),
        (_, host) => answer("301 Moved", &format!("{fresh}Location: https://{host}/shop/a\r\n"), ""),
    }
}

/// Where it sends clients, by what it hears of the host.
fn sends_to_its_host(head: &str) -> String {
    let host = line(head, "host");
    answer("302 Found", &format!("Cache-Control: max-age=60\r\nLocation: http://{host}/shop/b\r\n"), "")
}

/// Where it believes itself to be.
fn says_its_host(head: &str) -> String {
    answer("200 OK", "Cache-Control: max-age=60\r\n", line(head, "host"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_says_nothing_of_the_request_or_its_way() {
    let mut at = before(ok("Cache-Control: max-age=60\r\n", "told"), |_| {}).await;
    let claims = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-host",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-real-ip",
        "true-client-ip",
        "x-url-scheme",
        "front-end-https",
        "proxy",
        "x_forwarded_host",
        "x_forwarded_proto",
        "x-forwarded_prefix",
        "x_host",
        "x_original_url",
        "x_http_method_override",
        "x.forwarded.host",
        "x_actor_id",
    ];
    let sent: Vec<(&str, &str)> = claims.iter().map(|name| (*name, "evil")).collect();
    for (method, path) in [("GET", "/shop/a"), ("POST", "/shop/b")] {
        assert_eq!(at.ask(method, path, &[&sent[..], &[("x-csrf-token", "mine")]].concat()).await.status, 200);
        let head = at.origin.last_head();
        assert!(!head.contains("evil") && line(&head, "x-csrf-token") == "mine", "{method}: {head}");
        assert_eq!(lines(&head, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!((lines(&head, "x-forwarded-proto"), lines(&head, "x-forwarded-host").len()), (vec!["http"], 0));
        assert_eq!(lines(&head, "forwarded"), ["for=127.0.0.1;proto=http"]);
        assert_eq!(line(&head, "host"), at.origin.address.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_trusted_proxies_say_goes_on_in_both_forms() {
    let mut at = before_with(ok("", "told"), behind_a_proxy).await;
    let said = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("host", "Shop.Example"),
        ("x-forwarded-prefix", "/evil"),
    ];
    assert_eq!(at.ask("GET", "/shop/a", &said).await.status, 200);
    let head = at.origin.last_head();
    assert_eq!(lines(&head, "x-forwarded-for"), ["203.0.113.9, 127.0.0.1"], "the client wrote the first line itself");
    assert_eq!((line(&head, "x-forwarded-proto"), line(&head, "x-forwarded-host")), ("https", "shop.example"));
    let about = ";host=\"shop.example\";proto=https";
    assert_eq!(lines(&head, "forwarded"), [format!("for=203.0.113.9{about}, for=127.0.0.1{about}")]);
    assert!(!head.contains("evil"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_wants_tls_is_content_and_its_redirect_is_told_to_those_without() {
    let mut at = before_with(Script::With(wants_tls), behind_a_proxy).await;
    let by = |scheme| [("host", "shop.example"), ("x-forwarded-proto", scheme)];
    for _ in 0..2 {
        let plain = at.ask("GET", "/shop/a", &by("http")).await;
        assert_eq!((plain.status, plain.header("location")), (301, "https://shop.example/shop/a"));
        let safe = at.ask("GET", "/shop/a", &by("https")).await;
        assert_eq!((safe.status, safe.text().as_str()), (200, "safe"));
    }
    assert_eq!(at.origin.asked(), 2, "both are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_has_its_own_answers() {
    let mut at = before(Script::With(says_its_host), |upstream| {
        upstream.preserve_host = true;
        upstream.hosts = vec!["a.example".into(), "*.b.example".into()];
    })
    .await;
    for _ in 0..2 {
        for (asked, told) in
            [("a.example", "a.example"), ("X.b.example:80", "x.b.example"), ("y.b.example", "y.b.example")]
        {
            assert_eq!(at.ask("GET", "/shop/a", &[("host", asked)]).await.text(), told);
        }
    }
    assert_eq!(at.origin.asked(), 3);
    let other = at.ask("GET", "/shop/a", &[("host", "evil.example")]).await;
    assert_eq!((other.status, at.origin.asked()), (404, 3), "{}", other.text());
    // One path, purged for all hosts.
    let purge = "/admin/v1/cache/purge?key=shop:/shop/a";
    let mut admin = super::Client::new(at.host.admin());
    assert_eq!(admin.request("POST", purge, &[], "").await.unwrap().status, 200);
    for (host, asked) in [("a.example", 4), ("x.b.example", 5)] {
        assert_eq!((at.ask("GET", "/shop/a", &[("host", host)]).await.status, at.origin.asked()), (200, asked));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_origins_address_is_not_where_clients_are_sent() {
    let mut at = before_with(ok("", ""), |config| {
        behind_a_proxy(config);
        config.upstreams[0].strip_prefix = true;
    })
    .await;
    let moved = format!(
        "HTTP/1.1 302 Found\r\nCache-Control: max-age=60\r\nLocation: http://{0}/login?a=b\r\n\
         Content-Location: /c\r\nRefresh: 3; url=http://{0}/d\r\nContent-Length: 0\r\n\r\n",
        at.origin.address
    );
    at.origin.say(Script::Say(moved));
    for _ in 0..2 {
        let told = at.ask("GET", "/shop/a", &[("host", "shop.example"), ("x-forwarded-proto", "https")]).await;
        assert_eq!(told.header("location"), "https://shop.example/shop/login?a=b");
        assert_eq!(told.header("content-location"), "/shop/c");
        assert_eq!(told.header("refresh"), "3; url=https://shop.example/shop/d");
    }
    assert_eq!(at.origin.asked(), 1);
    assert_eq!(line(&at.origin.last_head(), "x-forwarded-prefix"), "/shop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_nobody_vouches_for_is_in_no_link_and_in_no_key() {
    let mut at = before(Script::With(sends_to_its_host), |_| {}).await;
    for host in ["a.example", "evil.example"] {
        let told = at.ask("GET", "/shop/a", &[("host", host)]).await;
        assert_eq!((told.header("location"), at.origin.asked()), ("/shop/b", 1), "{host}");
    }
}

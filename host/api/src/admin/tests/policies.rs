//! Routes of policy modules: each of them, and each wrong input.

#![cfg(test)]

use super::*;
use crate::admin::testing::{Written, admin_with};
use weir_core::config::PolicyConfig;

/// Waiting for what must come; only a failure takes so long.
const TIMEOUT: Duration = Duration::from_secs(30);
const ALL: &str = "/admin/v1/policies";
const WASM: &str = "Content-Type: application/wasm\r\n";
const FORM: &str = "Content-Type: multipart/form-data; boundary=XX\r\n";

fn upload(target: &str, more: &str, body: &str) -> String {
    format!("{}{body}", request("POST", target, &format!("{more}Content-Length: {}\r\n", body.len())))
}

/// A form; a part's name may carry further attributes.
fn form(parts: &[(&str, &str)]) -> String {
    let part = |(name, value): &(&str, &str)| {
        format!("--XX\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--XX--\r\n"
}

fn limits() -> PolicyLimits {
    PolicyLimits::from(&PolicyConfig::default())
}

#[tokio::test]
async fn a_raw_upload_is_the_component() {
    let (served, written) = admin(None, true).await;
    written.answers(Ok(json!({ "digest": "00", "known": false })));
    let target = format!("{ALL}?name=one-way&version=1.2.0&activate=true");
    let answer = served.ask(&upload(&target, &format!("{WASM}X-Operator: Ada L.\r\n"), "\0asm\r\n\u{7f}é")).await;
    assert_eq!((answer.status, &answer.json()["digest"]), (201, &json!("00")));
    written.answers(Ok(json!({ "digest": "00", "known": true })));
    let octets = "Content-Type: Application/Octet-Stream; x=y\r\n";
    assert_eq!(served.ask(&upload(ALL, octets, "\0asm")).await.status, 200);
    let named = Upload {
        bytes: Bytes::from_static("\0asm\r\n\u{7f}é".as_bytes()),
        name: Some("one-way".into()),
        version: Some("1.2.0".into()),
        vectors: None,
        activate: true,
    };
    let plain = Upload { bytes: Bytes::from_static(b"\0asm"), ..Upload::default() };
    assert_eq!(written.uploads(), [("Ada L.@127.0.0.1".to_owned(), named), ("unknown@127.0.0.1".to_owned(), plain)]);
}

#[tokio::test]
async fn a_form_carries_all_of_an_upload() {
    let (served, written) = admin(None, true).await;
    let parts = [
        ("name", "one-way"),
        ("module; filename=\"a.wasm\"", "\0asm\r\n--X\r\n"),
        ("vectors; filename=\"cases.json\"", "{\"é\":[]}"),
        ("version", "2"),
        ("activate", "false"),
    ];
    assert_eq!(served.ask(&upload(ALL, FORM, &form(&parts))).await.status, 201);
    let quoted = "Content-Type: multipart/form-data; charset=utf-8; boundary=\"XX\"\r\n";
    let target = format!("{ALL}?activate=true");
    assert_eq!(served.ask(&upload(&target, quoted, &form(&[("module", "m")]))).await.status, 201);
    let whole = Upload {
        bytes: Bytes::from_static(b"\0asm\r\n--X\r\n"),
        name: Some("one-way".into()),
        version: Some("2".into()),
        vectors: Some("{\"é\":[]}".into()),
        activate: false,
    };
    let small = Upload { bytes: Bytes::from_static(b"m"), activate: true, ..Upload::default() };
    let uploads: Vec<Upload> = written.uploads().into_iter().map(|(_, upload)| upload).collect();
    assert_eq!(uploads, [whole, small]);
}

#[tokio::test]
async fn a_wrong_upload_says_what_to_change() {
    let (served, written) = admin(None, true).await;
    let module = ("module", "m");
    let form_cases: [(&str, String, &str); 10] = [
        (FORM, form(&[("name", "a")]), "no component"),
        (FORM, form(&[]), "no component"),
        (FORM, form(&[("module", "")]), "no component"),
        (FORM, form(&[module, ("module", "n")]), "module is given twice"),
        (FORM, form(&[module, ("colour", "red")]), "parts that are known here"),
        (FORM, form(&[module, ("activate", "yes")]), "true or false"),
        (FORM, form(&[module, ("name", "a b")]), "letters"),
        (FORM, "--XX\r\nContent-Disposition: form-data; name=module\r\n\r\nm".into(), "not a well-formed"),
        (FORM, "--XX\r\nContent-Disposition: form-data\r\n\r\nm\r\n--XX--\r\n".into(), "needs a name"),
        ("Content-Type: multipart/form-data\r\n", form(&[module]), "boundary"),
    ];
    for (more, body, detail) in form_cases {
        let answer = served.ask(&upload(ALL, more, &body)).await;
        assert_eq!((answer.status, &*answer.problem()), (400, "admin-bad-request"), "{body:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{answer:?}");
    }
    for (query, detail) in [
        ("?colour=red", "name, version, activate"),
        ("?vectors=%7B%7D", "name, version, activate"),
        ("?name=a&name=a", "twice"),
        ("?name=", "leave it out"),
        ("?version=1/2", "letters"),
        ("?activate=1", "true or false"),
        ("?name=%zz", "percent-encoding"),
    ] {
        let answer = served.ask(&upload(&format!("{ALL}{query}"), WASM, "m")).await;
        assert_eq!((answer.status, &*answer.problem()), (400, "admin-bad-request"), "{query}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{answer:?}");
    }
    let twice = served.ask(&upload(&format!("{ALL}?name=a"), FORM, &form(&[module, ("name", "a")]))).await;
    assert_eq!(twice.status, 400);
    assert_eq!(served.ask(&upload(ALL, WASM, "")).await.status, 400);
    for more in [
        "",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/json\r\n",
        "Content-Type: multipart/mixed; boundary=XX\r\n",
        "Content-Type: application/wasm\r\nContent-Type: application/wasm\r\n",
        "Content-Type: application/wasm\r\nContent-Encoding: gzip\r\n",
    ] {
        let answer = served.ask(&upload(ALL, more, "m")).await;
        assert_eq!((answer.status, &*answer.problem()), (415, "unsupported-body"), "{more:?}");
    }
    assert!(written.calls().is_empty() && written.uploads().is_empty());
}

#[tokio::test]
async fn an_upload_is_bounded_in_bytes() {
    let written = Written::new(true);
    let served = admin_with(None, PolicyLimits { upload_bytes_max: 8, ..limits() }, &written).await;
    let announced = request("POST", ALL, &format!("{WASM}Content-Length: 9\r\n"));
    let answer = served.ask(&announced).await;
    assert_eq!((answer.status, &*answer.problem()), (413, "body-too-large"), "refused unread");
    let chunked = request("POST", ALL, &format!("{WASM}Transfer-Encoding: chunked\r\n"));
    let answer = served.ask(&format!("{chunked}5\r\n12345\r\n4\r\n6789\r\n")).await;
    assert_eq!((answer.status, &*answer.problem()), (413, "body-too-large"), "refused before its end");
    assert!(written.uploads().is_empty());
    assert_eq!(served.ask(&format!("{chunked}8\r\n12345678\r\n0\r\n\r\n")).await.status, 201);
}

#[tokio::test]
async fn an_upload_is_bounded_in_time() {
    let written = Written::new(true);
    let limits = PolicyLimits { upload_timeout: Duration::from_millis(10), ..limits() };
    let served = admin_with(None, limits, &written).await;
    let begun = request("POST", ALL, &format!("{WASM}Content-Length: 2\r\n"));
    let answer = served.ask(&format!("{begun}m")).await;
    assert_eq!((answer.status, &*answer.problem()), (408, "body-timeout"));
    assert!(written.uploads().is_empty());
}

#[tokio::test]
async fn two_uploads_at_once_and_no_more() {
    let (served, written) = admin(None, true).await;
    written.close_gate();
    let (mut first, mut second) = (served.client().await, served.client().await);
    first.send(&upload(ALL, WASM, "1")).await;
    second.send(&upload(ALL, WASM, "2")).await;
    written.begun.acquire_many(2).await.unwrap().forget();
    let third = served.ask(&upload(ALL, WASM, "3")).await;
    assert_eq!((third.status, &*third.problem(), third.header("retry-after")), (503, "admin-unavailable", Some("1")));
    assert_eq!(served.ask(&request("GET", ALL, "")).await.status, 200, "the rest goes on");
    written.gate.add_permits(3);
    assert_eq!(first.answer(false).await.status, 201);
    assert_eq!(second.answer(false).await.status, 201);
    assert_eq!(served.ask(&upload(ALL, WASM, "4")).await.status, 201);
}

#[tokio::test]
async fn an_upload_beyond_its_deadline_goes_on() {
    let written = Written::new(true);
    let served = admin_with(None, PolicyLimits { deadline: Duration::from_millis(10), ..limits() }, &written).await;
    written.close_gate();
    for _ in 0..2 {
        let answer = served.ask(&upload(ALL, WASM, "m")).await;
        assert_eq!((answer.status, &*answer.problem()), (503, "admin-unavailable"));
        assert!(answer.json()["detail"].as_str().unwrap().contains("it goes on"), "{answer:?}");
    }
    let third = served.ask(&upload(ALL, WASM, "m")).await;
    assert_eq!((third.status, third.header("retry-after")), (503, Some("1")), "both still hold their slots");
    assert!(written.uploads().is_empty());
    written.gate.add_permits(2);
    let both = async {
        while written.uploads().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, both).await.expect("both end by themselves");
}

#[tokio::test]
async fn a_refused_module_has_its_code() {
    let (served, written) = admin(None, true).await;
    written.answers(Err(OperationsError::Refused { code: "unknown-import", reason: "it imports \"wasi\"".into() }));
    let answer = served.ask(&upload(ALL, WASM, "m")).await;
    assert_eq!((answer.status, &*answer.problem()), (422, "admin-module-refused"));
    assert_eq!(answer.json()["code"], "unknown-import");
    assert_eq!(answer.json()["detail"], "it imports \"wasi\"");
}

#[tokio::test]
async fn every_command_has_its_request() {
    let (served, written) = admin(None, true).await;
    let by = "X-Operator: ada\r\n";
    for (method, target) in [
        ("POST", "/0123ab/activate"),
        ("POST", "/one-way%401.2/activate?interfaces=toggle,flush"),
        ("POST", "/one-way@1.2/shadow"),
        ("POST", "/a/shadow?share=0.1"),
        ("POST", "/a/canary?share=1e-2"),
        ("POST", "/a/canary?share=1"),
        ("DELETE", "/shadow"),
        ("DELETE", "/canary"),
        ("POST", "/rollback"),
        ("DELETE", "/a"),
        ("POST", "/shadow/activate"),
    ] {
        let answer = served.ask(&request(method, &format!("{ALL}{target}"), by)).await;
        assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
    }
    assert_eq!(
        written.calls(),
        [
            "ada@127.0.0.1: Activate { module: \"0123ab\", interfaces: [] }",
            "ada@127.0.0.1: Activate { module: \"one-way@1.2\", interfaces: [\"toggle\", \"flush\"] }",
            "ada@127.0.0.1: Shadow { module: \"one-way@1.2\", share: 1.0 }",
            "ada@127.0.0.1: Shadow { module: \"a\", share: 0.1 }",
            "ada@127.0.0.1: Canary { module: \"a\", share: 0.01 }",
            "ada@127.0.0.1: Canary { module: \"a\", share: 1.0 }",
            "ada@127.0.0.1: EndShadow",
            "ada@127.0.0.1: EndCanary",
            "ada@127.0.0.1: Rollback",
            "ada@127.0.0.1: Delete { module: \"a\" }",
            "ada@127.0.0.1: Activate { module: \"shadow\", interfaces: [] }",
        ]
    );
}

#[tokio::test]
async fn a_wrong_command_is_not_given() {
    let (served, written) = admin(None, true).await;
    for target in [
        "/a/canary",
        "/a/canary?share=",
        "/a/canary?share=0",
        "/a/canary?share=-0.1",
        "/a/canary?share=1.0001",
        "/a/canary?share=NaN",
        "/a/canary?share=inf",
        "/a/canary?share=5%25",
        "/a/canary?share=0.1&share=0.2",
        "/a/canary?Share=0.1",
        "/a/shadow?share=2",
        "/a/shadow?percent=2",
        "/a/activate?interface=toggle",
        "/a/activate?interfaces=",
        "/a/activate?interfaces=toggle,",
        "/rollback?to=a",
        "/%ff/activate",
    ] {
        let answer = served.ask(&request("POST", &format!("{ALL}{target}"), "")).await;
        assert_eq!((answer.status, &*answer.problem()), (400, "admin-bad-request"), "{target}");
    }
    for target in ["/shadow?share=1", "/canary?x", "/a?force=true"] {
        assert_eq!(served.ask(&request("DELETE", &format!("{ALL}{target}"), "")).await.status, 400, "{target}");
    }
    let long = "x".repeat(65);
    for operator in ["", "é", "a\tb", &long] {
        let more = format!("X-Operator: {operator}\r\n");
        let answer = served.ask(&request("POST", &format!("{ALL}/rollback"), &more)).await;
        assert_eq!((answer.status, &*answer.problem()), (400, "admin-bad-request"), "{operator:?}");
        assert_eq!(served.ask(&upload(ALL, &format!("{WASM}{more}"), "m")).await.status, 400, "{operator:?}");
    }
    let twice = "X-Operator: a\r\nX-Operator: a\r\n";
    assert_eq!(served.ask(&request("POST", &format!("{ALL}/rollback"), twice)).await.status, 400);
    let answer =
        served.ask(&upload(&format!("{ALL}/rollback"), "Content-Type: application/json\r\n", "{\"a\":1}")).await;
    assert_eq!((answer.status, &*answer.problem()), (400, "bad-body"));
    assert!(written.calls().is_empty() && written.uploads().is_empty());
}

#[tokio::test]
async fn what_only_looks_is_asked_strictly() {
    let (served, written) = admin(None, true).await;
    for (target, status) in [
        ("", 200),
        ("/diff", 200),
        ("/audit", 200),
        ("/audit?limit=1000", 200),
        ("/audit?limit=0", 400),
        ("/audit?limit=1001", 400),
        ("/audit?limit=x", 400),
        ("/audit?after=1", 400),
        ("/diff?x=1", 400),
        ("?name=a", 400),
    ] {
        assert_eq!(served.ask(&request("GET", &format!("{ALL}{target}"), "")).await.status, status, "{target}");
    }
    assert_eq!(written.calls(), ["policies", "diff", "audit 100", "audit 1000"]);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let (served, written) = admin(None, true).await;
    for (method, target, allow) in [
        ("PUT", "", "GET, HEAD, POST"),
        ("DELETE", "", "GET, HEAD, POST"),
        ("GET", "/rollback", "POST"),
        ("DELETE", "/rollback", "POST"),
        ("POST", "/shadow", "DELETE"),
        ("GET", "/canary", "DELETE"),
        ("POST", "/diff", "GET, HEAD"),
        ("DELETE", "/audit", "GET, HEAD"),
        ("GET", "/a", "DELETE"),
        ("GET", "/a/activate", "POST"),
        ("PUT", "/a/shadow", "POST"),
        ("DELETE", "/a/canary", "POST"),
    ] {
        let answer = served.ask(&request(method, &format!("{ALL}{target}"), "")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {target}");
    }
    assert_eq!(served.ask(&request("POST", &format!("{ALL}/a/rollback"), "")).await.status, 404);
    assert!(written.calls().is_empty());
}

#[tokio::test]
async fn modules_are_behind_the_token_and_no_other_origins_business() {
    let (served, written) = admin(Some(TOKEN), true).await;
    let requests = [
        upload(ALL, WASM, "m"),
        request("GET", ALL, ""),
        request("GET", &format!("{ALL}/diff"), ""),
        request("GET", &format!("{ALL}/audit"), ""),
        request("POST", &format!("{ALL}/rollback"), ""),
        request("POST", &format!("{ALL}/a/activate"), ""),
        request("POST", &format!("{ALL}/a/shadow"), ""),
        request("POST", &format!("{ALL}/a/canary?share=1"), ""),
        request("DELETE", &format!("{ALL}/shadow"), ""),
        request("DELETE", &format!("{ALL}/a"), ""),
    ];
    for text in &requests {
        let answer = served.ask(text).await;
        assert_eq!((answer.status, &*answer.problem()), (401, "admin-token-required"), "{text}");
    }
    let (open, unguarded) = admin(None, true).await;
    for text in requests.iter().filter(|text| !text.starts_with("GET")) {
        let foreign = text.replacen("Host: localhost\r\n", "Host: localhost\r\nOrigin: https://evil.example\r\n", 1);
        assert_eq!(open.ask(&foreign).await.problem(), "admin-not-from-here", "{text}");
        let rebound = text.replacen("Host: localhost\r\n", "Host: rebound.example\r\n", 1);
        assert_eq!(open.ask(&rebound).await.problem(), "admin-not-from-here", "{text}");
    }
    assert!(written.calls().is_empty() && unguarded.calls().is_empty());
    let with_token = upload(ALL, &format!("{WASM}Authorization: Bearer {TOKEN}\r\n"), "m");
    assert_eq!(served.ask(&with_token).await.status, 201);
}

//! A real browser: a page of a named origin likes, unlikes and reads what it may; a page of another one gets nothing.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weir::config::{CorsConfig, JwtConfig};
use weir_tests::client::Client;
use weir_tests::origin::Origin;
use weir_tests::services::Browser;
use weir_tests::stand::{Setup, Stand};
use weir_tests::tokens::{SigningKey, key_set};

use crate::{LIKE, ask, cors};

/// A browser that has not said anything by then says nothing.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// What a page does. `WEIR`, `TOKEN`, `OTHER` and `NAME` are filled in.
const SCRIPT: &str = r#"
const headers = ["x-request-id", "ratelimit", "ratelimit-policy", "weir-durability", "weir-receipt", "content-length"];
async function ask(method, options) {
  try {
    const reply = await fetch("WEIR/v1/toggles/feed-like/3", { method, ...options });
    const read = Object.fromEntries(headers.map(name => [name, reply.headers.get(name)]));
    return { status: reply.status, type: reply.type, body: await reply.json(), headers: read };
  } catch (error) { return { error: String(error) }; }
}
(async () => {
  const authorization = "TOKEN";
  const known = { headers: { authorization, "idempotency-key": "\"one\"" }, credentials: "include" };
  const said = { page: "NAME", origin: location.origin };
  said.like = await ask("POST", known);
  said.unlike = await ask("DELETE", { headers: { authorization }, credentials: "include" });
  said.nobody = await ask("POST", { credentials: "include" });
  said.unnamed_header = await ask("POST", { headers: { authorization, "x-actor-id": "8" } });
  await fetch("/said", { method: "POST", body: JSON.stringify(said) });
})();
"#;

/// Serves a page at one origin, and hears what it says.
struct Site {
    origin: String,
    page: Arc<std::sync::Mutex<String>>,
}

impl Site {
    async fn start(said: mpsc::Sender<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = Arc::<std::sync::Mutex<String>>::default();
        let site = Self { origin: format!("http://{}", listener.local_addr().unwrap()), page: Arc::clone(&page) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&page), said.clone()));
            }
        });
        site
    }
}

async fn serve(mut stream: TcpStream, page: Arc<std::sync::Mutex<String>>, said: mpsc::Sender<Value>) {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                if head.starts_with("POST /said") {
                    said.send(serde_json::from_str(body).unwrap()).await.unwrap();
                }
                let page = if head.starts_with("GET / ") { page.lock().unwrap().clone() } else { String::new() };
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n";
                let _ =
                    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{page}", page.len()).as_bytes()).await;
                return;
            }
        }
        if !matches!(stream.read_buf(&mut received).await, Ok(count) if count > 0) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_likes_and_unlikes_in_a_browser() {
    let stand = Stand::start(Setup::EmbeddedSqlite, 10).await;
    let key = SigningKey::new("one", Algorithm::ES256);
    let issuer = Origin::start(key_set(&[&key])).await;
    let (sender, mut said) = mpsc::channel(4);
    let (named, other) = (Site::start(sender.clone()).await, Site::start(sender).await);
    let mut config = stand.config();
    config.toggles[0].settings.insert("limit-burst".into(), "10".into());
    config.auth.jwt = Some(JwtConfig {
        algorithm: "ES256".into(),
        jwks_url: Some(format!("http://{}/keys", issuer.address)),
        ..JwtConfig::default()
    });
    config.http.cors = CorsConfig { origins: vec![named.origin.clone()], credentials: true, ..CorsConfig::default() };
    let host = stand.host(&config);
    let weir = format!("http://{}", host.public());
    let fill = |name: &str| SCRIPT.replace("WEIR", &weir).replace("TOKEN", &key.bearer(7)).replace("NAME", name);
    *other.page.lock().unwrap() = format!("<!doctype html><script>{}</script>", fill("other"));
    // The named page has the other one in a frame.
    *named.page.lock().unwrap() =
        format!("<!doctype html><iframe src=\"{}/\"></iframe><script>{}</script>", other.origin, fill("named"));

    let browser = Browser::open(&format!("{}/", named.origin));
    let mut heard = std::collections::BTreeMap::new();
    while heard.len() < 2 {
        let page = tokio::time::timeout(PATIENCE, said.recv()).await;
        let page = page.unwrap_or_else(|_| panic!("the browser says nothing:\n{}", browser.log())).unwrap();
        heard.insert(page["page"].as_str().unwrap().to_owned(), page);
    }
    let page = &heard["named"];
    println!(
        "browser: like={} unlike={} nobody={}",
        page["like"]["status"], page["unlike"]["status"], page["nobody"]["status"]
    );
    assert_eq!((&page["like"]["status"], &page["like"]["body"]["liked"]), (&200.into(), &true.into()), "{page}");
    assert_eq!((&page["unlike"]["status"], &page["unlike"]["body"]["liked"]), (&200.into(), &false.into()), "{page}");
    for name in ["x-request-id", "ratelimit", "ratelimit-policy", "weir-durability", "weir-receipt"] {
        assert!(page["like"]["headers"][name].is_string(), "{name} cannot be read: {page}");
    }
    assert_eq!((&page["like"]["type"], &page["nobody"]["status"]), (&"cors".into(), &401.into()), "{page}");
    assert_eq!(
        page["nobody"]["body"]["requestId"], page["nobody"]["headers"]["x-request-id"],
        "a problem is read, too"
    );
    assert!(page["unnamed_header"]["error"].is_string(), "a header that is not named stops at the browser: {page}");
    let page = &heard["other"];
    for what in ["like", "unlike", "nobody", "unnamed_header"] {
        assert!(page[what]["error"].is_string(), "{what} of the other page: {page}");
    }

    let mut client = Client::new(host.public());
    let asked = [("origin", &*other.origin), ("access-control-request-method", "POST")];
    let refused = ask(&mut client, "OPTIONS", LIKE, &asked).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin"), cors(&refused)), (204, "", vec![]));
    let state = ask(&mut client, "GET", LIKE, &[("authorization", &key.bearer(7))]).await.like();
    assert_eq!(state, (false, 0), "the other page has changed nothing");
}

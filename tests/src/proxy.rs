//! A proxy that counts round trips.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Stands before a server and counts how often a client speaks after the server has: each time somebody waits for an answer.
#[derive(Debug)]
pub struct CountingProxy {
    port: u16,
    turns: Arc<AtomicU64>,
}

impl CountingProxy {
    /// Before the server on this port of the loopback interface, as long as the runtime lives.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let port = listener.local_addr().expect("the proxy's address").port();
        let turns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turns);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server behind the proxy");
                tokio::spawn(relay(client, server, Arc::clone(&counted)));
            }
        });
        Self { port, turns }
    }

    /// The URL of a server, through the proxy.
    pub async fn before(url: &str) -> (Self, String) {
        let (start, rest) = url.split_once("@127.0.0.1:").expect("a URL with a loopback address");
        let (port, database) = rest.split_once('/').expect("a URL with a database");
        let proxy = Self::start(port.parse().expect("a port")).await;
        let through = format!("{start}@127.0.0.1:{}/{database}", proxy.port);
        (proxy, through)
    }

    /// Round trips so far, of all connections.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }
}

async fn relay(client: TcpStream, server: TcpStream, turns: Arc<AtomicU64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_asking = Arc::new(AtomicBool::new(false));
    let answered = Arc::clone(&is_asking);
    let up = async move {
        let mut bytes = vec![0; 65_536];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            if !is_asking.swap(true, Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let down = async move {
        let mut bytes = vec![0; 65_536];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            answered.store(false, Ordering::SeqCst);
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

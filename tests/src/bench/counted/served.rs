//! The host as it is under valgrind: in this executable, because valgrind lets no program start itself as a child, which the
//! `weir` binary does to compile its rules. Public listener, rules as a component, store, SQL and flusher are those of the
//! binary; the operators' listener only says that the host is there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use weir::app::App;
use weir::clock::Clock;
use weir::config::Config;
use weir::http::{self, HttpState};
use weir::policy::Compiler;

/// First argument of the executable when it is to be the host.
pub(super) const COUNTED_HOST: &str = "counted-host";

/// How often the clock of the host moves.
const TICK: Duration = Duration::from_millis(100);

/// Is the host until SIGTERM, when the first argument says so; then it has drained, and the process ends.
pub fn serve_if_asked() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != COUNTED_HOST) {
        return;
    }
    let after = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name).expect(name);
        arguments[place + 1].as_str()
    };
    let config = Config::load(Path::new(after("--config"))).expect("a configuration");
    let address = |name: &str| after(name).parse::<SocketAddr>().expect("an address");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(config, address("--listen"), address("--admin-listen")));
    std::process::exit(0);
}

async fn serve(config: Config, public: SocketAddr, admin: SocketAddr) {
    let mut stop = signal(SignalKind::terminate()).expect("signals");
    let listener = TcpListener::bind(public).await.expect("a port");
    let clock = ticking_clock();
    let app = App::start(config.clone(), clock.clone(), Compiler::InProcess).await.expect("a host");
    app.schema_ready().wait_for(|ready| *ready).await.expect("tables");
    let state = HttpState::new(&config.http, &config.auth, app.kinds().clone(), clock).expect("a listener");
    let (stop_public, stops) = watch::channel(false);
    let serving = tokio::spawn(http::serve(listener, Arc::new(state), stops));
    tokio::spawn(say_ready(TcpListener::bind(admin).await.expect("a port")));
    stop.recv().await;
    stop_public.send(true).expect("a listener");
    serving.await.expect("a listener");
    app.stop().await;
}

/// A clock that passes like the real one, which valgrind does not survive: it reads the time from memory of the kernel that
/// valgrind hides.
fn ticking_clock() -> Clock {
    let clock = Clock::manual(Clock::Real.now_ms());
    let ticking = clock.clone();
    tokio::spawn(async move {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            let passed = last.elapsed().as_millis();
            ticking.advance_ms(u64::try_from(passed).expect("a short time"));
            last += Duration::from_millis(u64::try_from(passed).expect("a short time"));
        }
    });
    clock
}

async fn say_ready(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 1_024];
        // Whatever was asked.
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").await;
    }
}

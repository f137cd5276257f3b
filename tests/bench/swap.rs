//! Swapping modules under load: time from upload to live, and the times of requests with and without a swap.
//!
//! `tests/bench/run swap [--activations 100] [--seconds 60] [--connections 64]`

use std::path::Path;
use std::time::Duration;

use clap::Args;
use weir_tests::bench::report::{Aim, Report};
use weir_tests::client::Client;
use weir_tests::stand::{Setup, Stand};
use weir_tests::swap::{DEFAULT_BURST, SwapOptions, Swapped, quantile, swap, targets};

/// Swapping modules under load.
#[derive(Debug, Args)]
pub struct Options {
    /// Activations.
    #[arg(long, default_value_t = 100)]
    activations: u32,
    /// Seconds over which they are spread.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: i64,
}

/// Does it run?
pub fn smoke() -> Options {
    Options { activations: 8, seconds: 2, connections: 8 }
}

/// Runs it.
pub fn run(options: &Options, report: &mut Report) {
    let &Options { activations, seconds, connections } = options;
    let options = SwapOptions { connections, activations, time: Duration::from_secs(seconds) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stand = Stand::start(Setup::EmbeddedSqlite, targets()).await;
        let mut config = stand.config();
        config.toggles[0].settings.insert("limit-burst".into(), DEFAULT_BURST.into());
        // As it is by default.
        config.toggles[0].settings.insert("flush-age-ms".into(), "2000".into());
        let host = stand.host(&config);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let swapped = swap(host.public(), host.admin(), &root, options).await;
        Client::new(host.admin()).wait_drained(Duration::from_secs(120)).await;
        let difference = swapped.ledger.compare(&stand.database).await;
        print(&swapped, activations, difference.lost.len(), difference.doubled.len(), report);
        swapped.ledger.assert_holds(&stand.database).await;
    });
}

fn print(swapped: &Swapped, activations: u32, lost: usize, doubled: usize, report: &mut Report) {
    let rate = swapped.acks as f64 / swapped.elapsed.as_secs_f64();
    println!(
        "{activations} activations under {rate:.0} requests/s (embedded store, fdatasync; load, host and SQLite share this machine)"
    );
    println!("requests {} failed 0 lost {lost} doubled {doubled}", swapped.acks);
    println!("decided by the one {}, by the other {}", swapped.deciders.0, swapped.deciders.1);
    let line = |name: &str, sorted: &[f64]| {
        let (p50, p99) = (quantile(sorted, 0.5), quantile(sorted, 0.99));
        println!("{name:<44} p50 {p50:>7.2} ms   p99 {p99:>7.2} ms   ({})", sorted.len());
    };
    for (which, bytes) in swapped.bytes.iter().enumerate() {
        line(&format!("from upload to live, compiled, {bytes} bytes"), &swapped.compiled_ms[which]);
        line(&format!("to live, in the cache, {bytes} bytes"), &swapped.cached_ms[which]);
    }
    let ms = |micros: &[u32]| micros.iter().map(|micros| f64::from(*micros) / 1_000.0).collect::<Vec<f64>>();
    let (during, without) = (ms(&swapped.during_us), ms(&swapped.without_us));
    line("requests that met an activation", &during);
    line("all other requests", &without);
    report.aim("requests lost or doubled", (lost + doubled) as f64, Aim::AtMost(0.0));
    report.usual(
        "median of requests that met an activation, to others",
        quantile(&during, 0.5) / quantile(&without, 0.5),
        1.55,
    );
}

//! The benchmarks, one subcommand each: `tests/bench/run` builds what they need and calls them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

mod behind;
mod compare;
mod count;
mod flush;
mod lookup;
mod micro;
mod reads;
mod rooms;
mod scale;
mod swap;
mod tls;
mod toggle;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weir_tests::bench::contenders::Bare;
use weir_tests::bench::counted::served::serve_if_asked;
use weir_tests::bench::report::Report;

/// The benchmarks of weir.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// Does it run? Sizes and times are so small that figures mean nothing; a ratio that is far from the usual one fails.
    #[arg(long, global = true)]
    smoke: bool,
    // What cargo adds.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    Toggle(toggle::Options),
    Micro(micro::Options),
    Flush(flush::Options),
    Behind(behind::Options),
    Scale(scale::Options),
    Lookup(lookup::Options),
    Reads(reads::Options),
    Swap(swap::Options),
    Rooms(rooms::Options),
    Tls(tls::Options),
    Compare(compare::Options),
    Count(count::Options),
}

impl Benchmark {
    /// The same one, with the sizes of a smoke test.
    fn smoke(self) -> Self {
        match self {
            Self::Toggle(_) => Self::Toggle(toggle::smoke()),
            Self::Micro(_) => Self::Micro(micro::smoke()),
            Self::Flush(_) => Self::Flush(flush::smoke()),
            Self::Behind(_) => Self::Behind(behind::smoke()),
            Self::Scale(_) => Self::Scale(scale::smoke()),
            Self::Lookup(_) => Self::Lookup(lookup::smoke()),
            Self::Reads(_) => Self::Reads(reads::smoke()),
            Self::Swap(_) => Self::Swap(swap::smoke()),
            Self::Rooms(_) => Self::Rooms(rooms::smoke()),
            Self::Tls(_) => Self::Tls(tls::smoke()),
            // They have no size.
            Self::Compare(_) | Self::Count(_) => self,
        }
    }

    /// Runs it; its name. What counts says itself how it ended.
    fn run(self, report: &mut Report) -> Result<&'static str, ExitCode> {
        let name = match self {
            Self::Toggle(options) => {
                toggle::run(&options, report);
                "toggle"
            }
            Self::Micro(options) => {
                micro::run(&options, report);
                "micro"
            }
            Self::Flush(options) => {
                flush::run(&options, report);
                "flush"
            }
            Self::Behind(options) => {
                behind::run(&options, report);
                "behind"
            }
            Self::Scale(options) => {
                scale::run(&options, report);
                "scale"
            }
            Self::Lookup(options) => {
                lookup::run(&options, report);
                "lookup"
            }
            Self::Reads(options) => {
                reads::run(&options, report);
                "reads"
            }
            Self::Swap(options) => {
                swap::run(&options, report);
                "swap"
            }
            Self::Rooms(options) => {
                rooms::run(&options, report);
                "rooms"
            }
            Self::Tls(options) => {
                tls::run(&options, report);
                "tls"
            }
            Self::Compare(options) => {
                compare::run(&options, report);
                "compare"
            }
            Self::Count(options) => return Err(count::run(&options)),
        };
        Ok(name)
    }
}

fn main() -> ExitCode {
    Bare::serve_if_asked();
    serve_if_asked();
    let Cli { benchmark, smoke, .. } = Cli::parse();
    let (benchmark, mut report) =
        if smoke { (benchmark.smoke(), Report::smoke()) } else { (benchmark, Report::default()) };
    match benchmark.run(&mut report) {
        Ok(name) => report.finish(name),
        Err(ended) => ended,
    }
}

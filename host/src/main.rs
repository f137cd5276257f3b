//! The weir binary. Everything is in the library.

fn main() -> std::process::ExitCode {
    weir::cli::run()
}

//! The weir binary. Everything is in the library.

/// A request makes some twenty small allocations, which one thread makes and another frees: made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir::cli::run()
}

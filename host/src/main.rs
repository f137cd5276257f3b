//! The weir binary. Everything is in the library.

/// A request makes some twenty small allocations, which one thread makes and another frees: made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2 and 3, which the crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long freed memory is kept for reuse, in milliseconds. With 0, each page of a batch's buffers and requests goes
/// back to the kernel and is faulted in again for the next batch (1.2 page faults per request, and an interrupt of the
/// other cores for each return). mimalloc's default of one second keeps it longer than is useful.
const PURGE_DELAY_MS: std::ffi::c_long = 100;

fn main() -> std::process::ExitCode {
    give_back_soon();
    weir::cli::run()
}

/// The environment (`MIMALLOC_PURGE_DELAY`) wins.
#[allow(unsafe_code, reason = "the option has no other way in but the environment, which is read before main")]
fn give_back_soon() {
    // SAFETY: sets a number among mimalloc's options; allowed at any time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

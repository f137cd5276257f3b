//! The weir binary. Everything is in the library.

/// A request makes some twenty small allocations, which one thread makes and another frees: made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2 and 3, which the crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> std::process::ExitCode {
    give_back_at_once();
    weir::cli::run()
}

/// A flush takes and frees large buffers again and again. With the default delay of 10 ms mimalloc kept 240 MB where 145
/// MB were needed, at the same speed.
#[allow(unsafe_code, reason = "the option has no other way in but the environment, which is read before main")]
fn give_back_at_once() {
    // SAFETY: sets a number among mimalloc's options; allowed at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
}

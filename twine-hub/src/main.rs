//! The binary: see [`twine_hub::cli`].

use std::process::ExitCode;

// musl's own allocator costs an order of magnitude on the publish path.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // With huge pages each thread's heap takes 2 MiB at least, and gives none of it back for what it
    // frees: an idle hub of 10,000 connections took 40 % more. A kernel without them refuses, which
    // comes to the same.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    twine_hub::cli::run()
}

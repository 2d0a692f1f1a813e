//! The binary: see [`twine_hub::cli`].

use std::process::ExitCode;

// musl's own allocator costs an order of magnitude on the publish path.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    twine_hub::cli::run()
}

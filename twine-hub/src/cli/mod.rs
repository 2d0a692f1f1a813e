//! The command line.

mod bench;
mod flags;
mod healthcheck;
mod init_store;
mod key;
mod publish;
mod serve;
mod signals;
mod tail;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::flags::Flags;
use crate::config::{self, Config, Loaded, Sources};
use crate::hub;

/// Real-time as a service that you own.
#[derive(Debug, Parser)]
#[command(name = "twine-hub", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Reads settings from FILE in place of `twine.toml`.
    #[arg(long, value_name = "FILE", env = config::CONFIG_VARIABLE, global = true)]
    config: Option<PathBuf>,
    /// Prints the settings in force and where each comes from, and ends.
    #[arg(long, global = true)]
    print_config: bool,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Configured(Configured),
    /// A process of a `bench`, which tells it what to do.
    #[command(name = bench::WORKER, hide = true)]
    BenchWorker,
}

/// Commands that the configuration is read for.
#[derive(Debug, Subcommand)]
enum Configured {
    /// Runs the hub; what happens without a command.
    Serve,
    /// Publishes a message and prints its position.
    Publish(publish::Publish),
    /// Prints the messages of a room as they come, a line of JSON each.
    Tail(tail::Tail),
    /// Loads hubs with connections and messages, and counts what comes of it.
    Bench(bench::Bench),
    /// Makes the table of a fleet's `store`, where it is not there yet.
    InitStore,
    /// Asks the hub of this configuration whether it lives; ends with 0 or 1.
    Healthcheck,
}

/// Which hub a command talks to.
#[derive(Debug, Args)]
struct Target {
    /// The hub's address; without it the one that `listen` names on this machine.
    #[arg(long, value_name = "URL", env = config::URL_VARIABLE)]
    url: Option<String>,
}

impl Target {
    fn url(&self, config: &Config) -> String {
        self.url.clone().unwrap_or_else(|| format!("http://{}", hub::reachable(config.listen)))
    }

    fn is_this_machine(&self) -> bool {
        self.url.is_none()
    }
}

/// Why a command failed; `Usage` is what clap's own errors end with.
enum Failure {
    Usage(String),
    Failed(String),
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    let command = match arguments.command {
        // Who has started it has read the configuration, which may be another one here.
        Some(Command::BenchWorker) => return bench::worker::run(),
        Some(Command::Configured(command)) => command,
        None => Configured::Serve,
    };
    let loaded = load(arguments.flags, arguments.config)?;
    if arguments.print_config {
        print(loaded.to_string().trim_end())?;
        return Ok(());
    }
    match command {
        Configured::Serve => serve::run(loaded),
        Configured::Publish(publish) => publish::run(&publish, &loaded.config),
        Configured::Bench(bench) => bench::run(&bench, &loaded.config),
        Configured::Tail(tail) => tail::run(tail, &loaded.config),
        Configured::InitStore => init_store::run(&loaded.config),
        Configured::Healthcheck => healthcheck::run(loaded.config.listen),
    }
}

fn load(flags: Flags, file: Option<PathBuf>) -> Result<Loaded, Failure> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    config::load(&Sources { flags: flags.0, environment, file, read: &|path| std::fs::read_to_string(path) })
        .map_err(|problems| Failure::Usage(format!("the configuration is not valid:\n{problems}")))
}

/// Whether anybody reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    /// Whoever read it has enough, which is no failure.
    Closed,
}

/// Writes lines to standard output.
fn print(text: &str) -> Result<Output, Failure> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Ok(()) => Ok(Output::Open),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Output::Closed),
        Err(error) => Err(Failure::Failed(format!("can't write the output: {error}"))),
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

//! The program: parses its arguments, runs a command, and prints an error once. Exit codes: 0 done,
//! 1 failed, 2 wrong usage, 3 the answer is no.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::future::Future;
use std::process::ExitCode;

use clap::Parser as _;
use pod_checkpointer::args::{Arguments, Command, LogFormat};
use pod_checkpointer::cli::{self, Answer, drill};
use pod_checkpointer::node::process;
use pod_checkpointer::{agent, console, operator, supervisor};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // wrong usage ends the process here, with 2
    let arguments = Arguments::parse();
    // keys and unsealed checkpoints pass through memory, and must not end up in a core dump
    if let Err(error) = process::keep_to_itself() {
        console::note(format_args!(
            "pod-checkpointer: cannot disable core dumps: {error}"
        ));
    }
    match run(arguments) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(3),
        Err(error) => {
            console::note(format_args!("pod-checkpointer: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(
    Arguments {
        command,
        log_format,
    }: Arguments,
) -> anyhow::Result<Answer> {
    let done = |()| Answer::Yes;
    match command {
        Command::Agent(arguments) => {
            log(log_format);
            block_on(async { Ok(agent::start(arguments, log_format, stop()?).await?) }).map(done)
        }
        Command::Supervisor(arguments) => {
            log(log_format);
            block_on(async { Ok(Box::pin(supervisor::run(arguments, stop()?)).await?) }).map(done)
        }
        Command::Operator(arguments) => {
            log(log_format);
            block_on(async { Ok(Box::pin(operator::start(arguments, stop()?)).await?) }).map(done)
        }
        Command::Status(arguments) => cli::status(&arguments),
        Command::Show(arguments) => cli::show(&arguments),
        Command::Verify(arguments) => cli::verify(&arguments),
        Command::Export(arguments) => cli::export(&arguments),
        Command::Import(arguments) => cli::import(&arguments),
        Command::Render(arguments) => match arguments.live.clone() {
            Some(pod) => block_on(cli::render_live(&arguments, &pod)),
            None => cli::render(&arguments),
        },
        Command::Drill(arguments) => {
            let node = drill::find(&arguments.node.host)?;
            block_on(async { Box::pin(drill::drill(&arguments, node, stop()?)).await })
        }
        Command::Hold(arguments) => block_on(async { Ok(drill::hold(&arguments, stop()?).await) }),
        Command::DrillSwitch(arguments) => block_on(drill::switch(&arguments)),
        Command::Uninstall(arguments) => cli::uninstall(&arguments),
        Command::Crd(arguments) => cli::crd(&arguments),
        Command::Manifests(arguments) => cli::manifests(&arguments),
    }
}

/// Runs on one thread: every part waits most of the time, and each thread costs memory.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Completes at the first SIGTERM or SIGINT.
fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn log(format: LogFormat) {
    let quiet = "info,hyper=warn,hyper_util=warn,tower=warn,kube=warn,kube_client=warn,kube_runtime=warn,h2=warn";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // that would be printed to the same standard error, and panic if it is closed
        .log_internal_errors(false);
    match format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

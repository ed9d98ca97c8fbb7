//! See the library of this crate.

use std::process::ExitCode;

use clap::Parser;
use durable_spans_cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("durable-spans: {error:#}");
            ExitCode::FAILURE
        }
    }
}

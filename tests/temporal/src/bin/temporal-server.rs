//! Starts (or finds) a Temporal server, prints its address and waits for Ctrl-C.

use std::{env, process::ExitCode};

use durable_spans_test_server::{ServerOptions, TemporalServer};

const USAGE: &str = "\
Starts a Temporal server with its web UI, prints both addresses and waits for Ctrl-C.
With TEMPORAL_ADDRESS set and no arguments, checks and prints that server instead.

Usage: temporal-server [--port PORT] [ARGUMENT OF `temporal server start-dev`]...";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match options(env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut server = match options.start().await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        biased; // so that Ctrl-C is listened for before anybody has read the address
        _ = tokio::signal::ctrl_c() => {}
        () = announce(&mut server) => {
            eprintln!("error: the server ended:\n{}", server.log());
            return ExitCode::FAILURE;
        }
    }
    server.stop().await;
    ExitCode::SUCCESS
}

/// Returns when the server ends.
async fn announce(server: &mut TemporalServer) {
    println!("TEMPORAL_ADDRESS={}", server.address());
    if let Some(url) = server.ui_url() {
        println!("web UI: {url}");
    }
    server.ended().await;
}

fn options(args: impl Iterator<Item = String>) -> Result<ServerOptions, String> {
    let mut options = TemporalServer::options().ui(true);
    let mut args = args;
    while let Some(arg) = args.next() {
        options = match arg.as_str() {
            "-h" | "--help" => return Err(USAGE.into()),
            "-p" | "--port" => {
                let port = args.next().and_then(|port| port.parse().ok());
                options.port(port.ok_or("--port needs a number from 1 to 65535")?)
            }
            _ => options.arg(arg),
        };
    }
    Ok(options)
}

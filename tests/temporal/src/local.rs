//! Starting a server on this machine.

mod cache;
mod download;
#[cfg(test)]
mod fake;
mod find;
mod ports;
mod process;
mod tool;

use std::{ffi::OsString, net::Ipv4Addr, path::Path, time::Duration};

use temporalio_client::Url;
use tokio::net::TcpStream;

pub(crate) use self::{find::program, process::ServerProcess};

use self::ports::Ports;
use crate::{
    ServerOptions, TemporalServer,
    environment::Environment,
    error::{Reason, Tried},
    ready::{self, Backoff},
};

/// It takes half a second on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often a server is started anew because somebody else had taken one of its ports.
const TRIES: u32 = 5;

/// What the `temporal` command says then, for each of its ports.
const PORT_TAKEN: &str = "address already in use";

/// Finds the `temporal` command and starts a server with it.
pub(crate) async fn start(
    options: &ServerOptions,
    environment: &Environment,
    tried: Tried,
) -> Result<TemporalServer, Reason> {
    let program = program(environment, tried).await?;
    launch(&program, options, Ports::free).await
}

async fn launch(
    program: &Path,
    options: &ServerOptions,
    mut free_ports: impl FnMut() -> std::io::Result<Ports>,
) -> Result<TemporalServer, Reason> {
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        let mut ports = free_ports().map_err(Reason::Ports)?;
        ports.grpc = options.port.unwrap_or(ports.grpc);
        match launch_at(program, options, ports).await {
            Err(Reason::Ended { port_taken: true, .. }) if tries_left > 0 => {
                tracing::debug!("a port was taken before the server had it, trying others");
            }
            outcome => return outcome,
        }
    }
}

async fn launch_at(
    program: &Path,
    options: &ServerOptions,
    ports: Ports,
) -> Result<TemporalServer, Reason> {
    let path = || program.to_owned();
    let mut process = ServerProcess::spawn(program, arguments(options, ports))
        .map_err(|source| Reason::Spawn { path: path(), source })?;
    let url = local_url(ports.grpc);
    let mut backoff = Backoff::until(READY_WITHIN);
    loop {
        let probe = tokio::select! {
            probe = probe(&url, options.ui.then_some(ports.ui)) => probe,
            () = process.ended() => Err("it ended".into()),
        };
        if process.has_ended() {
            let port_taken = process.complained(PORT_TAKEN);
            return Err(Reason::Ended { path: path(), log: process.log(), port_taken });
        }
        let cause = match probe {
            Err(cause) => cause,
            // Another server at a port that was taken from us would answer as well.
            Ok(()) if !process.announced(ports.grpc) => "it has not said where it listens".into(),
            Ok(()) => break,
        };
        if !backoff.wait().await {
            let log = process.log();
            return Err(Reason::NotReady { path: path(), waited: READY_WITHIN, cause, log });
        }
    }
    let ui_url = options.ui.then(|| format!("http://{}:{}", Ipv4Addr::LOCALHOST, ports.ui));
    Ok(TemporalServer::new(url, ui_url, Some(process)))
}

fn arguments(options: &ServerOptions, ports: Ports) -> Vec<OsString> {
    let mut args: Vec<OsString> =
        ["server", "start-dev", "--ip", "127.0.0.1"].map(Into::into).into();
    args.extend(["--port".into(), ports.grpc.to_string().into()]);
    if options.ui {
        args.extend(["--ui-port".into(), ports.ui.to_string().into()]);
    } else {
        args.push("--headless".into());
    }
    if let Some(path) = &options.db_filename {
        args.extend(["--db-filename".into(), path.into()]);
    }
    args.extend(["--log-level", "error"].map(Into::into));
    // It would ask a host on the internet for the newest version.
    args.extend(
        ["--dynamic-config-value", "frontend.enableServerVersionCheck=false"].map(Into::into),
    );
    args.extend(options.args.iter().cloned());
    args
}

fn local_url(port: u16) -> Url {
    let text = format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
    Url::parse(&text).expect("an address with any port is a URL")
}

async fn probe(url: &Url, ui_port: Option<u16>) -> Result<(), String> {
    ready::probe(url).await?;
    if let Some(port) = ui_port {
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        connected.map_err(|error| format!("the web UI: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn real() -> std::path::PathBuf {
        program(&Environment::of_this_process(), Tried::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_taken_port_is_replaced_and_the_server_on_it_is_not_mistaken_for_ours() {
        let program = real().await;
        let options = TemporalServer::options().ui(true);
        let first = launch(&program, &options, Ports::free).await.unwrap();
        let ui = Url::parse(first.ui_url().unwrap()).unwrap().port().unwrap();
        let mut tries = 0;
        let second = launch(&program, &options, || {
            tries += 1;
            let free = Ports::free()?;
            Ok(match tries {
                1 => Ports { grpc: first.port(), ..free },
                2 => Ports { ui, ..free },
                _ => free,
            })
        });
        let second = second.await.unwrap();
        assert_eq!(tries, 3);
        assert_ne!(first.port(), second.port());
        second.client().await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_stays_taken_is_an_error_with_what_the_server_said() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = TemporalServer::options().port(port);
        let error = launch(&real().await, &options, Ports::free).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("127.0.0.1:{port}: bind: address already in use")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_that_ends_early_is_an_error_with_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("temporal");
        fake::executable(&program, "echo no coffee >&2; exit 3");
        let started = launch(&program, &TemporalServer::options(), Ports::free).await;
        let Err(Reason::Ended { path, log, port_taken: false }) = started else {
            panic!("{started:?}")
        };
        assert_eq!(path, program);
        assert_eq!(log, "no coffee\nthe server ended with status 3\n");
    }
}

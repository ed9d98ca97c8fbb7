use std::io::{self, IsTerminal, Write};

use durable_spans_collector::{Collector, RunningCollector};
use tracing::Level;

use crate::args::Serve;

/// Serves until told to stop.
pub(crate) async fn serve(args: Serve) -> anyhow::Result<()> {
    // Told apart from the greeting, which programs read.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(Level::INFO)
        .init();
    let mut collector = Collector::open(&args.db)?.temporal_ui(args.temporal_ui);
    let with_key = args.api_key.is_some();
    if let Some(key) = args.api_key {
        collector = collector.api_key(key);
    }
    if let Some(age) = args.max_age {
        collector = collector.max_age(age);
    }
    if let Some(bytes) = args.max_size {
        collector = collector.max_bytes(bytes);
    }
    if let Some(requests) = args.max_requests_per_second {
        collector = collector.max_requests_per_second(requests);
    }
    if let Some(requests) = args.max_requests_in_flight {
        collector = collector.max_requests_in_flight(requests);
    }
    // Before anybody is told that it serves, so that nobody can send the signal too early.
    let stop = stop_signal()?;
    let running = collector.serve((args.host, args.port)).await?;
    // Whoever closed our stdout can still use the collector.
    let _ = write!(io::stdout(), "{}", greeting(&running, &args.db.to_string_lossy(), with_key));
    stop.await;
    running.shutdown().await;
    Ok(())
}

fn greeting(running: &RunningCollector, db: &str, with_key: bool) -> String {
    let url = running.url();
    let rest = if with_key {
        "and SGP_API_KEY to the key of this collector, SGP_ACCOUNT_ID to anything"
    } else {
        "and SGP_API_KEY and SGP_ACCOUNT_ID to anything, where the client asks for them"
    };
    format!(
        "serving {db} at {url}\n\
         see the traces there: open {url}/ in a browser\n\
         point the SDK at it: SGP_CLIENT_BASE_URL={url}\n\
         {rest}\n\
         stop with Ctrl-C\n"
    )
}

/// Completes with the first Ctrl-C or SIGTERM from now on.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

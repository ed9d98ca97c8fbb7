//! durable-spans beside its peers: the same work in turns, against one Temporal server and one
//! sink.
//!
//! ```text
//! cargo run --release --bin bench-peers                  # everything, about 10 minutes
//! cargo run --release --bin bench-peers -- --quick       # under two minutes once all is built
//! cargo run --release --bin bench-peers -- --json        # for programs
//! ```
//!
//! The peers are the real ones: scale-gp-beta and the OpenTelemetry plugin of Temporal's Python SDK from
//! PyPI, in a virtual environment under the target folder, and the OpenTelemetry plugin of the Rust SDK,
//! built by cargo. A ratio is our figure divided by the peer's, turn by turn.

mod crew;
mod ladder;
mod protocol;
mod row;
mod sample;
mod setup;
mod sink;
mod stage;
mod suites;
mod throughput;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{protocol::Job, stage::Stage};

/// Measures durable-spans beside its peers, and prints ratios.
#[derive(Parser)]
struct Arguments {
    /// Fewer turns, and without the ladders of sizes: under two minutes once all is built.
    #[arg(long)]
    quick: bool,
    /// Prints a list of objects with name, unit, ours, peer, peer_name and ratio instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each side has its turn. Default: 5, quick 2.
    #[arg(long)]
    turns: Option<usize>,
    /// Only the suites whose name holds this: thousand, ten, steps, calls, throughput, stored, ladder.
    #[arg(long)]
    only: Option<String>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The processes that this program starts of itself.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Work { job: String },
    #[command(hide = true)]
    Deliver { sink: String, spans: u32 },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Work { job }) => work::work(serde_json::from_str::<Job>(job)?).await,
        Some(Role::Deliver { sink, spans }) => throughput::deliver(sink, *spans).await,
        None => compare(&arguments).await,
    }
}

async fn compare(arguments: &Arguments) -> Result<()> {
    let turns = arguments.turns.unwrap_or(if arguments.quick { 2 } else { 5 }).max(1);
    let spans = if arguments.quick { 100_000 } else { 400_000 };
    let wanted = |suite: &str| {
        let wanted = arguments.only.as_ref().is_none_or(|only| suite.contains(only.as_str()));
        if wanted {
            eprintln!("{suite}");
        }
        wanted
    };
    let mut stage = Stage::set().await?;
    let mut rows = Vec::new();
    if wanted("thousand") {
        rows.extend(suites::thousand(&mut stage, turns).await?);
    }
    if wanted("ten") {
        rows.extend(suites::ten(&mut stage).await?);
    }
    if wanted("steps") {
        rows.extend(suites::steps(&mut stage, turns).await?);
    }
    if wanted("calls") {
        rows.extend(suites::calls(&mut stage, turns.div_ceil(2)).await?);
    }
    if wanted("throughput") {
        rows.extend(throughput::throughput(&stage, turns, spans).await?);
    }
    if wanted("stored") {
        rows.extend(throughput::stored(turns.div_ceil(2), spans / 2).await?);
    }
    if !arguments.quick && wanted("ladder") {
        rows.extend(ladder::ladders(&mut stage).await?);
    }
    if arguments.json {
        println!("{}", row::json(&rows)?);
    } else {
        println!("{}", row::table(&rows));
        println!("peers: {}", setup::Python::versions().trim().replace('\n', ", "));
    }
    Ok(())
}

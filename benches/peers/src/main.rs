//! durable-spans beside its peers: the same work in turns, against one Temporal server and one
//! sink.
//!
//! ```text
//! cargo run --release --bin bench-peers                  # everything, about 10 minutes once all is built
//! cargo run --release --bin bench-peers -- --quick       # one and a half minutes once all is built
//! cargo run --release --bin bench-peers -- --json        # for programs
//! ```
//!
//! The peers are the real ones: scale-gp-beta and the OpenTelemetry plugin of Temporal's Python SDK from
//! PyPI, in a virtual environment under the target folder, and the OpenTelemetry plugin of the Rust SDK,
//! built by cargo. A ratio is our figure divided by the peer's, turn by turn, and the order of the sides
//! is another one in each turn.
//!
//! The processor time is that of the whole worker process, the SDK's own, HTTP and compression included,
//! less what the same worker needs for the same runs without tracing: what tracing costs. That is so for
//! each side, and for the bytes and events of history. The ladders of sizes run on our side alone; beside
//! each rung they print the straight line through all of them.

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

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::{crew::Side, protocol::Job, stage::Stage};

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
    Deliver { sink: String, spans: u32, worker: u32 },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Work { job }) => work::work(serde_json::from_str::<Job>(job)?).await,
        Some(Role::Deliver { sink, spans, worker }) => {
            throughput::deliver(sink, *spans, *worker).await
        }
        None => compare(&arguments).await,
    }
}

async fn compare(arguments: &Arguments) -> Result<()> {
    let quick = arguments.quick;
    let turns = arguments.turns.unwrap_or(if quick { 2 } else { 5 }).max(1);
    let (spans, runs) = if quick { (100_000, 300) } else { (400_000, 1_000) };
    let wanted = |suite: &Suite| {
        let named = arguments.only.as_ref().is_none_or(|only| suite.name().contains(only.as_str()));
        named && !(quick && matches!(suite, Suite::Ladder))
    };
    let suites: Vec<Suite> = Suite::ALL.into_iter().filter(wanted).collect();
    ensure!(!suites.is_empty(), "no suite is called so: see --help for their names");
    let sides: Vec<Side> = Side::ALL
        .into_iter()
        .filter(|side| suites.iter().any(|suite| suite.sides().contains(side)))
        .collect();
    let mut stage = Stage::set(&sides).await?;
    let mut rows = Vec::new();
    for suite in suites {
        let began = Instant::now();
        rows.extend(match suite {
            Suite::Thousand => suites::thousand(&mut stage, turns).await?,
            Suite::Ten => suites::ten(&mut stage).await?,
            Suite::Steps => suites::steps(&mut stage, turns).await?,
            Suite::Calls => suites::calls(&mut stage, turns.div_ceil(2), runs).await?,
            Suite::Throughput => throughput::throughput(&stage, turns, spans).await?,
            Suite::Stored => throughput::stored(turns.div_ceil(2), spans / 2).await?,
            Suite::Ladder => ladder::ladders(&mut stage).await?,
        });
        eprintln!("{}: {:.0} s", suite.name(), began.elapsed().as_secs_f64());
    }
    if arguments.json {
        println!("{}", row::json(&rows)?);
    } else {
        println!("{}", row::table(&rows));
        println!("peers: {}", setup::Python::versions().trim().replace('\n', ", "));
    }
    Ok(())
}

/// What can be measured for itself.
#[derive(Clone, Copy)]
enum Suite {
    Thousand,
    Ten,
    Steps,
    Calls,
    Throughput,
    Stored,
    Ladder,
}

impl Suite {
    const ALL: [Self; 7] = [
        Self::Thousand,
        Self::Ten,
        Self::Steps,
        Self::Calls,
        Self::Throughput,
        Self::Stored,
        Self::Ladder,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Thousand => "thousand",
            Self::Ten => "ten",
            Self::Steps => "steps",
            Self::Calls => "calls",
            Self::Throughput => "throughput",
            Self::Stored => "stored",
            Self::Ladder => "ladder",
        }
    }

    /// Whose workers it needs.
    fn sides(self) -> &'static [Side] {
        match self {
            Self::Thousand | Self::Ten => suites::IN_WORKFLOWS,
            Self::Steps => suites::IN_ACTIVITIES,
            Self::Calls => &[Side::Ours, Side::Seed],
            Self::Throughput | Self::Stored => &[],
            Self::Ladder => &[Side::Ours, Side::Untraced],
        }
    }
}

//! The main job, end to end: a traced pipeline on a real Temporal server.
//!
//! `cargo run --example quickstart` digests the texts of this repository: a parent workflow fans
//! out one child workflow per folder, activities read, rank and summarise, one of them fails and
//! is retried, and the parent merges and continues as a new run. A collector in this process keeps
//! the spans, which come to it over HTTP as they would to Scale's SGP.
//!
//! Read `pipeline.rs` for spans in workflow code, `activities.rs` for those in activities, and
//! `job.rs` for how it is put together.

mod activities;
mod cost;
mod files;
mod job;
mod pipeline;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod text;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser, error::ErrorKind};
use futures::{FutureExt, future::BoxFuture, future::Shared};
use tracing_subscriber::EnvFilter;

use crate::{files::Corpus, job::Job};

/// Runs a traced pipeline over text files on a real Temporal server and shows its trace.
///
/// The server is found or started as the README says, and stopped at the end. RUST_LOG shows the
/// worker's log.
#[derive(Parser)]
#[command(name = "quickstart", override_usage = "quickstart [--input DIR] [--json] [--keep]")]
struct Options {
    /// Folder with the text files to read [default: the .md and .rs files of this repository]
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Print one JSON object on stdout, everything else on stderr
    #[arg(long)]
    json: bool,
    /// Leave collector and server up until Ctrl-C, the server with its web UI
    #[arg(long)]
    keep: bool,
}

/// As a shell has it for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
        log.with_writer(io::stderr).init();
    }
    let corpus = options.corpus().unwrap_or_else(|reason| {
        Options::command().error(ErrorKind::ValueValidation, format!("--input: {reason}")).exit()
    });
    match quickstart(&options, &corpus).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quickstart failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn corpus(&self) -> Result<Corpus, String> {
        match &self.input {
            Some(folder) => Corpus::find(folder, &[]),
            None => Corpus::find(Path::new(env!("CARGO_MANIFEST_DIR")), &["md", "rs"]),
        }
    }
}

type Interrupt = Shared<BoxFuture<'static, ()>>;

/// Resolves at Ctrl-C. At a second one the process ends at once, and the server with it.
fn interrupt() -> Interrupt {
    // One listener for the whole job, so that no Ctrl-C gets lost between two.
    let interrupt = tokio::signal::ctrl_c().map(drop).boxed().shared();
    let first = interrupt.clone();
    tokio::spawn(async move {
        first.await;
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(INTERRUPTED.into());
        }
    });
    interrupt
}

async fn quickstart(options: &Options, corpus: &Corpus) -> Result<ExitCode> {
    let interrupt = interrupt();
    let (groups, files) = (corpus.groups.len(), corpus.file_count());
    eprintln!("digesting {files} files in {groups} groups below {}", corpus.root.display());
    corpus.notes.iter().for_each(|note| eprintln!("  {}", text::printable(note)));
    eprintln!("starting a collector and a Temporal server");
    let job = tokio::select! {
        job = Job::start(options.keep) => job?,
        () = interrupt.clone() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let result = with(&job, options, corpus, interrupt).await;
    eprintln!("stopping");
    job.stop().await;
    result
}

async fn with(
    job: &Job,
    options: &Options,
    corpus: &Corpus,
    interrupt: Interrupt,
) -> Result<ExitCode> {
    let Some(outcome) = job.run(corpus, interrupt.clone()).await? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if options.json {
        outcome.write_text(&mut io::stderr())?;
        outcome.write_json(&mut io::stdout())?;
    } else {
        outcome.write_text(&mut io::stdout())?;
    }
    if options.keep {
        let (server, ui) = job.server_urls();
        eprintln!("collector:    {}", job.collector_url());
        eprintln!("this trace:   {}/traces/{}", job.collector_url(), outcome.trace_id);
        eprintln!("Temporal:     {server}");
        eprintln!("Temporal UI:  {}", ui.unwrap_or("none, since the server was not started here"));
        eprintln!("Ctrl-C stops all");
        interrupt.await;
    }
    if outcome.is_complete() {
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("not every span is accounted for or delivered");
        Ok(ExitCode::FAILURE)
    }
}

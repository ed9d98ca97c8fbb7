use std::{net::IpAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use durable_spans_model::TraceId;
use reqwest::Url;

use crate::{
    backfill::{self, BackfillArgs},
    doctor::{self, DoctorArgs},
    quantity, serve, traces, transfer, watch,
};

/// Keep and read the spans of Temporal workflows
#[derive(Parser)]
#[command(name = "durable-spans", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Does what was asked for. Serving goes on until Ctrl-C or SIGTERM.
    ///
    /// # Errors
    ///
    /// With a message for the user, who reads it after the name of the command.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve::serve(serve).await,
            Command::Traces(TracesCommand::List(list)) => traces::list(list).await,
            Command::Traces(TracesCommand::Show(show)) => traces::show(show).await,
            Command::Backfill(backfill) => backfill::backfill(*backfill).await,
            Command::Doctor(doctor) => doctor::doctor(doctor).await,
            Command::Traces(TracesCommand::Watch(watch)) => watch::watch(watch).await,
            Command::Traces(TracesCommand::Export(export)) => transfer::export(export).await,
            Command::Traces(TracesCommand::Import(import)) => transfer::import(import).await,
            Command::Completions { shell } => {
                let mut command = Self::command();
                let name = command.get_name().to_owned();
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, name, &mut script);
                traces::print(std::io::stdout(), &String::from_utf8_lossy(&script)).map(drop)
            }
        }
    }
}

// Nothing that may hold a key derives `Debug`.
#[derive(Subcommand)]
enum Command {
    /// Run a collector: SGP's spans API over one SQLite file, and a page that shows the traces
    Serve(Serve),
    /// Read traces from a collector
    #[command(subcommand)]
    Traces(TracesCommand),
    Backfill(Box<BackfillArgs>),
    Doctor(DoctorArgs),
    /// Print the completions of a shell, such as `source <(durable-spans completions bash)`
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8790)]
    pub(crate) port: u16,
    /// Address to listen on; other than loopback only with an API key
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// File that keeps the spans, made if it does not exist
    #[arg(long, default_value = "durable-spans.sqlite")]
    pub(crate) db: PathBuf,
    /// Key that clients must send; better in the variable, since others can read a command line
    #[arg(long, env = "DURABLE_SPANS_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Base URL of Temporal's own web page, which the traces page links to
    #[arg(long, env = "TEMPORAL_UI_URL", default_value = "http://localhost:8233")]
    pub(crate) temporal_ui: Url,
    /// Forget traces that got no span for so long, such as 7d; kept for ever by default
    #[arg(long, value_parser = quantity::duration)]
    pub(crate) max_age: Option<Duration>,
    /// Forget the oldest traces when the file is bigger, such as 2GB; no limit by default
    #[arg(long, value_parser = quantity::bytes)]
    pub(crate) max_size: Option<u64>,
    /// Requests to serve per second; further ones are told to come back; no limit by default
    #[arg(long)]
    pub(crate) max_requests_per_second: Option<NonZeroU32>,
    /// Requests to serve at the same time; further ones are told to come back; 256 by default
    #[arg(long)]
    pub(crate) max_requests_in_flight: Option<NonZeroU32>,
}

#[derive(Subcommand)]
enum TracesCommand {
    /// List traces by their root spans, newest first
    List(List),
    /// Show the spans of a trace as a tree
    Show(Show),
    /// Print traces as they begin and end, or the spans of one, until Ctrl-C
    Watch(Watch),
    /// Write a trace, or all traces that a query finds, to a file; from a collector
    Export(Export),
    /// Send the spans of a file: JSON lines, OTLP's JSON or CSV, as `export` writes them
    Import(Import),
}

#[derive(Args)]
pub(crate) struct List {
    /// Most traces to list
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Args)]
pub(crate) struct Show {
    /// Id of the trace
    pub(crate) trace_id: TraceId,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Args)]
pub(crate) struct Watch {
    /// Id of a trace; without one, all traces are watched
    pub(crate) trace_id: Option<TraceId>,
    /// Print each span as JSON on a line of its own, as the server sent it
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Args)]
pub(crate) struct Export {
    /// Id of the trace
    #[arg(required_unless_present = "query", conflicts_with = "query")]
    pub(crate) trace_id: Option<TraceId>,
    /// What the traces page could search for, such as 'name:order status:error tenant:acme'; ''
    /// finds all
    #[arg(long, short)]
    pub(crate) query: Option<String>,
    /// How spans are written
    #[arg(long, short, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(crate) format: ExportFormat,
    /// File to write, which is replaced if it exists; stdout if not given
    #[arg(long, short)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One span a line, as it is stored
    Jsonl,
    /// OTLP's JSON, one request a line
    Otlp,
    /// For spreadsheets; a cell that would be a formula gets an apostrophe before it, which
    /// `import` takes off again
    Csv,
    /// A nested tree, with long texts cut, for a language model; of one trace
    Compact,
}

impl ExportFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Otlp => "otlp",
            Self::Csv => "csv",
            Self::Compact => "compact",
        }
    }
}

#[derive(Args)]
pub(crate) struct Import {
    /// File of JSON lines, of OTLP's JSON (one request a line) or CSV; - reads stdin
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Args)]
pub(crate) struct Format {
    /// Print the spans as a JSON array, as the server sent them
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the spans are, in the variables of SGP's own clients.
#[derive(Args)]
pub(crate) struct Server {
    /// URL of the collector
    #[arg(long, env = "SGP_CLIENT_BASE_URL", default_value = "http://127.0.0.1:8790")]
    pub(crate) url: Url,
    /// Key to send, if the collector asks for one; better in the variable
    #[arg(long, env = "SGP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Account to read; a collector does not look at it
    #[arg(long, env = "SGP_ACCOUNT_ID")]
    pub(crate) account_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_never_shows_a_key() {
        let traces = ["list", "show", "watch", "export", "import"].map(|name| vec!["traces", name]);
        for path in traces.into_iter().chain([vec!["serve"], vec!["backfill"]]) {
            let mut command = Cli::command();
            let command = path
                .iter()
                .fold(&mut command, |command, name| command.find_subcommand_mut(name).unwrap());
            let key = command.get_arguments().find(|arg| arg.get_id() == "api_key").unwrap();
            assert!(key.is_hide_env_values_set(), "{path:?}");
        }
    }
}

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use durable_spans_model::TraceId;
use reqwest::Url;

use crate::{
    backfill::{self, BackfillArgs},
    serve, traces,
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
        }
    }
}

// Nothing that may hold a key derives `Debug`.
#[derive(Subcommand)]
enum Command {
    /// Run a collector: SGP's spans API over one SQLite file
    Serve(Serve),
    /// Read traces from a collector
    #[command(subcommand)]
    Traces(TracesCommand),
    Backfill(Box<BackfillArgs>),
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
}

#[derive(Subcommand)]
enum TracesCommand {
    /// List traces by their root spans, newest first
    List(List),
    /// Show the spans of a trace as a tree
    Show(Show),
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
        let paths = [&["serve"][..], &["traces", "list"], &["traces", "show"], &["backfill"]];
        for path in paths {
            let mut command = Cli::command();
            let command = path
                .iter()
                .fold(&mut command, |command, name| command.find_subcommand_mut(name).unwrap());
            let key = command.get_arguments().find(|arg| arg.get_id() == "api_key").unwrap();
            assert!(key.is_hide_env_values_set(), "{path:?}");
        }
    }
}

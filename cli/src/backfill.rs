use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args};
use durable_spans::{Backfill, BackfillReport, Progress, SgpOptions, SgpSink, read_history};
use durable_spans_collector::tree::printable;
use serde_json::json;
use temporalio_client::{
    Client, ClientOptions, Connection, Url, envconfig::LoadClientConfigProfileOptions,
};

use crate::{args::Server, codec::Codec};

/// Rebuild traces, as skeletons, from the histories that Temporal keeps
///
/// A skeleton has the run, its activities with their attempts, timers, signals, updates and child
/// workflows. Spans of workflow code need that code: see `Backfill` in the library. A span that
/// the server holds as ended is left as it is.
///
/// Temporal is found by TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_* and
/// the configuration file of Temporal's CLI.
#[derive(Args)]
#[command(group(ArgGroup::new("runs").required(true).multiple(true).args(["workflow_id", "query", "file"])))]
pub(crate) struct BackfillArgs {
    /// Workflow id of the run; with a file, only where that does not hold it
    #[arg(long)]
    pub(crate) workflow_id: Option<String>,
    /// Run id [default: the latest run of the workflow id]
    #[arg(long, requires = "workflow_id", conflicts_with = "file")]
    pub(crate) run_id: Option<String>,
    /// All runs that a query of Temporal's visibility finds, such as "ExecutionStatus = 'Terminated'"
    #[arg(long, conflicts_with_all = ["workflow_id", "file"])]
    pub(crate) query: Option<String>,
    /// A history that was exported as JSON by Temporal's CLI or page
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// File that keeps which closed runs are done, so that this can be interrupted and started again
    #[arg(long)]
    pub(crate) journal: Option<PathBuf>,
    /// How many runs are worked on at once
    #[arg(long, default_value_t = 4)]
    pub(crate) parallel: usize,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) temporal: Temporal,
    #[command(flatten)]
    pub(crate) codec: Codec,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Where Temporal is, in the variables of its own clients.
#[derive(Args)]
pub(crate) struct Temporal {
    /// Address of Temporal's server, HOST:PORT or a URL [default: localhost:7233]
    #[arg(long, env = "TEMPORAL_ADDRESS", value_name = "ADDRESS")]
    pub(crate) temporal_address: Option<Address>,
    /// Namespace of the runs [default: default]
    #[arg(long, env = "TEMPORAL_NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// `HOST:PORT`, or a URL.
#[derive(Clone)]
pub(crate) struct Address {
    text: String,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = Self { text: text.to_owned() };
        match address.url("http") {
            Some(_) => Ok(address),
            None => Err("is neither HOST:PORT nor a URL".to_owned()),
        }
    }
}

impl Address {
    fn url(&self, scheme: &str) -> Option<Url> {
        let url = match self.text.contains("://") {
            true => self.text.parse(),
            false => format!("{scheme}://{}", self.text).parse(),
        };
        url.ok().filter(|url: &Url| url.has_host())
    }
}

/// Rebuilds, tells of each run on stderr and of all on stdout.
pub(crate) async fn backfill(args: BackfillArgs) -> anyhow::Result<()> {
    let mut backfill = Backfill::new(sink(&args.server)?).parallel(args.parallel).progress(tell);
    let namespace = args.temporal.namespace.as_deref().unwrap_or("default");
    if let Some(data_converter) = args.codec.data_converter(namespace)? {
        backfill = backfill.data_converter(data_converter);
    }
    if let Some(journal) = &args.journal {
        backfill = backfill.journal(journal);
    }
    let report = match (&args.file, &args.query, &args.workflow_id) {
        (Some(file), _, workflow_id) => {
            backfill.history(read_history(file)?, workflow_id.as_deref()).await
        }
        (None, Some(query), _) => backfill.query(&client(&args.temporal).await?, query).await,
        (None, None, Some(workflow_id)) => {
            let client = client(&args.temporal).await?;
            backfill.run(&client, workflow_id, args.run_id.as_deref()).await
        }
        (None, None, None) => bail!("say which runs: --workflow-id, --query or --file"),
    }?;
    if args.json {
        println!("{}", as_json(&report));
    } else {
        println!("{report}");
    }
    match report.failed.len() {
        0 => Ok(()),
        1 => bail!("1 run could not be backfilled"),
        failed => bail!("{failed} runs could not be backfilled"),
    }
}

fn sink(server: &Server) -> anyhow::Result<SgpSink> {
    let mut options = SgpOptions::new(server.url.as_str());
    if let Some(key) = &server.api_key {
        options = options.api_key(key);
    }
    if let Some(account) = &server.account_id {
        options = options.account_id(account);
    }
    Ok(SgpSink::new(options)?)
}

pub(crate) async fn client(temporal: &Temporal) -> anyhow::Result<Client> {
    let profile = LoadClientConfigProfileOptions::default();
    let (mut connection, mut client) = ClientOptions::load_from_config(profile)
        .map_err(|error| anyhow!("Temporal's settings cannot be used: {error}"))?;
    if let Some(address) = &temporal.temporal_address {
        let secure = connection.tls_options.is_some() || connection.api_key.is_some();
        let url = address.url(if secure { "https" } else { "http" });
        connection.target = url.context("the address of Temporal is no address")?;
    }
    if let Some(namespace) = &temporal.namespace {
        client.namespace.clone_from(namespace);
    }
    // It would also ask addresses of localhost at which nothing listens.
    connection.dns_load_balancing = None;
    let host = connection.target.host_str().unwrap_or_default().to_owned();
    let port = connection.target.port_or_known_default().unwrap_or_default();
    let connected = Connection::connect(connection).await.map_err(|error| {
        let error = anyhow!(error);
        let cause = error.root_cause();
        anyhow!("Temporal cannot be reached at {host}:{port}: {cause} (see --temporal-address)")
    })?;
    Ok(Client::new(connected, client)?)
}

fn tell(progress: Progress<'_>) {
    match progress {
        Progress::Done(run) => {
            let (id, run_id) = (printable(&run.workflow_id), printable(&run.run_id));
            let going_on = if run.is_open { ", goes on" } else { "" };
            eprintln!("{id} {run_id}: {} sent, {} there already{going_on}", run.sent, run.known);
            run.refused.iter().for_each(|reason| eprintln!("  refused: {}", printable(reason)));
        }
        Progress::Failed(run) => {
            let (id, run_id) = (printable(&run.workflow_id), printable(&run.run_id));
            eprintln!("{id} {run_id}: {}", printable(&run.error.to_string()));
        }
        _ => {}
    }
}

fn as_json(report: &BackfillReport) -> serde_json::Value {
    let failed = report.failed.iter().map(|run| {
        let error = run.error.to_string();
        json!({ "workflow_id": run.workflow_id, "run_id": run.run_id, "error": error })
    });
    json!({
        "runs": report.runs,
        "skipped": report.skipped,
        "sent": report.sent,
        "known": report.known,
        "refused": report.refused,
        "failed": failed.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port_or_a_url() {
        let url = |text: &str| Address::from_str(text).ok()?.url("https").map(String::from);
        assert_eq!(url("localhost:7233").as_deref(), Some("https://localhost:7233/"));
        assert_eq!(url("http://10.0.0.1:1").as_deref(), Some("http://10.0.0.1:1/"));
        assert_eq!(url("[::1]:7233").as_deref(), Some("https://[::1]:7233/"));
        assert_eq!(url(""), None);
        assert_eq!(url("a b:1"), None);
    }
}

//! The OpenTelemetry plugin of Temporal's Rust SDK at the same work as durable-spans, for the
//! example `kill_minus_nine` and for `bench-peers`, which run this program: `otel-peer start JOB`
//! starts the runs, `otel-peer work JOB` is the worker until it is killed, `otel-peer bench JOB` the
//! one that is measured. Set up as the plugin's documentation says.

mod bench;
mod export;
#[path = "../../../examples/kill_minus_nine/job.rs"]
mod job;
#[path = "../../peers/src/protocol.rs"]
mod protocol;
mod steps;

use anyhow::{Context, Result, bail};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use temporalio_client::{Client, ClientOptions};
use temporalio_sdk::opentelemetry::OpenTelemetryPlugin;

use crate::{export::Processor, job::Job, steps::Steps};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(role), Some(job), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        bail!("run this by `cargo run --example kill_minus_nine`");
    };
    if role == "bench" {
        let job = serde_json::from_str(&job).context("the job is not understood")?;
        return bench::work(job).await;
    }
    let job: Job = serde_json::from_str(&job).context("the job is not understood")?;
    let provider = export::provider(&job.receiver, Processor::from_env())?;
    // For the spans that the workflow makes itself.
    opentelemetry::global::set_tracer_provider(provider.clone());
    let client = client(&job, &provider).await?;
    match role.as_str() {
        "start" => {
            for run in 0..job.runs {
                client.start_workflow(Steps::run, job.steps, job.start_options(run)).await?;
            }
            Ok(provider.shutdown()?)
        }
        "work" => {
            let mut options = job.worker_options();
            options.register_workflow::<Steps>()?;
            job::work(client, options).await
        }
        other => bail!("the role must be start or work, not {other}"),
    }
}

/// Workers that are made from this client have the plugin, too.
async fn client(job: &Job, provider: &SdkTracerProvider) -> Result<Client> {
    let plugin = OpenTelemetryPlugin::builder().tracer(provider.tracer("otel-peer")).build();
    job.client(ClientOptions::new("default").plugin(plugin).build()).await
}

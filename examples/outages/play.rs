//! How a row is played: a traced and an untraced run, and the trouble at its moment.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use durable_spans::{Span, SpanBatch, SpanId, SpanSink, Timestamp, TraceContext, new_trace};
use durable_spans_test_server::TemporalServer;
use durable_spans_test_sink::Fault;

use crate::{
    class::Class,
    crew::Crew,
    log::LossLog,
    row::{Row, task_timeout},
    stage::{Outcome, PATIENCE, Stage},
    steps::Plan,
};

const STEPS: u32 = 12;

/// Long against what a call takes.
const REST: Duration = Duration::from_millis(300);

/// A sink in trouble while a run goes on.
pub(crate) async fn outage(
    class: Class,
    row: Row,
    server: &str,
    full: bool,
    log: &LossLog,
) -> Result<Outcome> {
    let lasts = row.fault_lasts(full);
    let sink_timeout = Duration::from_secs(if full { 10 } else { 2 });
    let mut stage = Stage::set(class, &row.name(), server, sink_timeout).await?;
    let past_close = matches!(row, Row::ErrorsPastClose | Row::Hangs | Row::HangsAtClose);
    let mut plan = Plan::new(STEPS, if past_close { lasts / 2 } else { lasts * 3 / 2 });
    match row {
        Row::HangsAtClose => plan = Plan { rest: REST, ..Plan::new(STEPS, REST * STEPS) },
        // With the run's own span and the bad one, 450.
        Row::BadSpan => plan = Plan { notes: 54, bad: Some(4), ..Plan::new(8, lasts) },
        Row::ForeignTrace => stage.trace = under_a_foreign_span(&stage).await?,
        _ => {}
    }
    let fault = row.fault(full);
    if row != Row::HangsAtClose {
        stage.sink.set(fault)?;
    }

    let spans = stage.place.spans()?;
    let crew = Crew::start(&stage.place, &spans).await?;
    let [traced, untraced] = &stage.start_runs(plan, None).await?;
    let limit = plan.lasting() + PATIENCE;
    let mended = async {
        if row == Row::HangsAtClose {
            crew.until_done(STEPS).await?;
            // The attempt's span arrives while the timer runs.
            tokio::time::sleep(REST / 2).await;
            stage.sink.set(fault)?;
        }
        if !matches!(row, Row::BadSpan | Row::ForeignTrace) {
            tokio::time::sleep(lasts).await;
            if past_close {
                // However slow the machine is.
                traced.closed(limit).await?;
            }
            stage.sink.set(Fault::None)?;
        }
        anyhow::Ok(SystemTime::now())
    };
    let (one, other, mended) =
        tokio::try_join!(traced.closed(limit), untraced.closed(limit), mended)?;
    let runs = [one, other];
    if past_close {
        let closed = runs[0].closed_at();
        ensure!(closed.is_some_and(|closed| closed < mended), "the outage was over at the close");
        ensure!(!runs[0].couriers().is_empty(), "no courier was sent");
    }
    // In a long outage couriers pause for up to ten minutes between two tries.
    traced.couriers_ended(&runs[0], lasts * 3 + PATIENCE).await?;
    let statistics = spans.flush(PATIENCE).await;
    crew.stop().await?;
    ensure!(row == Row::ForeignTrace || stage.sink.has_met_fault(), "no call met the fault");
    stage.account(&plan, runs, vec![statistics], 0, log).await
}

/// The worker's process is killed while the sink has half of a flush of the workflow, and has
/// not said so. Another process goes on.
pub(crate) async fn kill_worker(
    class: Class,
    row: Row,
    server: &str,
    full: bool,
    log: &LossLog,
) -> Result<Outcome> {
    let stage = Stage::set(class, &row.name(), server, Duration::from_secs(10)).await?;
    stage.sink.set(row.fault(full))?;
    let plan = Plan::new(STEPS, row.fault_lasts(full));
    let mut first = stage.place.spawn_process()?;
    let [traced, untraced] = &stage.start_runs(plan, Some(task_timeout(full))).await?;
    let met = tokio::time::timeout(PATIENCE, stage.sink.until_unacknowledged());
    met.await.context("no flush came to the sink")?;
    first.kill().await?;
    stage.sink.set(Fault::None)?;
    let may_double = stage.may_double().await?;
    let mut second = stage.place.spawn_process()?;
    let limit = plan.lasting() + PATIENCE;
    let runs = tokio::try_join!(traced.closed(limit), untraced.closed(limit))?;
    traced.couriers_ended(&runs.0, PATIENCE).await?;
    second.kill().await?;
    // Both processes were killed: of what they counted nothing is left.
    stage.account(&plan, runs.into(), Vec::new(), may_double, log).await
}

/// One after the other is gone for a second while the run goes on. The server by a crash, with
/// its database in a file.
pub(crate) async fn restart_all(class: Class, row: Row, log: &LossLog) -> Result<Outcome> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let options = TemporalServer::options().db_filename(folder.path().join("server.sqlite"));
    let server = options.clone().start().await?;
    let options = options.port(server.port());
    let timeout = Duration::from_secs(2);
    let mut stage = Stage::set(class, &row.name(), server.address(), timeout).await?;
    let away = Duration::from_secs(1);
    let plan = Plan::new(STEPS, Duration::from_secs(6));
    let spans = stage.place.spans()?;
    let crew = Crew::start(&stage.place, &spans).await?;
    let [traced, untraced] = &stage.start_runs(plan, None).await?;

    crew.until_done(2).await?;
    stage.sink.be_away(away).await?;

    crew.until_done(6).await?;
    crew.stop().await?;
    let first = spans.flush(PATIENCE).await;
    let may_double = stage.may_double().await?;
    let spans = stage.place.spans()?;
    let crew = Crew::start(&stage.place, &spans).await?;

    crew.until_done(2).await?;
    server.kill().await;
    tokio::time::sleep(away).await;
    let server = options.start().await?;

    let limit = plan.lasting() + PATIENCE;
    let runs = tokio::try_join!(traced.closed(limit), untraced.closed(limit))?;
    traced.couriers_ended(&runs.0, PATIENCE).await?;
    let second = spans.flush(PATIENCE).await;
    crew.stop().await?;
    let outcome = stage.account(&plan, runs.into(), vec![first, second], may_double, log).await;
    server.stop().await;
    outcome
}

/// A context as a caller would give it who mixes up two traces: the trace of one, the span of
/// another, which the store knows.
async fn under_a_foreign_span(stage: &Stage) -> Result<TraceContext> {
    let (foreign, own) = (new_trace(), stage.trace.clone());
    let id: SpanId = "foreign".parse()?;
    let now = Timestamp::from(SystemTime::now());
    let mut span = Span::new(foreign.trace_id, id.clone(), "foreign", now);
    span.end_timestamp = Some(now);
    let sink = stage.place.class.sink(&stage.place.sink, PATIENCE)?;
    sink.upsert_batch(&SpanBatch::from_iter([span])).await?;
    Ok(own.under(id))
}

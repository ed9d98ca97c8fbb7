use std::sync::Arc;

use durable_spans_activity::current_context;
use durable_spans_model::{FlushPolicy, HEADER, Sampling, Starting, TraceContext, TraceId};
use durable_spans_workflow::to_payload;
use futures::{FutureExt, future::BoxFuture};
use temporalio_client::{
    ClientInterceptor, Next, SignalWithStartWorkflowInput, SignalWorkflowInput, StartWorkflowInput,
    StartWorkflowOutput, StartWorkflowUpdateInput, StartWorkflowUpdateOutput,
    UpdateWithStartWorkflowInput, UpdateWithStartWorkflowOutput,
    errors::{
        WorkflowInteractionError, WorkflowStartError, WorkflowUpdateError,
        WorkflowUpdateWithStartError,
    },
};
use temporalio_common::{
    MemoValues,
    data_converters::{DataConverter, SerializationContextData, WorkflowSerializationContext},
    protos::temporal::api::common::v1::Header,
};
use uuid::Uuid;

/// A new trace, for client code that wants to know the trace of what it starts. Its id is random, so
/// not for workflow code.
///
/// ```
/// use durable_spans::{in_trace, new_trace};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let trace = new_trace();
/// println!("trace {}", trace.trace_id);
/// in_trace(trace, async { /* client.start_workflow(…) */ }).await;
/// # }
/// ```
pub fn new_trace() -> TraceContext {
    TraceContext::new(TraceId::from_bits(Uuid::new_v4().as_u128()))
}

/// Sends the caller's trace context along with what it starts and signals.
pub(crate) struct PropagatingClient {
    /// The SDK stores the header that a client sets as it is, and yet runs the codec's decode over
    /// it on the worker. So it is encoded here.
    data_converter: DataConverter,
    policy: FlushPolicy,
    /// `None` where nothing shall be recorded.
    sampling: Option<Sampling>,
    /// Base URL of a traces page, without a slash at its end.
    traces_page: Option<String>,
}

/// The memo field that holds where a run's trace can be looked at.
const TRACE_URL: &str = "trace_url";

impl PropagatingClient {
    pub(crate) fn new(
        data_converter: DataConverter,
        policy: FlushPolicy,
        sampling: Option<Sampling>,
        traces_page: Option<String>,
    ) -> Arc<Self> {
        Arc::new(Self { data_converter, policy, sampling, traces_page })
    }

    /// The header of a start: always, since it pins the run's policy and names its trace. And the
    /// memo, which tells people where to look at it: at a start it is no command of the workflow,
    /// so that histories do not depend on it.
    async fn start(
        &self,
        header: &mut Option<Header>,
        memo: &mut Option<MemoValues>,
        starting: Starting<'_>,
    ) {
        let mut context = current_context().unwrap_or_else(|| {
            let context = new_trace();
            let sampling = self.sampling.as_ref();
            let sampled = sampling.is_some_and(|it| it.keeps(&context.trace_id, &starting));
            TraceContext { sampled, ..context }
        });
        context.sampled &= self.sampling.is_some();
        let keeping = self.sampling.as_ref().is_some_and(Sampling::is_keeping_errors);
        let policy = if keeping && !context.sampled { self.policy.on_error() } else { self.policy };
        let (trace_id, sampled) = (context.trace_id.clone(), context.sampled);
        let sent = self.insert(header, context.policy(policy)).await;
        // A header that the caller has set by hand may name another trace.
        if let Some(page) = &self.traces_page
            && sent
            && (sampled || keeping)
            && memo.as_ref().is_none_or(|memo| memo.get(TRACE_URL).is_none())
        {
            memo.get_or_insert_default().insert(TRACE_URL, trace_url(page, &trace_id));
        }
    }

    /// The header of a message: where the sender stands, if it is in a trace.
    async fn message(&self, header: &mut Option<Header>) {
        if let Some(context) = current_context() {
            self.insert(header, TraceContext { policy: None, ..context }).await;
        }
    }

    /// Leaves a header alone that the caller has set by hand. Whether the context is in the header.
    async fn insert(&self, header: &mut Option<Header>, context: TraceContext) -> bool {
        let fields = &mut header.get_or_insert_default().fields;
        if fields.contains_key(HEADER) {
            return false;
        }
        let kind = SerializationContextData::Workflow(WorkflowSerializationContext::new());
        let encoded = self.data_converter.codec().encode(&kind, vec![to_payload(&context)]).await;
        match encoded.map(|mut payloads| payloads.pop()) {
            Ok(Some(payload)) => {
                fields.insert(HEADER.to_owned(), payload);
                return true;
            }
            Ok(None) => tracing::warn!("no trace context is sent: the codec returned no payload"),
            Err(error) => tracing::warn!(%error, "no trace context is sent: the codec failed"),
        }
        false
    }
}

fn starting<'a>(name: &'a str, workflow_id: &'a str, task_queue: &'a str) -> Starting<'a> {
    Starting { name, workflow_id: Some(workflow_id), task_queue: Some(task_queue) }
}

/// Where the traces page shows a trace. Ids from outside may hold anything.
fn trace_url(page: &str, trace_id: &TraceId) -> String {
    let mut url = format!("{page}/traces/");
    for byte in trace_id.to_string().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

impl ClientInterceptor for PropagatingClient {
    fn start_workflow<'a>(
        &'a self,
        mut input: StartWorkflowInput,
        next: Next<
            'a,
            StartWorkflowInput,
            BoxFuture<'a, Result<StartWorkflowOutput, WorkflowStartError>>,
        >,
    ) -> BoxFuture<'a, Result<StartWorkflowOutput, WorkflowStartError>> {
        async move {
            let StartWorkflowInput { workflow_type, options, .. } = &mut input;
            let starting = starting(workflow_type, &options.workflow_id, &options.task_queue);
            self.start(&mut options.header, &mut options.memo, starting).await;
            next.run(input).await
        }
        .boxed()
    }

    fn signal_with_start_workflow<'a>(
        &'a self,
        mut input: SignalWithStartWorkflowInput,
        next: Next<
            'a,
            SignalWithStartWorkflowInput,
            BoxFuture<'a, Result<StartWorkflowOutput, WorkflowStartError>>,
        >,
    ) -> BoxFuture<'a, Result<StartWorkflowOutput, WorkflowStartError>> {
        async move {
            // One header serves both the start and the signal.
            let SignalWithStartWorkflowInput { workflow_type, options, .. } = &mut input;
            let starting = starting(workflow_type, &options.workflow_id, &options.task_queue);
            self.start(&mut options.header, &mut options.memo, starting).await;
            next.run(input).await
        }
        .boxed()
    }

    fn signal_workflow<'a>(
        &'a self,
        mut input: SignalWorkflowInput,
        next: Next<'a, SignalWorkflowInput, BoxFuture<'a, Result<(), WorkflowInteractionError>>>,
    ) -> BoxFuture<'a, Result<(), WorkflowInteractionError>> {
        async move {
            self.message(&mut input.options.header).await;
            next.run(input).await
        }
        .boxed()
    }

    fn start_workflow_update<'a>(
        &'a self,
        mut input: StartWorkflowUpdateInput,
        next: Next<
            'a,
            StartWorkflowUpdateInput,
            BoxFuture<'a, Result<StartWorkflowUpdateOutput, WorkflowUpdateError>>,
        >,
    ) -> BoxFuture<'a, Result<StartWorkflowUpdateOutput, WorkflowUpdateError>> {
        async move {
            self.message(&mut input.options.header).await;
            next.run(input).await
        }
        .boxed()
    }

    fn update_with_start_workflow<'a>(
        &'a self,
        mut input: UpdateWithStartWorkflowInput,
        next: Next<
            'a,
            UpdateWithStartWorkflowInput,
            BoxFuture<'a, Result<UpdateWithStartWorkflowOutput, WorkflowUpdateWithStartError>>,
        >,
    ) -> BoxFuture<'a, Result<UpdateWithStartWorkflowOutput, WorkflowUpdateWithStartError>> {
        async move {
            let UpdateWithStartWorkflowInput { workflow_type, options, .. } = &mut input;
            let starting = starting(workflow_type, &options.workflow_id, &options.task_queue);
            self.start(&mut options.start_header, &mut options.memo, starting).await;
            self.message(&mut input.options.update_header).await;
            next.run(input).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_of_any_form_makes_a_url() {
        let url = |id: &str| trace_url("http://127.0.0.1:8790", &id.parse().unwrap());
        let dashed = "0af76519-16cd-43dd-8448-eb211c80319c";
        assert_eq!(url(dashed), format!("http://127.0.0.1:8790/traces/{dashed}"));
        assert_eq!(url("a/b?c#é"), "http://127.0.0.1:8790/traces/a%2Fb%3Fc%23%C3%A9");
    }
}

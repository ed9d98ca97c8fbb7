//! An encrypting payload codec on client and worker.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use durable_spans::{DurableSpans, MemorySink, TraceContext, in_trace};
use futures::{FutureExt, future::BoxFuture};
use temporalio_client::WorkflowGetResultOptions;
use temporalio_common::{
    data_converters::{
        DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConversionError,
        PayloadConverter, SerializationContextData,
    },
    protos::temporal::api::common::v1::Payload,
};

use crate::{
    harness::{Fleet, all_ended, while_running},
    workflows::{Order, Ship, Work},
};

/// Refuses whatever it has not encoded itself, as an encrypting codec does.
#[derive(Clone, Default)]
struct Strict {
    refused: Arc<AtomicUsize>,
}

const KEY: u8 = 0b1010_1010;

impl PayloadCodec for Strict {
    fn encode(
        &self,
        _: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        let encode = |payload: Payload| {
            let plain = prost::Message::encode_to_vec(&payload);
            Payload {
                metadata: [("encoding".to_owned(), b"binary/strict".to_vec())].into(),
                data: plain.into_iter().map(|byte| byte ^ KEY).collect(),
                ..Default::default()
            }
        };
        let encoded = payloads.into_iter().map(encode).collect();
        async move { Ok(encoded) }.boxed()
    }

    fn decode(
        &self,
        _: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        let refused = self.refused.clone();
        let decode = move |payload: Payload| {
            if payload.metadata.get("encoding").map(Vec::as_slice) != Some(b"binary/strict") {
                refused.fetch_add(1, Ordering::Relaxed);
                return Err(PayloadConversionError::WrongEncoding);
            }
            let plain: Vec<u8> = payload.data.iter().map(|byte| byte ^ KEY).collect();
            prost::Message::decode(plain.as_slice())
                .map_err(|error| PayloadConversionError::EncodingError(Box::new(error)))
        };
        async move { payloads.into_iter().map(decode).collect() }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_codec_survives_our_header_and_the_trace_goes_through() {
    let codec = Strict::default();
    let converter = DataConverter::new(
        PayloadConverter::default(),
        DefaultFailureConverter::default(),
        codec.clone(),
    );
    let sink = MemorySink::new();
    let fleet = Fleet::with("codec", DurableSpans::new(sink.clone()), sink, converter).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let context =
        TraceContext::new("secret-trace".parse().unwrap()).under("caller".parse().unwrap());

    let handle = while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Order::run, 1u32, fleet.start_options());
        let handle = in_trace(context.clone(), start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;

    assert_eq!(codec.refused.load(Ordering::Relaxed), 0, "every payload of ours was encoded");
    let spans = fleet.sink.trace(&context.trace_id);
    assert_eq!(spans.len(), fleet.sink.spans().len());
    assert!(all_ended(&spans));
    let first = spans.iter().find(|span| span.parent_id == context.span_id).unwrap();
    assert_eq!(first.name, "Order");
    assert!(spans.iter().filter(|span| span.name == "pack").count() == 2);

    let history = fleet.history(handle.info().workflow_id.as_str(), handle.run_id());
    for event in history.into_events().await.unwrap() {
        let bytes = prost::Message::encode_to_vec(&event);
        assert!(!bytes.windows(12).any(|w| w == b"secret-trace"), "in clear: {event:?}");
    }
}

//! An encrypting payload codec on client and worker.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use durable_spans::{DurableSpans, MemorySink, SinkError, TraceContext, in_trace};
use futures::{FutureExt, future::BoxFuture};
use temporalio_client::WorkflowGetResultOptions;
use temporalio_common::{
    data_converters::{
        DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConversionError,
        PayloadConverter, SerializationContextData,
    },
    protos::temporal::api::{common::v1::Payload, history::v1::HistoryEvent},
};

use crate::{
    couriers::{couriers, until_ended},
    harness::{Fleet, all_ended, while_running},
    workflows::{Order, Quiet, Ship, Work},
};

/// Refuses whatever it has not encoded itself, as an encrypting codec does.
#[derive(Clone, Default)]
pub(crate) struct Strict {
    pub(crate) refused: Arc<AtomicUsize>,
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

impl Strict {
    pub(crate) fn data_converter(&self) -> DataConverter {
        let failures = DefaultFailureConverter::default();
        DataConverter::new(PayloadConverter::default(), failures, self.clone())
    }
}

/// What is stored in clear holds none of these texts, be it compressed.
#[track_caller]
pub(crate) fn assert_hidden(events: &[HistoryEvent], secrets: &[&str]) {
    for event in events {
        let bytes = prost::Message::encode_to_vec(event);
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        for secret in secrets {
            assert!(!has(secret.as_bytes()), "{secret} in clear: {event:?}");
        }
        assert!(!has(&GZIP), "compressed, and not encoded: {event:?}");
    }
}

/// How every gzip stream of ours begins.
const GZIP: [u8; 4] = [0x1f, 0x8b, 8, 0];

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_codec_survives_our_header_and_the_trace_goes_through() {
    let codec = Strict::default();
    let sink = MemorySink::new();
    let fleet =
        Fleet::with("codec", DurableSpans::new(sink.clone()), sink, codec.data_converter()).await;
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
    assert_hidden(&history.into_events().await.unwrap(), &["secret-trace", "currency"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_couriers_carry_is_encoded_too() {
    let codec = Strict::default();
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    let fleet = Fleet::with("codec-courier", spans, sink, codec.data_converter()).await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Quiet::run, 3, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let events = fleet.events(&handle.info().workflow_id).await;
        let couriers = couriers(&events);
        assert_eq!(couriers.len(), 1);
        assert_hidden(&events, &["step", "xxxx"]);
        fleet.sink.fail_with(|_| None);
        until_ended(&fleet.client, &couriers[0]).await;
        assert_hidden(&fleet.events(&couriers[0]).await, &["step", "xxxx"]);
    })
    .await;
    assert_eq!(fleet.sink.spans().len(), 4);
    assert_eq!(codec.refused.load(Ordering::Relaxed), 0);
}

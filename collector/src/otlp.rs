//! `POST /v1/traces`: spans of any OpenTelemetry program, over OTLP/HTTP.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::json;

use crate::{
    http::{account_id, with_body},
    item::Record,
    read,
    refusal::Refusal,
    store::{Mode, Store},
};

mod convention;
pub(crate) mod exported;
mod span;
mod value;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(crate) fn routes() -> Router<Arc<Store>> {
    Router::new().route("/v1/traces", post(export))
}

async fn export(State(store): State<Arc<Store>>, request: Request) -> Response {
    let Some(encoding) = Encoding::of(request.headers()) else {
        crate::body::discard(request.into_body()).await;
        let reason = "must be application/x-protobuf or application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Refusal::of_field(status, header::CONTENT_TYPE.as_str(), reason).into_response();
    };
    let work = move |headers: &HeaderMap, body: &[u8]| {
        let request = encoding.read(body)?;
        let partial_success = store_spans(&store, request, account_id(headers)?)?;
        Ok(encoding.write(partial_success))
    };
    match with_body(request, work).await {
        Ok(response) => response,
        Err(refusal) => encoding.refuse(refusal),
    }
}

/// Stores what can be stored. Tells what could not: OpenTelemetry's clients do not send that again.
fn store_spans(
    store: &Store,
    request: ExportTraceServiceRequest,
    account_id: &str,
) -> Result<Option<ExportTracePartialSuccess>, Refusal> {
    let mut rejected = Rejected::default();
    let mut records = Vec::new();
    for spans in request.resource_spans {
        let resource = spans.resource.unwrap_or_default();
        for spans in spans.scope_spans {
            let scope = spans.scope.unwrap_or_default();
            for span in spans.spans {
                let item = span::item(span, &scope, &resource);
                match item.and_then(|item| item.into_record(account_id)) {
                    Ok(record) => records.push(record),
                    Err(refusal) => rejected.add(&refusal),
                }
            }
        }
    }
    write(store, records, &mut rejected)?;
    Ok(rejected.told())
}

/// Writes all at once, or else what is not to blame for a conflict.
fn write(store: &Store, records: Vec<Record<'_>>, rejected: &mut Rejected) -> Result<(), Refusal> {
    match store.write(records.clone(), Mode::Upsert) {
        Err(refusal) if refusal.is_conflict() => {}
        other => return other.map(drop),
    }
    for record in records {
        match store.write(vec![record], Mode::Upsert) {
            Err(refusal) if refusal.is_conflict() => rejected.add(&refusal.of_only_item()),
            other => other.map(drop)?,
        }
    }
    Ok(())
}

#[derive(Default)]
struct Rejected {
    count: i64,
    /// Why the first one was.
    reason: String,
}

impl Rejected {
    fn add(&mut self, refusal: &Refusal) {
        if self.count == 0 {
            self.reason = refusal.detail();
        }
        self.count += 1;
    }

    fn told(self) -> Option<ExportTracePartialSuccess> {
        let Self { count: rejected_spans, reason: error_message } = self;
        (rejected_spans > 0).then_some(ExportTracePartialSuccess { rejected_spans, error_message })
    }
}

/// How a request is written, and so its answer.
#[derive(Clone, Copy)]
enum Encoding {
    Protobuf,
    Json,
}

/// What OTLP answers an error with.
#[derive(Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match content_type.split(';').next().unwrap_or_default().trim() {
            PROTOBUF => Some(Self::Protobuf),
            JSON => Some(Self::Json),
            _ => None,
        }
    }

    fn read(self, body: &[u8]) -> Result<ExportTraceServiceRequest, Refusal> {
        match self {
            Self::Protobuf => ExportTraceServiceRequest::decode(body).map_err(|error| {
                let reason = format!("is not a trace export of OTLP: {error}");
                Refusal::of_field(StatusCode::BAD_REQUEST, "body", &reason)
            }),
            // A body that is no JSON at all gets the better message.
            Self::Json => serde_json::from_slice(body).map_err(|error| match error.is_data() {
                true => {
                    let reason = format!(
                        "is not a trace export of OTLP/JSON at line {}, column {}",
                        error.line(),
                        error.column()
                    );
                    Refusal::of_field(StatusCode::BAD_REQUEST, "body", &reason)
                }
                false => read::malformed(&error),
            }),
        }
    }

    fn write(self, partial_success: Option<ExportTracePartialSuccess>) -> Response {
        let (content_type, body) = match self {
            Self::Protobuf => {
                (PROTOBUF, ExportTraceServiceResponse { partial_success }.encode_to_vec())
            }
            // By hand, since in the JSON of protobuf absent fields are left out and 64 bits are text.
            Self::Json => (
                JSON,
                match partial_success {
                    None => b"{}".to_vec(),
                    Some(ExportTracePartialSuccess { rejected_spans, error_message }) => {
                        let told = json!({
                            "rejectedSpans": rejected_spans.to_string(),
                            "errorMessage": error_message,
                        });
                        json!({ "partialSuccess": told }).to_string().into_bytes()
                    }
                },
            ),
        };
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    }

    fn refuse(self, refusal: Refusal) -> Response {
        let message = refusal.detail();
        let mut response = refusal.into_response();
        if let Self::Protobuf = self {
            *response.body_mut() = Status { code: 0, message }.encode_to_vec().into();
            let protobuf = header::HeaderValue::from_static(PROTOBUF);
            response.headers_mut().insert(header::CONTENT_TYPE, protobuf);
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        response
    }
}

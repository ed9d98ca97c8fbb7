use std::borrow::Cow;

use axum::http::StatusCode;
use durable_spans_model::{MAX_ID_BYTES, SpanStatus, SpanType, Timestamp, data::Usage, redact};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::refusal::Refusal;

/// One span that passed every check that needs no look at other spans: its JSON, and what the store
/// needs to know of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record<'a> {
    pub(crate) trace_id: Cow<'a, str>,
    pub(crate) id: Cow<'a, str>,
    pub(crate) parent_id: Option<Cow<'a, str>>,
    pub(crate) start_ns: i64,
    pub(crate) end_ns: Option<i64>,
    pub(crate) name: Cow<'a, str>,
    pub(crate) status: Cow<'a, str>,
    pub(crate) span_type: Cow<'a, str>,
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
    pub(crate) group_id: Option<Cow<'a, str>>,
    pub(crate) application_variant_id: Option<Cow<'a, str>>,
    pub(crate) obs_trace_id: Option<Cow<'a, str>>,
    pub(crate) obs_span_id: Option<Cow<'a, str>>,
    /// The JSON object to store and to answer with.
    pub(crate) body: String,
}

impl Record<'_> {
    pub(crate) fn is_completed(&self) -> bool {
        self.end_ns.is_some()
    }
}

/// Text that is borrowed from the request where it holds no escapes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// A JSON object as the text that the client sent, so that no number loses a digit.
pub(crate) type Object<'a> = Option<Cow<'a, RawValue>>;

/// A span on the wire: the fields that SGP knows, in the order of its Python client.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Item<'a> {
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    #[serde(borrow)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) trace_id: Text<'a>,
    #[serde(borrow)]
    pub(crate) start_timestamp: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    pub(crate) input: Object<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    pub(crate) output: Object<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    pub(crate) metadata: Object<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    pub(crate) expected: Object<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Text<'a>>,
    #[serde(borrow, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) span_type: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) end_timestamp: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) group_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) application_interaction_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) application_variant_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) obs_trace_id: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(crate) obs_span_id: Option<Text<'a>>,
    // What the collector adds.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    input_tokens: Option<i64>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    output_tokens: Option<i64>,
    #[serde(skip_deserializing)]
    account_id: Cow<'a, str>,
    #[serde(skip_deserializing)]
    object: &'static str,
}

/// Unlike serde's own `Option`, keeps a `null`, which is no object and must be refused.
pub(crate) fn raw<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Object<'de>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(|raw| Some(Cow::Borrowed(raw)))
}

impl<'a> Item<'a> {
    /// A span that was stored before, and its account.
    pub(crate) fn stored(body: &'a str) -> Result<(Self, Cow<'a, str>), Refusal> {
        #[derive(Deserialize)]
        struct Account<'a> {
            #[serde(borrow)]
            account_id: Cow<'a, str>,
        }

        let Account { account_id } = serde_json::from_str(body).map_err(Refusal::corrupt)?;
        Ok((serde_json::from_str(body).map_err(Refusal::corrupt)?, account_id))
    }

    /// The item as it is to be stored, if SGP would take it: with an id, with the token counts that
    /// it reports, and without credentials.
    ///
    /// Whatever passes can also be read as a [`durable_spans_model::Span`].
    ///
    /// # Errors
    ///
    /// Names the field, without its content and without the item's place in a batch.
    pub(crate) fn into_record(mut self, account_id: &str) -> Result<Record<'a>, Refusal> {
        self.check_ids()?;
        let (start_ns, end_ns) = self.check_times()?;
        self.check_kind()?;
        self.name.0 = checked_name(self.name.0)?;
        let usage = Usage::reported(
            &check_object("output", self.output.as_deref())?,
            &check_object("metadata", self.metadata.as_deref())?,
        );
        check_object("input", self.input.as_deref())?;
        check_object("expected", self.expected.as_deref())?;

        if let Some(redacted) = redact::text(&self.name.0) {
            self.name.0 = redacted.into();
        }
        for object in [&mut self.input, &mut self.output, &mut self.metadata, &mut self.expected] {
            if let Some(redacted) = object.as_deref().and_then(redact::raw) {
                *object = Some(Cow::Owned(redacted));
            }
        }
        if self.id.is_none() {
            self.id = Some(Text(uuid::Uuid::new_v4().to_string().into()));
        }
        let column = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
        self.input_tokens = column(usage.input_tokens());
        self.output_tokens = column(usage.output_tokens());
        self.account_id = account_id.to_owned().into();
        self.object = "span";
        let body = serde_json::to_string(&self).map_err(|error| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a span has no JSON: {error}"))
        })?;
        let text = |text: Text<'a>| text.0;
        Ok(Record {
            trace_id: self.trace_id.0,
            id: self.id.map(text).unwrap_or_default(),
            parent_id: self.parent_id.map(text),
            start_ns,
            end_ns,
            name: self.name.0,
            status: self.status.map_or(SpanStatus::default().as_str().into(), text),
            span_type: self.span_type.map_or(SpanType::default().as_str().into(), text),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            group_id: self.group_id.map(text),
            application_variant_id: self.application_variant_id.map(text),
            obs_trace_id: self.obs_trace_id.map(text),
            obs_span_id: self.obs_span_id.map(text),
            body,
        })
    }

    fn check_ids(&self) -> Result<(), Refusal> {
        check_id("trace_id", &self.trace_id.0)?;
        for (field, id) in
            [("id", &self.id), ("parent_id", &self.parent_id), ("group_id", &self.group_id)]
        {
            id.as_ref().map_or(Ok(()), |id| check_id(field, &id.0))?;
        }
        if let Some(id) = &self.obs_trace_id {
            check_hex("obs_trace_id", &id.0, 32)?;
        }
        if let Some(id) = &self.obs_span_id {
            check_hex("obs_span_id", &id.0, 16)?;
            if self.obs_trace_id.is_none() {
                return Err(Refusal::invalid("obs_span_id", "must come with obs_trace_id"));
            }
        }
        Ok(())
    }

    /// Start and end in Unix nanoseconds.
    fn check_times(&self) -> Result<(i64, Option<i64>), Refusal> {
        let start = check_timestamp("start_timestamp", &self.start_timestamp.0)?;
        let end = self.end_timestamp.as_ref().map(|end| check_timestamp("end_timestamp", &end.0));
        let end = end.transpose()?;
        if end.is_some_and(|end| end < start) {
            return Err(Refusal::invalid("end_timestamp", "must not be before start_timestamp"));
        }
        Ok((start, end))
    }

    fn check_kind(&self) -> Result<(), Refusal> {
        if let Some(Text(status)) = &self.status {
            check_status("status", status)?;
        }
        if let Some(Text(span_type)) = &self.span_type {
            check_type("type", span_type)?;
        }
        Ok(())
    }
}

/// An id that is too long in characters is refused in another way than one that is too long in
/// bytes only, as SGP does: the former by its front, the latter by its store.
pub(crate) fn check_id(field: impl Into<String>, id: &str) -> Result<(), Refusal> {
    let bad = StatusCode::BAD_REQUEST;
    if id.is_empty() {
        Err(Refusal::invalid(field, "must not be empty"))
    } else if id.contains('\0') {
        Err(Refusal::of_field(bad, field, "must not hold a NUL byte"))
    } else if id.chars().count() > MAX_ID_BYTES {
        Err(Refusal::invalid(field, &format!("is over {MAX_ID_BYTES} characters long")))
    } else if id.len() > MAX_ID_BYTES {
        Err(Refusal::of_field(bad, field, &format!("is over {MAX_ID_BYTES} bytes long")))
    } else {
        Ok(())
    }
}

/// Checks an id of OpenTelemetry's kind.
pub(crate) fn check_hex(field: impl Into<String>, id: &str, digits: usize) -> Result<(), Refusal> {
    if id.len() == digits && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Refusal::invalid(field, &format!("must be {digits} lowercase hex characters")))
}

pub(crate) fn check_timestamp(field: &str, text: &str) -> Result<i64, Refusal> {
    let parsed = text.parse::<Timestamp>();
    parsed.map(Timestamp::unix_ns).map_err(|error| Refusal::invalid(field, error.reason()))
}

pub(crate) fn check_status(field: impl Into<String>, status: &str) -> Result<(), Refusal> {
    let known = [SpanStatus::Success, SpanStatus::Error, SpanStatus::Canceled];
    if known.iter().any(|known| known.as_str() == status) {
        return Ok(());
    }
    Err(Refusal::invalid(field, "must be SUCCESS, ERROR or CANCELED"))
}

pub(crate) fn check_type(field: impl Into<String>, span_type: &str) -> Result<(), Refusal> {
    let parsed = span_type.parse::<SpanType>();
    parsed.map(drop).map_err(|error| Refusal::invalid(field, error.reason()))
}

/// SGP keeps a name with a NUL byte, which it replaces.
fn checked_name(name: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid("name", "must not be empty"));
    }
    Ok(if name.contains('\0') { name.replace('\0', "\u{fffd}").into() } else { name })
}

/// Reads the object to the bottom: raw text may still hold what no reader could take, such as half
/// a surrogate pair or a thousand nested arrays.
pub(crate) fn check_object(
    field: &str,
    text: Option<&RawValue>,
) -> Result<Map<String, Value>, Refusal> {
    let Some(text) = text else { return Ok(Map::new()) };
    if !text.get().starts_with('{') {
        return Err(Refusal::invalid(field, "must be a JSON object"));
    }
    serde_json::from_str(text.get())
        .map_err(|error| Refusal::invalid(field, &format!("is not valid JSON: {error}")))
}

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// Why a request was not served, as the client will read it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    field: Option<String>,
    reason: String,
    code: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, field: None, reason: detail.into(), code: None }
    }

    /// A refusal for the sake of one field, whose `reason` continues the sentence that the field's
    /// name begins.
    pub(crate) fn of_field(status: StatusCode, field: impl Into<String>, reason: &str) -> Self {
        Self { status, field: Some(field.into()), reason: reason.to_owned(), code: None }
    }

    /// The usual case of [`Refusal::of_field`]: 422.
    pub(crate) fn invalid(field: impl Into<String>, reason: &str) -> Self {
        Self::of_field(StatusCode::UNPROCESSABLE_ENTITY, field, reason)
    }

    /// 404 for what was asked for by its id.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no {what} of this id is known"))
    }

    /// For what the store itself cannot read.
    pub(crate) fn corrupt(_: serde_json::Error) -> Self {
        let detail = "the span store holds a span that cannot be read: it was changed from outside";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// A word for programs, next to the text for people.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The same of an object that is itself the field `place` of another.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.field = match self.field {
            Some(field) if !field.is_empty() => Some(format!("{place}.{field}")),
            Some(_) => Some(place.to_owned()),
            None => None,
        };
        self
    }

    /// The same of the only item of a batch, as somebody reads it who sent no batch.
    pub(crate) fn of_only_item(mut self) -> Self {
        let within = |field: String| match field.strip_prefix("items[0].") {
            Some(field) => field.to_owned(),
            None => field,
        };
        self.field = self.field.map(within);
        self
    }

    /// The same of a span in a file, where spans from `first_line` on were refused with it.
    pub(crate) fn at_line(self, line: u64, first_line: u64, stored: usize) -> Self {
        let field = self.field.as_deref().and_then(|field| field.split_once("]."));
        let field = field.map_or("", |(_, field)| field);
        let reason = format!(
            "line {line}: {field} {}; spans from line {first_line} on were not imported, {stored} \
             before them were",
            self.reason
        );
        Self { field: None, reason, ..self }
    }

    pub(crate) fn detail(&self) -> String {
        match self.field.as_deref() {
            None => self.reason.clone(),
            Some("") => format!("body {}", self.reason),
            Some(field) => format!("{field} {}", self.reason),
        }
    }

    /// Whether it is about how the spans hang together.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

/// What SQLite cannot do now (locked, disk full), it may be able to do later.
impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the span store failed: {error}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({ "detail": self.detail() });
        if let Some(field) = self.field {
            body["field"] = if field.is_empty() { "body".into() } else { field.into() };
        }
        if let Some(code) = self.code {
            body["code"] = code.into();
        }
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, json, body.to_string()).into_response();
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&self.status) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

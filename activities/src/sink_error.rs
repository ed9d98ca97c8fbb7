use std::{
    borrow::Cow,
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use crate::options::Service;

/// Longest pause that a sink can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Longest text of a sink that an error repeats, in characters.
const MAX_REASON_CHARS: usize = 300;

/// Why a sink did not take a batch, and with that what should become of the spans.
///
/// Exactly one of [`is_retryable`](Self::is_retryable), [`is_rejection`](Self::is_rejection) and
/// [`is_credentials`](Self::is_credentials) holds. The message says what to mend and never holds
/// a key, nor a user name, password or query of a URL. Cloning is cheap.
#[derive(Clone)]
pub struct SinkError {
    class: Class,
    message: Cow<'static, str>,
    status: Option<u16>,
    retry_after: Option<Duration>,
    rejected_spans: Option<u64>,
    may_be_stored: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Retryable,
    Rejection,
    Credentials,
}

impl SinkError {
    /// The sink did not answer, or cannot take spans for now: the spans are kept and sent again.
    ///
    /// Displays as `source` does. Takes text as well as any error. The batch
    /// [may be stored](Self::may_be_stored) all the same, unless [`not_stored`](Self::not_stored)
    /// says otherwise.
    pub fn retryable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        let message = one_line(&source.to_string());
        Self {
            source: Some(source.into()),
            may_be_stored: true,
            ..Self::new(Class::Retryable, message)
        }
    }

    /// The sink refused the batch because of what is in it: the batch is halved until the spans at
    /// fault are found, and these are dropped. `reason` goes into logs, cut to one line of 300
    /// characters, and should not hold the content of spans.
    pub fn rejected(reason: impl AsRef<str>) -> Self {
        Self::new(Class::Rejection, one_line(reason.as_ref()))
    }

    /// The sink refused the batch because of its size: later ones are smaller, and a span that is too
    /// large alone is dropped.
    pub fn too_large() -> Self {
        let message = "the batch is too large for the sink";
        Self { status: Some(413), ..Self::new(Class::Rejection, message) }
    }

    /// The sink took the batch except for so many spans, and does not say which: that many are counted
    /// as dropped, and none is sent again. `reason` goes into logs as that of
    /// [`rejected`](Self::rejected).
    pub fn partly_rejected(spans: u64, reason: impl AsRef<str>) -> Self {
        let message = format!("the sink rejected {spans} spans: {}", one_line(reason.as_ref()));
        Self { rejected_spans: Some(spans), ..Self::new(Class::Rejection, message) }
    }

    /// The sink does not know or does not let in the sender: the spans are kept until that is
    /// mended. `reason` should say which setting to mend; it is cut to one line of 300 characters.
    pub fn credentials(reason: impl AsRef<str>) -> Self {
        Self::new(Class::Credentials, one_line(reason.as_ref()))
    }

    /// The same error, with the sink's wish to be left alone for `pause`: at most 10 minutes count,
    /// and zero is no wish.
    #[must_use]
    pub fn with_retry_after(self, pause: Duration) -> Self {
        Self { retry_after: bounded_pause(pause), ..self }
    }

    /// The same error, of a batch of which the sink has surely stored nothing.
    #[must_use]
    pub fn not_stored(self) -> Self {
        Self { may_be_stored: false, ..self }
    }

    /// Whether the same batch may well be stored later: the sink could not be reached, did not
    /// answer in time, or answered with 408, 429 or 5xx, with a redirect or another status that
    /// points at a wrong address (404), or with `x-should-retry: true`.
    ///
    /// A 5xx with `x-should-retry: false` is retryable too: it says that trying at once is of no
    /// use, not that the spans are at fault, and spans are not lost over it.
    pub fn is_retryable(&self) -> bool {
        self.class == Class::Retryable
    }

    /// Whether spans of the batch are at fault: 400, 409, 413, 422 and other 4xx. Sending the same
    /// batch again fails again.
    ///
    /// 409 is SGP's word for a parent in another trace or a cycle, so it is not tried again.
    pub fn is_rejection(&self) -> bool {
        self.class == Class::Rejection
    }

    /// Whether the sender is at fault, and no span: 401 and 403.
    pub fn is_credentials(&self) -> bool {
        self.class == Class::Credentials
    }

    /// Whether the batch was refused for its size: 413.
    pub fn is_too_large(&self) -> bool {
        self.is_rejection() && self.status == Some(413)
    }

    /// Whether the sink may have stored spans of the batch all the same, so that sending it again may
    /// double them: no answer came on an open connection, or a 5xx other than 503.
    pub fn may_be_stored(&self) -> bool {
        self.may_be_stored
    }

    /// How many spans of the batch were rejected while the others were stored. `None` where the batch
    /// was not stored at all.
    pub fn rejected_spans(&self) -> Option<u64> {
        self.rejected_spans
    }

    /// The HTTP status, `None` if no answer came or the sink does not speak HTTP.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// How long the sink wants to be left alone: above zero and at most 10 minutes. `None` if it
    /// did not say.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The error for an HTTP answer without success from `endpoint`, which must be fit to be
    /// shown, as must be the server's `reason`.
    pub(crate) fn from_answer(
        service: Service,
        status: StatusCode,
        headers: &HeaderMap,
        endpoint: &str,
        reason: Option<&str>,
    ) -> Self {
        let class = classify(status, headers);
        let code = status.as_u16();
        let Service { name, key, identity, url, .. } = service;
        let message = match (class, code, reason) {
            (_, 401, _) => format!("{name} refused the API key (401): check {identity}"),
            (_, 403, _) => format!(
                "{name} refused access (403): check that the key in {key} may write spans there \
                 ({identity})"
            ),
            (_, 407, _) => "the proxy refused access (407): check the user name and password in \
                            HTTPS_PROXY or HTTP_PROXY"
                .to_owned(),
            (_, 300..=399 | 404 | 405 | 410 | 421, _) => {
                format!("{endpoint} does not take spans ({code}): check {url}")
            }
            (Class::Rejection, _, Some(reason)) => {
                format!("{name} refused the batch ({code}): {}", one_line(reason))
            }
            (Class::Rejection, _, None) => format!("{name} refused the batch ({code})"),
            _ => format!("{name} cannot take spans for now ({code})"),
        };
        Self {
            status: Some(code),
            retry_after: retry_after(headers, SystemTime::now()),
            // 503 is said by who has not begun; other 5xx may come from behind the store.
            may_be_stored: status.is_server_error() && code != 503,
            ..Self::new(class, message)
        }
    }

    /// The error for a request that `endpoint`, which must be fit to be shown, did not answer.
    pub(crate) fn from_transport(error: reqwest::Error, endpoint: &str, timeout: Duration) -> Self {
        let error = error.without_url();
        let message = if error.is_timeout() && !error.is_connect() {
            format!("no answer from {endpoint} within {timeout:?}")
        } else {
            format!("could not reach {endpoint}: {}", one_line(&root_cause(&error).to_string()))
        };
        Self {
            may_be_stored: !error.is_connect(),
            source: Some(Arc::new(error)),
            ..Self::new(Class::Retryable, message)
        }
    }

    fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            message: message.into(),
            status: None,
            retry_after: None,
            rejected_spans: None,
            may_be_stored: false,
            source: None,
        }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkError")
            .field("class", &self.class)
            .field("message", &self.message)
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for SinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The one place that says what a status means for the spans.
fn classify(status: StatusCode, headers: &HeaderMap) -> Class {
    let told_to_retry = headers
        .get("x-should-retry")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    match status.as_u16() {
        _ if told_to_retry => Class::Retryable,
        401 | 403 => Class::Credentials,
        // Timeout, too early, too many requests: the next attempt may do.
        408 | 425 | 429 => Class::Retryable,
        // Quota used up, wrong address, proxy: no span is at fault. Were these rejections, a typing
        // error in a URL would cost every span.
        402 | 404 | 405 | 407 | 410 | 421 => Class::Retryable,
        400..=499 => Class::Rejection,
        // 5xx, redirects (not followed, since a followed PUT may become a GET) and what no server
        // should send.
        _ => Class::Retryable,
    }
}

/// Reads `retry-after-ms`, or else `retry-after` as seconds or as an HTTP date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let seconds =
        |seconds: f64| Duration::try_from_secs_f64(seconds.min(MAX_RETRY_AFTER.as_secs_f64())).ok();
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return seconds(millis / 1000.0).and_then(bounded_pause);
    }
    let text = text(RETRY_AFTER.as_str())?;
    let pause = match number(text) {
        Some(number) => seconds(number)?,
        None => httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?,
    };
    bounded_pause(pause)
}

/// Zero counts as no pause at all: it would turn the caller's backoff off.
fn bounded_pause(pause: Duration) -> Option<Duration> {
    (!pause.is_zero()).then(|| pause.min(MAX_RETRY_AFTER))
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error)
}

/// `text` on one line of at most [`MAX_REASON_CHARS`] characters, without control characters.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if let Some((cut, _)) = line.char_indices().nth(MAX_REASON_CHARS) {
        line.truncate(cut);
        line.pop();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn class(code: u16, pairs: &[(&'static str, &'static str)]) -> Class {
        classify(StatusCode::from_u16(code).unwrap(), &headers(pairs))
    }

    #[test]
    fn only_where_the_server_may_have_worked_on_it_is_a_batch_perhaps_stored() {
        let service = Service { name: "s", key: "K", identity: "K", url: "U", example_url: "u" };
        let may_be_stored = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap();
            SinkError::from_answer(service, status, &headers(&[]), "h", None).may_be_stored()
        };
        assert!([500, 502, 504, 599].into_iter().all(may_be_stored));
        assert!(![302, 400, 401, 404, 408, 422, 429, 503].into_iter().any(may_be_stored));
        assert!(SinkError::retryable("no answer").may_be_stored());
        assert!(!SinkError::retryable("no answer").not_stored().may_be_stored());
        assert!(!SinkError::rejected("no").may_be_stored());
    }

    #[test]
    fn each_status_has_its_class() {
        for code in [400, 406, 409, 411, 413, 414, 415, 418, 422, 431, 451] {
            assert_eq!(class(code, &[]), Class::Rejection, "{code}");
        }
        for code in [401, 403] {
            assert_eq!(class(code, &[]), Class::Credentials, "{code}");
        }
        for code in [301, 307, 402, 404, 405, 407, 408, 410, 421, 425, 429, 500, 502, 503, 504, 599]
        {
            assert_eq!(class(code, &[]), Class::Retryable, "{code}");
        }
    }

    #[test]
    fn x_should_retry_makes_retryable_but_never_takes_it_away() {
        for code in [401, 409, 422, 503] {
            assert_eq!(class(code, &[("x-should-retry", "true")]), Class::Retryable, "{code}");
        }
        assert_eq!(class(503, &[("x-should-retry", "false")]), Class::Retryable);
        assert_eq!(class(422, &[("x-should-retry", "false")]), Class::Rejection);
        assert_eq!(class(422, &[("x-should-retry", "yes")]), Class::Rejection);
    }

    #[test]
    fn every_form_of_retry_after_is_read() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 08:00:00 GMT").unwrap();
        let pause = |pairs| retry_after(&headers(pairs), now);
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(pause(&[]), None);
        assert_eq!(pause(&[("retry-after", "7")]), millis(7_000));
        assert_eq!(pause(&[("retry-after", " 1.5 ")]), millis(1_500));
        assert_eq!(pause(&[("retry-after-ms", "250"), ("retry-after", "7")]), millis(250));
        assert_eq!(pause(&[("retry-after-ms", "soon"), ("retry-after", "7")]), millis(7_000));
        let date = [("retry-after", "Sat, 21 Nov 2026 08:00:30 GMT")];
        assert_eq!(pause(&date), millis(30_000));
    }

    #[test]
    fn a_pause_is_at_most_ten_minutes_and_never_nothing() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 08:00:00 GMT").unwrap();
        let pause = |value| retry_after(&headers(&[("retry-after", value)]), now);
        for long in ["86400", "1e300", "18446744073709551616", "Sun, 22 Nov 2026 08:00:00 GMT"] {
            assert_eq!(pause(long), Some(Duration::from_secs(600)), "{long}");
        }
        for none in ["0", "-5", "NaN", "inf", "", "later", "Fri, 20 Nov 2026 08:00:00 GMT"] {
            assert_eq!(pause(none), None, "{none}");
        }
        let mut bytes = HeaderMap::new();
        bytes.insert(RETRY_AFTER, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(retry_after(&bytes, now), None);

        let error = SinkError::retryable("busy");
        assert_eq!(error.retry_after(), None);
        let long = error.clone().with_retry_after(Duration::from_secs(86_400));
        assert_eq!(long.retry_after(), Some(Duration::from_secs(600)));
        assert_eq!(long.with_retry_after(Duration::ZERO).retry_after(), None);
    }

    #[test]
    fn errors_of_own_sinks_are_of_one_class_each() {
        let classes =
            |error: SinkError| (error.is_retryable(), error.is_rejection(), error.is_credentials());
        assert_eq!(classes(SinkError::retryable("busy")), (true, false, false));
        assert_eq!(classes(SinkError::rejected("no name")), (false, true, false));
        assert_eq!(classes(SinkError::credentials("no key")), (false, false, true));
        assert!(!SinkError::rejected("413").is_too_large());

        let error = SinkError::retryable(std::io::Error::other("disk full"));
        assert_eq!(error.to_string(), "disk full");
        assert_eq!(error.source().unwrap().to_string(), "disk full");
    }

    #[test]
    fn a_reason_is_one_line_of_at_most_300_characters() {
        let error = SinkError::rejected(" end\tbefore\r\n start\u{1b}[31m ");
        assert_eq!(error.to_string(), "end before start [31m");
        assert_eq!(SinkError::rejected("é".repeat(300)).to_string(), "é".repeat(300));
        let cut = SinkError::rejected("é".repeat(301)).to_string();
        assert_eq!(cut, "é".repeat(299) + "…");
    }
}

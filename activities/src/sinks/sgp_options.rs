use std::{borrow::Cow, env, error::Error, fmt, net::IpAddr, time::Duration};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

/// Where Scale's own clients send to if nothing else is set.
const DEFAULT_BASE_URL: &str = "https://api.egp.scale.com";

const API_KEY: &str = "SGP_API_KEY";
const ACCOUNT_ID: &str = "SGP_ACCOUNT_ID";
const BASE_URL: &str = "SGP_CLIENT_BASE_URL";

/// Where an [`SgpSink`](crate::SgpSink) sends spans, and as whom.
///
/// Nothing is checked before [`SgpSink::new`](crate::SgpSink::new). `Debug` shows neither the API
/// key, nor values of headers, nor a user name, password or query of the URL.
///
/// ```
/// use std::time::Duration;
/// use durable_spans_activity::{SgpOptions, SgpSink};
///
/// // The local collector needs neither key nor account.
/// let local = SgpSink::new(SgpOptions::new("http://127.0.0.1:4319"))?;
///
/// let options = SgpOptions::new("https://sgp.example.com")
///     .api_key("…")
///     .account_id("my-account")
///     .timeout(Duration::from_secs(20));
/// # Ok::<(), durable_spans_activity::InvalidSgpOptions>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct SgpOptions {
    base_url: String,
    api_key: Option<String>,
    account_id: Option<String>,
    timeout: Duration,
    headers: Vec<(String, String)>,
    gzip: bool,
}

impl SgpOptions {
    /// Sends to `{base_url}/v5/spans/batch`. A user name and password in the URL become an
    /// `Authorization` header, a query is kept.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            api_key: None,
            account_id: None,
            timeout: Duration::from_secs(10),
            headers: Vec::new(),
            gzip: true,
        }
    }

    /// Reads the variables that Scale's own clients read: `SGP_CLIENT_BASE_URL` (default
    /// `https://api.egp.scale.com`), `SGP_API_KEY` and `SGP_ACCOUNT_ID`. Key and account may be
    /// missing if the URL points at this very machine, as a local collector needs neither. White
    /// space around a value is cut off; an empty variable counts as missing.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or is not Unicode, and says what to do.
    pub fn from_env() -> Result<Self, InvalidSgpOptions> {
        Self::from_variables(env::var)
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Result<String, env::VarError>,
    ) -> Result<Self, InvalidSgpOptions> {
        let read = |name| match variable(name) {
            Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                Err(InvalidSgpOptions::new(format!("{name} is not Unicode: set it again")))
            }
        };
        let mut options = Self::new(read(BASE_URL)?.unwrap_or_else(|| DEFAULT_BASE_URL.to_owned()));
        options.api_key = read(API_KEY)?;
        options.account_id = read(ACCOUNT_ID)?;
        if is_loopback(&options.endpoint()?) {
            return Ok(options);
        }
        for (name, value) in [(API_KEY, &options.api_key), (ACCOUNT_ID, &options.account_id)] {
            if value.is_none() {
                return Err(InvalidSgpOptions::new(format!(
                    "{name} is not set: set it to that of your SGP account, or point {BASE_URL} at \
                     a collector on this machine"
                )));
            }
        }
        Ok(options)
    }

    /// The key that SGP knows the sender by, sent as `x-api-key`. Default: none is sent.
    pub fn api_key(mut self, api_key: impl Into<String>) -> Self {
        self.api_key = Some(api_key.into());
        self
    }

    /// The account that the spans belong to, sent as `x-selected-account-id`. Default: none is
    /// sent.
    pub fn account_id(mut self, account_id: impl Into<String>) -> Self {
        self.account_id = Some(account_id.into());
        self
    }

    /// How long one attempt may take from the connection to the end of the answer. Default: 10 s,
    /// of which connecting may take 5 s. An attempt that takes longer is given up and fails with a
    /// retryable error. Zero is refused.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends another header with each request, or another value of one that the sink sends itself,
    /// except for those that describe the body. Default: none. Of one name, the last value is sent.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Whether to compress bodies over 1 kB. Default: yes. A server that refuses the first
    /// compressed batch, but takes the same batch uncompressed, gets no more compressed ones.
    pub fn gzip(mut self, gzip: bool) -> Self {
        self.gzip = gzip;
        self
    }

    /// The URL that batches are put to.
    pub(crate) fn endpoint(&self) -> Result<Url, InvalidSgpOptions> {
        let invalid = |reason: &dyn fmt::Display| {
            // The URL itself may hold a password.
            InvalidSgpOptions::new(format!(
                "the base URL of SGP is not valid ({reason}): give one like {DEFAULT_BASE_URL}, \
                 as {BASE_URL} or in the options"
            ))
        };
        let mut url = Url::parse(self.base_url.trim()).map_err(|error| invalid(&error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(&"it must begin with http:// or https://"));
        }
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(["v5", "spans", "batch"]),
            Err(()) => return Err(invalid(&"it has no path")),
        };
        url.set_fragment(None);
        Ok(url)
    }

    /// What goes with each request, marked as sensitive as a whole except for the user agent.
    pub(crate) fn header_map(&self) -> Result<HeaderMap, InvalidSgpOptions> {
        let mut headers = HeaderMap::new();
        let user_agent = concat!("durable-spans/", env!("CARGO_PKG_VERSION"));
        headers.insert(reqwest::header::USER_AGENT, HeaderValue::from_static(user_agent));
        let own = [
            ("x-api-key", "the API key", API_KEY, &self.api_key),
            ("x-selected-account-id", "the account id", ACCOUNT_ID, &self.account_id),
        ];
        for (header, what, variable, value) in own {
            let Some(value) = value else { continue };
            let value = sensitive(value).filter(|value| !value.is_empty()).ok_or_else(|| {
                InvalidSgpOptions::new(format!(
                    "{what} is empty or holds a character that no header may hold, such as a line \
                     end: set {variable} again"
                ))
            })?;
            headers.insert(header, value);
        }
        for (name, value) in &self.headers {
            let header: HeaderName = name.parse().map_err(|_| {
                InvalidSgpOptions::new(format!("{name:?} is not the name of a header: mend it"))
            })?;
            let value = sensitive(value).ok_or_else(|| {
                InvalidSgpOptions::new(format!(
                    "the value of header {header} holds a character that no header may hold, such \
                     as a line end: mend it"
                ))
            })?;
            headers.insert(header, value);
        }
        Ok(headers)
    }

    /// What must never be shown, even if a server repeats it. Text of under 4 bytes keeps no
    /// secret, and is found in every message.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let url = Url::parse(self.base_url.trim()).ok();
        let url = url.iter().flat_map(|url| [url.password(), url.query()]).flatten();
        let headers = self.headers.iter().map(|(_, value)| value.as_str());
        let secrets = self.api_key.as_deref().into_iter().chain(headers).chain(url);
        secrets.filter(|secret| secret.len() >= 4).map(str::to_owned).collect()
    }

    pub(crate) fn checked_timeout(&self) -> Result<Duration, InvalidSgpOptions> {
        if self.timeout.is_zero() {
            return Err(InvalidSgpOptions::new("a timeout of zero lets no request end: set one"));
        }
        Ok(self.timeout)
    }

    pub(crate) fn compresses(&self) -> bool {
        self.gzip
    }
}

impl fmt::Debug for SgpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base_url = match Url::parse(self.base_url.trim()) {
            Ok(url) => shown(&url),
            Err(_) => "not a URL".to_owned(),
        };
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("SgpOptions")
            .field("base_url", &base_url)
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("account_id", &self.account_id)
            .field("timeout", &self.timeout)
            .field("headers", &headers)
            .field("gzip", &self.gzip)
            .finish()
    }
}

/// Options that no sink can be made from.
///
/// The message says what to mend. It never holds a key, nor the URL.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct InvalidSgpOptions {
    message: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl InvalidSgpOptions {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(crate) fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// `url` without what may be secret: user name, password and query.
pub(crate) fn shown(url: &Url) -> String {
    // Url's own setters refuse some URLs; the pieces cannot hold a secret by accident.
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Whether `url` points at this very machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<SgpOptions, InvalidSgpOptions> {
        SgpOptions::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(env::VarError::NotPresent)
        })
    }

    fn endpoint(base_url: &str) -> String {
        SgpOptions::new(base_url).endpoint().unwrap().to_string()
    }

    #[test]
    fn a_missing_or_empty_variable_is_named() {
        let error = from(&[("SGP_ACCOUNT_ID", "acc")]).unwrap_err().to_string();
        assert!(error.starts_with("SGP_API_KEY is not set: set it"), "{error}");
        let error = from(&[("SGP_API_KEY", "k"), ("SGP_ACCOUNT_ID", " ")]).unwrap_err().to_string();
        assert!(error.starts_with("SGP_ACCOUNT_ID is not set: set it"), "{error}");

        let options = SgpOptions::from_variables(|_| {
            Err(env::VarError::NotUnicode(std::ffi::OsString::from("k")))
        });
        let error = options.unwrap_err().to_string();
        assert_eq!(error, "SGP_CLIENT_BASE_URL is not Unicode: set it again");
    }

    #[test]
    fn without_a_base_url_spans_go_where_scales_own_clients_send() {
        let options = from(&[("SGP_API_KEY", "k\n"), ("SGP_ACCOUNT_ID", "acc")]).unwrap();
        let endpoint = options.endpoint().unwrap();
        assert_eq!(endpoint.as_str(), "https://api.egp.scale.com/v5/spans/batch");
        assert_eq!(options.header_map().unwrap()["x-api-key"], "k");
    }

    #[test]
    fn a_collector_on_this_machine_needs_neither_key_nor_account() {
        for base_url in ["http://127.0.0.1:4319", "http://localhost:1/", "http://[::1]:4319/x"] {
            let options = from(&[("SGP_CLIENT_BASE_URL", base_url)]).unwrap();
            let headers = options.header_map().unwrap();
            assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["user-agent"]);
        }
        for base_url in ["http://10.0.0.1:4319", "http://localhost.example.com", "http://0.0.0.0"] {
            assert!(from(&[("SGP_CLIENT_BASE_URL", base_url)]).is_err(), "{base_url}");
        }
    }

    #[test]
    fn the_path_of_the_base_url_is_kept() {
        assert_eq!(endpoint("http://h"), "http://h/v5/spans/batch");
        assert_eq!(endpoint("http://h:81/public"), "http://h:81/public/v5/spans/batch");
        assert_eq!(endpoint(" https://h/a/b/?q=1#f "), "https://h/a/b/v5/spans/batch?q=1");
    }

    #[test]
    fn an_invalid_base_url_is_refused_without_being_shown() {
        for base_url in
            ["", "sgp.secret", "secret.com:443", "ftp://secret", "https://", "data:secret"]
        {
            let error = SgpOptions::new(base_url).endpoint().unwrap_err().to_string();
            assert!(error.contains("SGP_CLIENT_BASE_URL"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_invalid_header_is_refused_without_its_value() {
        let refusal = |options: SgpOptions| options.header_map().unwrap_err().to_string();
        let error = refusal(SgpOptions::new("http://h").api_key("secret\n"));
        assert!(error.contains("SGP_API_KEY") && !error.contains("secret"), "{error}");
        let error = refusal(SgpOptions::new("http://h").account_id(""));
        assert!(error.contains("SGP_ACCOUNT_ID"), "{error}");
        let error = refusal(SgpOptions::new("http://h").header("x-b", "secret\0"));
        assert!(error.contains("x-b") && !error.contains("secret"), "{error}");
        let error = refusal(SgpOptions::new("http://h").header("x b", "secret"));
        assert!(error.contains("\"x b\"") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let options = SgpOptions::new("https://user:secret@h:81/p?token=secret")
            .api_key("secret")
            .account_id("acc")
            .header("x-team", "secret");
        assert_eq!(
            format!("{options:?}"),
            r#"SgpOptions { base_url: "https://h:81/p", api_key: Some("***"), account_id: Some("acc"), timeout: 10s, headers: ["x-team"], gzip: true }"#
        );
        let broken = format!("{:?}", SgpOptions::new("secret"));
        assert!(!broken.contains("secret"), "{broken}");
    }
}

use std::{env, fmt};

use reqwest::Url;

use crate::{
    InvalidOptions,
    http::Http,
    options::{HttpOptions, OwnHeader, Service, http_setters, is_loopback, read_variable},
};

const API_KEY: &str = "SGP_API_KEY";
const ACCOUNT_ID: &str = "SGP_ACCOUNT_ID";
const BASE_URL: &str = "SGP_CLIENT_BASE_URL";

/// Where Scale's own clients send to if nothing else is set.
const DEFAULT_BASE_URL: &str = "https://api.egp.scale.com";

const SGP: Service = Service {
    name: "SGP",
    key: API_KEY,
    identity: "SGP_API_KEY and SGP_ACCOUNT_ID",
    url: BASE_URL,
    example_url: DEFAULT_BASE_URL,
};

/// Where an [`SgpSink`](crate::SgpSink) sends spans, or an [`SgpClient`](crate::SgpClient) reads
/// them, and as whom.
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
/// # Ok::<(), durable_spans_activity::InvalidOptions>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct SgpOptions {
    http: HttpOptions,
    api_key: Option<String>,
    account_id: Option<String>,
    project_id: Option<String>,
}

impl SgpOptions {
    /// Sends to `{base_url}/v5/spans/batch`. A user name and password in the URL become an
    /// `Authorization` header, a query is kept.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            http: HttpOptions::new(SGP, base_url),
            api_key: None,
            account_id: None,
            project_id: None,
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
    pub fn from_env() -> Result<Self, InvalidOptions> {
        Self::from_variables(env::var)
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Result<String, env::VarError>,
    ) -> Result<Self, InvalidOptions> {
        let read = |name| read_variable(&variable, name);
        let mut options = Self::new(read(BASE_URL)?.unwrap_or_else(|| DEFAULT_BASE_URL.to_owned()));
        options.api_key = read(API_KEY)?;
        options.account_id = read(ACCOUNT_ID)?;
        if is_loopback(&options.endpoint()?) {
            return Ok(options);
        }
        for (name, value) in [(API_KEY, &options.api_key), (ACCOUNT_ID, &options.account_id)] {
            if value.is_none() {
                return Err(InvalidOptions::new(format!(
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

    /// The project, sent as `x-project-id`: a search finds traces of that project only, where the
    /// account lists spans by project. Default: none is sent.
    pub fn project_id(mut self, project_id: impl Into<String>) -> Self {
        self.project_id = Some(project_id.into());
        self
    }

    http_setters!();

    /// The URL that batches are put to.
    pub(crate) fn endpoint(&self) -> Result<Url, InvalidOptions> {
        self.url_of(&["batch"])
    }

    /// The URL of what is below the spans.
    pub(crate) fn url_of(&self, path: &[&str]) -> Result<Url, InvalidOptions> {
        self.http.url_of(&[&["v5", "spans"], path].concat())
    }

    pub(crate) fn http(&self, url: &Url) -> Result<Http, InvalidOptions> {
        Http::new(&self.http, &self.own_headers(), &[url])
    }

    fn own_headers(&self) -> [OwnHeader<'_>; 3] {
        let own = |name, what, setting, value| OwnHeader { name, what, setting, value };
        let project = "the project id of the options";
        [
            own("x-api-key", "the API key", API_KEY, self.api_key.as_deref()),
            own("x-selected-account-id", "the account id", ACCOUNT_ID, self.account_id.as_deref()),
            own("x-project-id", "the project id", project, self.project_id.as_deref()),
        ]
    }

    #[cfg(test)]
    fn headers(&self) -> Result<reqwest::header::HeaderMap, InvalidOptions> {
        self.http.header_map(&self.own_headers())
    }
}

impl fmt::Debug for SgpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SgpOptions")
            .field("base_url", &self.http.shown_url())
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("account_id", &self.account_id)
            .field("project_id", &self.project_id)
            .field("timeout", &self.http.timeout)
            .field("headers", &self.http.header_names())
            .field("gzip", &self.http.gzip)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;

    use super::*;
    use crate::options::variables;

    fn from(given: &[(&str, &str)]) -> Result<SgpOptions, InvalidOptions> {
        SgpOptions::from_variables(variables(given))
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
        assert_eq!(options.headers().unwrap()["x-api-key"], "k");
    }

    #[test]
    fn a_collector_on_this_machine_needs_neither_key_nor_account() {
        for base_url in ["http://127.0.0.1:4319", "http://localhost:1/", "http://[::1]:4319/x"] {
            let options = from(&[("SGP_CLIENT_BASE_URL", base_url)]).unwrap();
            let headers = options.headers().unwrap();
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
        let refusal = |options: SgpOptions| options.headers().unwrap_err().to_string();
        let error = refusal(SgpOptions::new("http://h").api_key("secret\n"));
        assert!(error.contains("SGP_API_KEY") && !error.contains("secret"), "{error}");
        let error = refusal(SgpOptions::new("http://h").account_id(""));
        assert!(error.contains("SGP_ACCOUNT_ID"), "{error}");
        let error = refusal(SgpOptions::new("http://h").project_id("secret\0"));
        assert!(error.contains("project id") && !error.contains("secret"), "{error}");
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
            r#"SgpOptions { base_url: "https://h:81/p", api_key: Some("***"), account_id: Some("acc"), project_id: None, timeout: 10s, headers: ["x-team"], gzip: true }"#
        );
        let broken = format!("{:?}", SgpOptions::new("secret"));
        assert!(!broken.contains("secret"), "{broken}");
    }
}

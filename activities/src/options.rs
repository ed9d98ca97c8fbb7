//! What the options of all sinks that speak HTTP share.

use std::{borrow::Cow, env, error::Error, fmt, net::IpAddr, time::Duration};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT},
};

use crate::http::tls::TlsFiles;

/// Options that no sink can be made from.
///
/// The message says what to mend. It never holds a key, nor the URL.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct InvalidOptions {
    message: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl InvalidOptions {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), source: None }
    }

    pub(crate) fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// Who is spoken to, as errors name it and its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The setting that holds the key.
    pub(crate) key: &'static str,
    /// All the settings that say who the sender is.
    pub(crate) identity: &'static str,
    /// The setting that holds the URL.
    pub(crate) url: &'static str,
    pub(crate) example_url: &'static str,
}

/// Where requests go to and what goes with each of them.
#[derive(Clone)]
pub(crate) struct HttpOptions {
    pub(crate) service: Service,
    pub(crate) url: String,
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
    pub(crate) tls: TlsFiles,
    /// Headers of the user's own, which win over the sink's.
    pub(crate) headers: Vec<(String, String)>,
    /// What must not be shown beside headers, and passwords in the URL.
    pub(crate) secrets: Vec<String>,
}

/// A header that the sink sends by itself.
pub(crate) struct OwnHeader<'a> {
    pub(crate) name: &'static str,
    /// What its value is, and which setting holds it.
    pub(crate) what: &'static str,
    pub(crate) setting: &'static str,
    pub(crate) value: Option<&'a str>,
}

impl HttpOptions {
    pub(crate) fn new(service: Service, url: impl Into<String>) -> Self {
        Self {
            service,
            url: url.into(),
            timeout: Duration::from_secs(10),
            gzip: true,
            tls: TlsFiles::default(),
            headers: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// The URL with `path` added to its own.
    pub(crate) fn url_of(&self, path: &[&str]) -> Result<Url, InvalidOptions> {
        let Service { name, url: setting, example_url, .. } = self.service;
        let invalid = |reason: &dyn fmt::Display| {
            // The URL itself may hold a password.
            InvalidOptions::new(format!(
                "the base URL of {name} is not valid ({reason}): give one like {example_url}, as \
                 {setting} or in the options"
            ))
        };
        let mut url = Url::parse(self.url.trim()).map_err(|error| invalid(&error))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(&"it must begin with http:// or https://"));
        }
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => return Err(invalid(&"it has no path")),
        };
        url.set_fragment(None);
        Ok(url)
    }

    /// What goes with each request, marked as sensitive as a whole except for the user agent.
    pub(crate) fn header_map(&self, own: &[OwnHeader<'_>]) -> Result<HeaderMap, InvalidOptions> {
        let mut headers = HeaderMap::new();
        let user_agent = concat!("durable-spans/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(user_agent));
        for OwnHeader { name, what, setting, value } in own {
            let Some(value) = value else { continue };
            let value = sensitive(value).filter(|value| !value.is_empty()).ok_or_else(|| {
                InvalidOptions::new(format!(
                    "{what} is empty or holds a character that no header may hold, such as a line \
                     end: set {setting} again"
                ))
            })?;
            headers.insert(*name, value);
        }
        for (name, value) in &self.headers {
            let header: HeaderName = name.parse().map_err(|_| {
                InvalidOptions::new(format!("{name:?} is not the name of a header: mend it"))
            })?;
            let value = sensitive(value).ok_or_else(|| {
                InvalidOptions::new(format!(
                    "the value of header {header} holds a character that no header may hold, such \
                     as a line end: mend it"
                ))
            })?;
            headers.insert(header, value);
        }
        Ok(headers)
    }

    pub(crate) fn checked_timeout(&self) -> Result<Duration, InvalidOptions> {
        if self.timeout.is_zero() {
            return Err(InvalidOptions::new("a timeout of zero lets no request end: set one"));
        }
        Ok(self.timeout)
    }

    /// What must never be shown, even if a server repeats it. Text of under 4 bytes keeps no
    /// secret, and is found in every message.
    pub(crate) fn secrets<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let url = Url::parse(self.url.trim()).ok();
        let of_url = url.iter().flat_map(|url| [url.password(), url.query()]).flatten();
        let keys: Vec<&str> = keys.into_iter().collect();
        let of_headers = self.headers.iter().map(|(_, value)| value.as_str());
        let of_headers: Vec<&str> = keys.iter().copied().chain(of_headers).collect();
        // Of "Bearer key", a server may repeat the key alone.
        let bare = of_headers.iter().filter_map(|value| Some(value.split_once(' ')?.1.trim()));
        let others = self.secrets.iter().map(String::as_str).chain(of_url);
        let all = of_headers.iter().copied().chain(bare).chain(others);
        all.filter(|secret| secret.len() >= 4).map(str::to_owned).collect()
    }

    /// The URL as it may be shown.
    pub(crate) fn shown_url(&self) -> String {
        match Url::parse(self.url.trim()) {
            Ok(url) => shown(&url),
            Err(_) => "not a URL".to_owned(),
        }
    }

    pub(crate) fn header_names(&self) -> Vec<&String> {
        self.headers.iter().map(|(name, _)| name).collect()
    }
}

/// The setters that the options of every sink over HTTP have, on a field `http`.
macro_rules! http_setters {
    () => {
        /// How long one attempt may take from the connection to the end of the answer. Default: 10
        /// s, of which connecting may take 5 s. An attempt that takes longer is given up and fails
        /// with a retryable error. Zero is refused.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.http.timeout = timeout;
            self
        }

        /// Sends another header with each request, or another value of one that the sink sends
        /// itself, except for those that describe the body. Default: none. Of one name, the last
        /// value is sent.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.http.headers.push((name.into(), value.into()));
            self
        }

        /// Whether to compress bodies over 1 kB. Default: yes. A server that refuses the first
        /// compressed batch, but takes the same batch uncompressed, gets no more compressed ones.
        pub fn gzip(mut self, gzip: bool) -> Self {
            self.http.gzip = gzip;
            self
        }
    };
}
pub(crate) use http_setters;

/// A variable of the environment without the white space around it, `None` if it is missing or empty.
pub(crate) fn read_variable(
    variable: &impl Fn(&'static str) -> Result<String, env::VarError>,
    name: &'static str,
) -> Result<Option<String>, InvalidOptions> {
    match variable(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(InvalidOptions::new(format!("{name} is not Unicode: set it again")))
        }
    }
}

/// The same for one that must be there.
pub(crate) fn require_variable(
    variable: &impl Fn(&'static str) -> Result<String, env::VarError>,
    name: &'static str,
    whose: &str,
) -> Result<String, InvalidOptions> {
    read_variable(variable, name)?
        .ok_or_else(|| InvalidOptions::new(format!("{name} is not set: set it to that of {whose}")))
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

/// Variables for tests.
#[cfg(test)]
pub(crate) fn variables<'a>(
    given: &'a [(&'a str, &'a str)],
) -> impl Fn(&'static str) -> Result<String, env::VarError> + 'a {
    move |name| {
        let found = given.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned()).ok_or(env::VarError::NotPresent)
    }
}

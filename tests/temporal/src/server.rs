use std::{ffi::OsStr, path::PathBuf, time::Duration};

use temporalio_client::{Client, ClientOptions, Connection, Url, errors::ClientConnectError};

use crate::{
    ServerError, ServerOptions,
    environment::Environment,
    error::{Reason, Tried},
    local::{self, ServerProcess},
    ready::{self, Backoff},
};

/// A Temporal server that can be used, found or started.
///
/// A started one ends when this is dropped (a little later: [`stop`](Self::stop) waits for it) and
/// with this process, however that ends. One that was found is left alone.
#[derive(Debug)]
pub struct TemporalServer {
    url: Url,
    address: String,
    ui_url: Option<String>,
    process: Option<ServerProcess>,
}

impl TemporalServer {
    /// Finds a server or starts one with the default options.
    ///
    /// # Errors
    ///
    /// As [`ServerOptions::start`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start() -> Result<Self, ServerError> {
        Self::options().start().await
    }

    /// The `temporal` command, found as it is for a server that is started.
    ///
    /// # Errors
    ///
    /// When there is none, and none can be had.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn command() -> Result<PathBuf, ServerError> {
        Ok(local::program(&Environment::of_this_process(), Tried::default()).await?)
    }

    /// The default options: any server, without web UI, in memory, on a free port.
    pub fn options() -> ServerOptions {
        ServerOptions::default()
    }

    /// Where the server listens, as `http://host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The port at which the server listens.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// Where the web UI is, as `http://host:port`. `None` unless this server was started with it.
    pub fn ui_url(&self) -> Option<&str> {
        self.ui_url.as_deref()
    }

    /// Whether this server was started here, and not found at `TEMPORAL_ADDRESS`.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// The last lines (at most 8 KiB of each output) that a started server wrote. Empty for one that was found.
    pub fn log(&self) -> String {
        self.process.as_ref().map(ServerProcess::log).unwrap_or_default()
    }

    /// A new connection to the server, for callers that make their own client of it. It belongs to
    /// the current tokio runtime.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn connection(&self) -> Result<Connection, ClientConnectError> {
        ready::connect(&self.url).await
    }

    /// A client of the namespace `default`, over a new [`connection`](Self::connection).
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn client(&self) -> Result<Client, ClientConnectError> {
        let options = ClientOptions::new(ready::NAMESPACE).build();
        Ok(Client::new(self.connection().await?, options)?)
    }

    /// Returns when a started server has ended by itself. Never returns for one that was found.
    pub async fn ended(&mut self) {
        match &mut self.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Ends a started server in order and waits for it, which takes one to two seconds. One that
    /// does not end within ten seconds is killed. One that was found is left alone.
    pub async fn stop(self) {
        if let Some(process) = self.process {
            process.stop().await;
        }
    }

    /// Kills a started server as a crash would and waits until it is gone. One that was found is
    /// left alone.
    pub async fn kill(self) {
        if let Some(process) = self.process {
            process.kill().await;
        }
    }

    pub(crate) fn new(url: Url, ui_url: Option<String>, process: Option<ServerProcess>) -> Self {
        let address = url.as_str().trim_end_matches('/').to_owned();
        Self { url, address, ui_url, process }
    }
}

/// How long a server that should be running may take to answer: it may be starting as well.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn start(
    options: &ServerOptions,
    environment: &Environment,
) -> Result<TemporalServer, Reason> {
    let mut tried = Tried::default();
    match &environment.address {
        Some(address) if !options.needs_its_own() => return running(address, FOUND_WITHIN).await,
        Some(_) => tried.note("TEMPORAL_ADDRESS", "not used: this needs a server of its own"),
        None => tried.note("TEMPORAL_ADDRESS", "not set"),
    }
    local::start(options, environment, tried).await
}

async fn running(address: &OsStr, bound: Duration) -> Result<TemporalServer, Reason> {
    let url = parse(address)?;
    let mut backoff = Backoff::until(bound);
    while let Err(cause) = ready::probe(&url).await {
        if !backoff.wait().await {
            let address = url.authority().to_owned();
            return Err(Reason::Unreachable { address, waited: bound, cause });
        }
    }
    Ok(TemporalServer::new(url, None, None))
}

/// The message never repeats the text: somebody may have put a password into it.
fn parse(address: &OsStr) -> Result<Url, Reason> {
    let reject = |reason: &str| Reason::Address(reason.to_owned());
    let text = address.to_str().ok_or_else(|| reject("it is not UTF-8"))?.trim();
    let url =
        if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let url = url.map_err(|error| Reason::Address(error.to_string()))?;
    if url.scheme() != "http" {
        return Err(reject("other schemes are not supported"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(reject("it must not hold a user or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(reject("something follows the port"));
    }
    if url.port().is_none() {
        return Err(reject("it has no port"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_and_without_scheme() {
        for address in ["localhost:7233", "http://localhost:7233", " http://localhost:7233/ "] {
            let url = parse(OsStr::new(address)).unwrap();
            let server = TemporalServer::new(url, None, None);
            assert_eq!(server.address(), "http://localhost:7233");
            assert_eq!(server.port(), 7233);
            assert!(!server.is_started());
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_rejected_without_repeating_it() {
        for (address, reason) in [
            ("https://localhost:7233", "other schemes are not supported"),
            ("http://me:hunter2@localhost:7233", "it must not hold a user or password"),
            ("localhost:7233/hunter2", "something follows the port"),
            ("localhost", "it has no port"),
            ("localhost:hunter2", "invalid port number"),
        ] {
            let message = parse(OsStr::new(address)).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("TEMPORAL_ADDRESS must be host:port or http://host:port: {reason}")
            );
        }
    }

    #[tokio::test]
    async fn an_address_at_which_nothing_answers_is_an_error_and_nothing_is_started() {
        // Bound, but not listening: nobody else can listen there meanwhile.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let error = running(OsStr::new(&address), Duration::from_millis(200)).await.unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("no usable Temporal server at {address} within 200ms"))
        );
        assert!(message.ends_with("unset TEMPORAL_ADDRESS to have one started"), "{message}");
    }
}

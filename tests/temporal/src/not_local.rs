//! Stands in for `local` where no server can be started.

use std::path::PathBuf;

use crate::{
    ServerOptions, TemporalServer,
    environment::Environment,
    error::{Reason, Tried},
};

/// There is none.
#[derive(Debug)]
pub(crate) enum ServerProcess {}

impl ServerProcess {
    pub(crate) fn log(&self) -> String {
        match *self {}
    }

    pub(crate) async fn ended(&mut self) {
        match *self {}
    }

    pub(crate) async fn stop(self) {
        match self {}
    }

    pub(crate) async fn kill(self) {
        match self {}
    }
}

pub(crate) async fn program(
    _environment: &Environment,
    mut tried: Tried,
) -> Result<PathBuf, Reason> {
    tried.note("finding the command", "works on Unix only");
    Err(Reason::Nothing(tried))
}

pub(crate) async fn start(
    _options: &ServerOptions,
    _environment: &Environment,
    mut tried: Tried,
) -> Result<TemporalServer, Reason> {
    tried.note("starting one", "works on Unix only");
    Err(Reason::Nothing(tried))
}

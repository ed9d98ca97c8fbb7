use std::{io, net::SocketAddr, path::PathBuf};

/// Why a collector could not open its file, read from it, or listen.
///
/// The message says what to do. It never holds a key or the content of a span.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CollectorError(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("cannot open {} as a span store", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error(
        "{} has schema {found}, newer than schema {known} of this collector: upgrade durable-spans or choose another file",
        path.display()
    )]
    NewerSchema { path: PathBuf, found: i64, known: usize },
    #[error("{} is a SQLite file of something else: choose another file", path.display())]
    ForeignFile { path: PathBuf },
    #[error("the span store cannot be read")]
    Read(#[from] rusqlite::Error),
    #[error("the span store holds a span that cannot be read: it was changed from outside")]
    Corrupt { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot listen on {addr}, choose another address or port (0 takes a free one)")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("cannot start a thread for the upkeep of the span store")]
    Thread(#[source] io::Error),
    #[error(
        "refusing to listen on {addr} without an api key: anyone on the network could read and write spans; set a key, or listen on 127.0.0.1"
    )]
    PublicWithoutKey { addr: SocketAddr },
    #[error("the api key is empty: give it a value, or none for a collector without a key")]
    EmptyKey,
}

impl CollectorError {
    /// Whether the file was written by a newer durable-spans than this one.
    pub fn is_newer_schema(&self) -> bool {
        matches!(self.0, Kind::NewerSchema { .. })
    }

    /// Whether the address or key given to [`Collector::serve`](crate::Collector::serve) was
    /// refused before anything listened.
    pub fn is_unsafe_listener(&self) -> bool {
        matches!(self.0, Kind::PublicWithoutKey { .. } | Kind::EmptyKey)
    }
}

impl From<rusqlite::Error> for CollectorError {
    fn from(error: rusqlite::Error) -> Self {
        Kind::Read(error).into()
    }
}

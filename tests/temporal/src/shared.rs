use tokio::sync::OnceCell;

use crate::{ServerError, TemporalServer};

/// A failure is kept as well: the tests that follow fail at once, with the same message.
static SHARED: OnceCell<Result<TemporalServer, ServerError>> = OnceCell::const_new();

/// The one server of this process, found or started when first asked for. It ends with the process.
///
/// It is bound to no runtime, so tests that each have their own can share it. They share its
/// workflows too: each test needs its own task queue and workflow ids.
///
/// # Panics
///
/// When no server can be found or started, with what to do about it. Also outside a tokio runtime
/// with I/O and time enabled.
pub async fn shared() -> &'static TemporalServer {
    match SHARED.get_or_init(TemporalServer::start).await {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    }
}

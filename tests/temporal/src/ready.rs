//! Whether a server can be used: it answers, and its namespace is there.

use std::time::Duration;

use temporalio_client::{
    Connection, ConnectionOptions, Url, errors::ClientConnectError, tonic::IntoRequest,
};
use temporalio_common::protos::temporal::api::workflowservice::v1::DescribeNamespaceRequest;
use tokio::time::{Instant, sleep, timeout};

/// The namespace that every server must have.
pub(crate) const NAMESPACE: &str = "default";

/// A request that hangs is given up after this time, and made again.
const ONE_PROBE: Duration = Duration::from_secs(5);

pub(crate) async fn connect(address: &Url) -> Result<Connection, ClientConnectError> {
    // Without load balancing: it would also send requests to addresses of `localhost` at which
    // nothing listens.
    let options = ConnectionOptions::new(address.clone()).dns_load_balancing(None).build();
    Connection::connect(options).await
}

/// Connects, which asks for the system info, and describes the namespace.
pub(crate) async fn probe(address: &Url) -> Result<(), String> {
    let probe = async {
        let connection = connect(address).await.map_err(|error| error.to_string())?;
        let request =
            DescribeNamespaceRequest { namespace: NAMESPACE.into(), ..Default::default() };
        match connection.workflow_service().describe_namespace(request.into_request()).await {
            Ok(_) => Ok(()),
            Err(status) => Err(format!("namespace {NAMESPACE}: {}", status.message())),
        }
    };
    timeout(ONE_PROBE, probe).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// How long to wait before the next try, up to a deadline.
pub(crate) struct Backoff {
    deadline: Instant,
    delay: Duration,
}

impl Backoff {
    pub(crate) fn until(bound: Duration) -> Self {
        Self { deadline: Instant::now() + bound, delay: Duration::from_millis(10) }
    }

    /// Waits a little longer each time, at most 100 ms. False, at once, after the deadline.
    pub(crate) async fn wait(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        sleep(self.delay).await;
        self.delay = (self.delay * 2).min(Duration::from_millis(100));
        true
    }
}

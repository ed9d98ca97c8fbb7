use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::serve::ListenerExt;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    CollectorError, Store, api_key::ApiKey, error::Kind, http, rate::RateLimit,
    store::retention::Retention, upkeep::Upkeep,
};

/// How long [`RunningCollector::shutdown`] waits for requests in flight.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// See [`Collector::max_requests_in_flight`].
const MAX_REQUESTS_IN_FLIGHT: NonZeroU32 = NonZeroU32::MIN.saturating_add(255);

/// A span store that can be served over HTTP.
///
/// Clones share one file. See the [crate documentation](crate) for what is served.
#[derive(Clone, Debug)]
pub struct Collector {
    store: Arc<Store>,
    api_key: Option<ApiKey>,
    temporal_ui: Option<String>,
    retention: Retention,
    max_requests_per_second: Option<NonZeroU32>,
    max_requests_in_flight: NonZeroU32,
}

impl Collector {
    /// Opens the SQLite file at `path`, which is made if it does not exist. Its directory must
    /// exist.
    ///
    /// Several collectors, of one process or of many, may share a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, holds something else, or has a newer schema
    /// ([`CollectorError::is_newer_schema`]).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CollectorError> {
        Ok(Self {
            store: Arc::new(Store::open(path.as_ref())?),
            api_key: None,
            temporal_ui: None,
            retention: Retention::default(),
            max_requests_per_second: None,
            max_requests_in_flight: MAX_REQUESTS_IN_FLIGHT,
        })
    }

    /// The key that requests must carry as `x-api-key`. Default: none is asked for, which is
    /// allowed on loopback addresses only.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(ApiKey::new(key.into()));
        self
    }

    /// The base URL of Temporal's own web page, such as `http://localhost:8233`, to which the
    /// traces page links each run. Default: none, and no links, unless the reader of the page gives
    /// one. Anything but an `http` or `https` URL is not linked to.
    #[must_use]
    pub fn temporal_ui(mut self, url: impl Into<String>) -> Self {
        self.temporal_ui = Some(url.into());
        self
    }

    /// How long a trace is kept after its last span has arrived. Default: for ever.
    ///
    /// Applies while the collector serves, within seconds; an age under a minute counts as one. A
    /// trace is forgotten as a whole.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.retention.max_age = Some(age);
        self
    }

    /// How big the file may become, in bytes. Default: no limit.
    ///
    /// Applies while the collector serves, within seconds, so that the file may be bigger for a
    /// while. The traces that have been without new spans for longest are forgotten first, as a
    /// whole; those that got one within the last minute are kept, whatever the size.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.retention.max_bytes = Some(bytes);
        self
    }

    /// How many requests are served per second, of all clients together. Further ones are answered
    /// with 429 and `Retry-After`. After a pause, as many may come at once. Default: no limit.
    #[must_use]
    pub fn max_requests_per_second(mut self, requests: NonZeroU32) -> Self {
        self.max_requests_per_second = Some(requests);
        self
    }

    /// How many requests are served at the same time. Further ones are answered with 503 and
    /// `Retry-After`. Default: 256.
    #[must_use]
    pub fn max_requests_in_flight(mut self, requests: NonZeroU32) -> Self {
        self.max_requests_in_flight = requests;
        self
    }

    /// The spans, without HTTP in between.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Listens on `addr` and serves until the result is shut down or dropped. Port 0 takes a free
    /// port. Requests are accepted once this returns.
    ///
    /// # Errors
    ///
    /// When the address is taken or not of this machine, when it can be reached from other
    /// machines and no key is set, and when the key is empty
    /// ([`CollectorError::is_unsafe_listener`] for the last two).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O.
    pub async fn serve(
        &self,
        addr: impl Into<SocketAddr>,
    ) -> Result<RunningCollector, CollectorError> {
        let addr = addr.into();
        match &self.api_key {
            Some(key) if key.is_empty() => return Err(Kind::EmptyKey.into()),
            None if !addr.ip().to_canonical().is_loopback() => {
                return Err(Kind::PublicWithoutKey { addr }.into());
            }
            _ => {}
        }
        let failed = |source| Kind::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        // Answers are small and final: waiting to fill a packet only delays them.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let now = Instant::now();
        let rate = self.max_requests_per_second.map(|most| RateLimit::new(most.get(), now));
        let router = http::router(
            self.store.clone(),
            self.api_key.clone(),
            self.temporal_ui.clone(),
            rate,
            usize::try_from(self.max_requests_in_flight.get()).unwrap_or(usize::MAX),
        );
        let upkeep = Upkeep::start(self.store.clone(), self.retention).map_err(Kind::Thread)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, router)
            // Resolves when told and when the sender is dropped, which both mean the same.
            .with_graceful_shutdown(async { drop(stopped.await) });
        let task = tokio::spawn(async { drop(server.await) });
        Ok(RunningCollector { addr, collector: self.clone(), stop, task, upkeep })
    }
}

/// A collector that serves requests. Dropping it stops it, without waiting for anything.
#[derive(Debug)]
#[must_use = "dropping a running collector stops it"]
pub struct RunningCollector {
    addr: SocketAddr,
    collector: Collector,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    upkeep: Upkeep,
}

impl RunningCollector {
    /// The address that it listens on, with the port that it got.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where a client on this machine reaches it, such as `http://127.0.0.1:8790`.
    pub fn url(&self) -> String {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.addr.port()))
    }

    /// The spans, without HTTP in between.
    pub fn store(&self) -> &Store {
        self.collector.store()
    }

    /// Accepts no more requests and waits for those in flight, at most 5 s.
    pub async fn shutdown(self) {
        let Self { stop, mut task, upkeep, .. } = self;
        drop(stop);
        drop(tokio::task::spawn_blocking(|| upkeep.stop()).await);
        if tokio::time::timeout(SHUTDOWN_PATIENCE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

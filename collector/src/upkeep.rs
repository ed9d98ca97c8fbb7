//! What a serving collector does besides: it brings spans into the index of words, and forgets old
//! traces.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    CollectorError,
    store::{
        Store,
        retention::{Forgotten, Retention},
    },
};

/// How long after a span was stored the index hears of it, at the least.
const INDEX_EVERY: Duration = Duration::from_millis(200);

/// How often old traces are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Goes on until stopped or dropped.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// Dropping it tells the thread to end.
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Upkeep {
    /// # Errors
    ///
    /// When the system has no thread left.
    pub(crate) fn start(store: Arc<Store>, retention: Retention) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut chores = Chores { store, retention, forgot: None, forgotten: Forgotten::default() };
        let work = move || {
            loop {
                // What fails now (another process holds the file, the disk is full) may work later.
                let pause =
                    if chores.step().unwrap_or(false) { Duration::ZERO } else { INDEX_EVERY };
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("durable-spans-upkeep".into()).spawn(work)?;
        Ok(Self { stop, thread })
    }

    /// Waits until the thread has let go of the file, for some ten milliseconds.
    pub(crate) fn stop(self) {
        let Self { stop, thread } = self;
        drop(stop);
        drop(thread.join());
    }
}

struct Chores {
    store: Arc<Store>,
    retention: Retention,
    /// When there was nothing more to forget.
    forgot: Option<Instant>,
    /// What was forgotten since then.
    forgotten: Forgotten,
}

impl Chores {
    /// A little of what there is to do, so that writers need not wait long. False if that is all.
    fn step(&mut self) -> Result<bool, CollectorError> {
        self.store.shorten_log()?;
        // Those who write come first, while the index can wait.
        self.store.wait_for_writers();
        if self.forgot.is_none_or(|forgot| forgot.elapsed() > FORGET_EVERY) {
            if let Some(Forgotten { traces, spans }) = self.store.forget_some(self.retention)? {
                self.forgotten.traces += traces;
                self.forgotten.spans += spans;
                return Ok(true);
            }
            self.forgot = Some(Instant::now());
            let Forgotten { traces, spans } = std::mem::take(&mut self.forgotten);
            if spans > 0 || traces > 0 {
                let Retention { max_age, max_bytes } = self.retention;
                let max_age_s = max_age.map(|age| age.as_secs());
                tracing::info!(traces, spans, max_age_s, max_bytes, "forgot the oldest traces");
            }
        }
        self.store.index_some()
    }
}

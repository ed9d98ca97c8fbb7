//! Against real servers, found or started as for everybody else.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod ending;
mod program;
mod starting;

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

/// Whether something listens there. `address` is `http://host:port`.
fn listens(address: &str) -> bool {
    TcpStream::connect(address.trim_start_matches("http://")).is_ok()
}

/// Waits for something that is certain to happen soon.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

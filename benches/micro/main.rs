//! What one span costs, step by step: recorded, encoded, packed, delivered. Beside each figure is
//! its floor, the least that any code could do for it.
//!
//! ```text
//! cargo bench --bench micro               # all
//! cargo bench --bench micro -- encode     # those whose name holds a word
//! ```
//!
//! `record` and `replay` run in workflow code: on a real server, and in the SDK's replayer.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod activation;
mod delivery;
mod encoding;
#[path = "../peers/src/sample.rs"]
mod sample;
#[expect(dead_code, reason = "the peers ask more of it")]
#[path = "../peers/src/sink.rs"]
mod sink;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    encoding::benches(&mut criterion);
    activation::benches(&mut criterion);
    delivery::benches(&mut criterion);
    criterion.final_summary();
}

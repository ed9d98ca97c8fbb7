use std::{hash::Hasher, time::SystemTime};

use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};
use siphasher::sip::SipHasher13;
use temporalio_workflow::workflow_interceptors::WorkflowInterceptorContext;

/// Name of the random stream that tells whether the run was reset.
const PROBE: &str = "durable-spans/branch";

/// Whether a run is still what began, or goes on after a reset.
///
/// What follows a reset must not get the ids of what it left behind, and nothing tells workflow code of
/// a reset, but that Temporal gives it another seed of randomness from there on. So, once in each
/// activation that asks, a number of a random stream is compared with what the seed that the run began
/// with makes of it. The SDK must go on making the same of it, since users' replays depend on that.
#[derive(Debug)]
pub(crate) struct Branch {
    /// What the stream draws next, as long as the first seed holds.
    expected: Option<Pcg64Mcg>,
    asked_at: Option<(u32, Option<SystemTime>)>,
}

impl Branch {
    /// Of a run that began with this seed.
    pub(crate) fn new(randomness_seed: u64) -> Self {
        let stream = Pcg64Mcg::seed_from_u64(stream_seed(randomness_seed, PROBE));
        Self { expected: Some(stream), asked_at: None }
    }

    /// Whether no reset came before the current activation, in which it is `now`.
    pub(crate) fn is_first(
        &mut self,
        ctx: &WorkflowInterceptorContext,
        now: Option<SystemTime>,
    ) -> bool {
        let activation = (ctx.history_length(), now);
        if self.asked_at != Some(activation) {
            self.asked_at = Some(activation);
            let drawn: u64 = ctx.random_stream(PROBE).random();
            self.expected.take_if(|expected| expected.next_u64() != drawn);
        }
        self.expected.is_some()
    }
}

/// How the SDK seeds the stream of a name.
fn stream_seed(randomness_seed: u64, name: &str) -> u64 {
    let second_key = randomness_seed ^ u64::from_be_bytes(*b"temporal");
    let mut hasher = SipHasher13::new_with_keys(randomness_seed, second_key);
    hasher.write(b"temporal-rust-workflow-random-stream\0");
    hasher.write(name.as_bytes());
    hasher.finish()
}

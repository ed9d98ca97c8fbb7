//! Many runs, many spans, and a sink that does not keep up. Its tests take turns, and have the
//! machine for themselves.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod calls;
#[path = "../integration/harness.rs"]
#[expect(dead_code, reason = "the integration tests use all of it")]
mod harness;
mod long_run;
mod scene;
mod slots;

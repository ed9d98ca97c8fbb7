//! Tests on a real Temporal server. One binary, one server; each test has its own task queue.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod backfill;
mod capture;
mod codec;
mod cost;
mod couriers;
mod doctor;
mod egress;
mod endings;
mod fixtures;
mod fuzz;
mod hand_over;
mod harness;
mod kit;
mod lost_tasks;
mod messages;
mod policy;
mod recording;
mod replay;
mod reset;
mod sampling;
mod several_sinks;
mod split_fleet;
mod starts;
mod traced;
mod tree;
mod trouble;
mod versioning;
mod words;
mod workflows;

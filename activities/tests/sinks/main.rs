//! The sinks against real servers and files on this machine.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod faults;
mod openai;
mod opper;
mod opper_fleet;
mod otlp;
mod secrets;
mod server;
mod sgp;
mod sgp_client;
mod tls;
mod typed;

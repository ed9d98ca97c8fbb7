//! durable-spans-cli

//! durable-spans-collector

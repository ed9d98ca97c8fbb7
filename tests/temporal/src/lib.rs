//! durable-spans-test-server

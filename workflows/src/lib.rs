//! durable-spans-workflow

//! durable-spans-activity

//! Sinks that do not take what they get. No run is harmed, and nothing is lost silently.

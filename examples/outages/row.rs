//! The rows of the table: what goes wrong, for how long, and what may come of it.

use std::time::Duration;

use clap::ValueEnum;
use durable_spans_test_sink::Fault;

use crate::{
    class::Class,
    steps::{BAD, STEPS_WORKFLOW},
};

/// What a run's own commands and its close may be held up by flushes, in all.
const LONGEST_DELAY: Duration = Duration::from_millis(1_500);

/// A row of the table, by its name in `--only` and in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// 500, until the run is two thirds through
    #[value(name = "http-500")]
    Errors,
    /// 500, past the run's close
    #[value(name = "http-500-past-close")]
    ErrorsPastClose,
    /// 429 with Retry-After
    #[value(name = "http-429")]
    TooMany,
    /// Accepts and hangs, past the run's close
    Hangs,
    /// Accepts and hangs, from just before the run's close, so that the close is first to meet it
    HangsAtClose,
    /// The connection is reset after half of each batch was stored
    ResetAfterHalf,
    /// One span of 450 that the sink refuses with 422
    #[value(name = "bad-span-422")]
    BadSpan,
    /// A span whose parent is of another trace, refused with 409
    #[value(name = "foreign-trace-409")]
    ForeignTrace,
    /// The wrong key, then the right one
    WrongKey,
    /// The worker is killed between hand-over and acknowledgement
    WorkerSigkill,
    /// Sink, worker and Temporal server are restarted in turn
    RestartInTurn,
}

impl Row {
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How long the fault lasts: in seconds, or as the table has it.
    pub(crate) fn fault_lasts(self, full: bool) -> Duration {
        let (scaled, full_length) = match self {
            Self::Errors => (3, 60),
            Self::ErrorsPastClose => (5, 600),
            Self::TooMany => (3, 30),
            Self::Hangs => (5, 300),
            Self::HangsAtClose => (5, 300),
            Self::ResetAfterHalf => (3, 60),
            Self::WrongKey => (3, 60),
            // They do not last: a refusal, or one moment.
            Self::BadSpan | Self::ForeignTrace | Self::WorkerSigkill | Self::RestartInTurn => {
                (3, 3)
            }
        };
        Duration::from_secs(if full { full_length } else { scaled })
    }

    pub(crate) fn title(self, class: Class, full: bool) -> String {
        let seconds = self.fault_lasts(full).as_secs();
        let lasts = format!("{seconds} s");
        match self {
            Self::Errors => format!("{} for {lasts}", errors(class)),
            Self::ErrorsPastClose => format!("{} for {lasts}, past the run's close", errors(class)),
            Self::TooMany => format!("429 for {lasts} with Retry-After {seconds}"),
            Self::Hangs => format!("hangs for {lasts}, past the run's close"),
            Self::HangsAtClose => format!("hangs for {lasts}, from just before the run's close"),
            Self::ResetAfterHalf => format!("reset after half the batch was stored, for {lasts}"),
            Self::BadSpan => "one bad span among 450 (422)".to_owned(),
            Self::ForeignTrace if class == Class::Otlp => {
                "one span of a foreign trace (a partial success)".to_owned()
            }
            Self::ForeignTrace => "one span of a foreign trace (409)".to_owned(),
            Self::WrongKey => format!("wrong key for {lasts}, then right"),
            Self::WorkerSigkill => "worker killed between hand-over and acknowledgement".to_owned(),
            Self::RestartInTurn => "sink, worker and server restarted in turn".to_owned(),
        }
    }

    /// What the sink does. Nothing, where the trouble is elsewhere.
    pub(crate) fn fault(self, full: bool) -> Fault {
        match self {
            Self::Errors | Self::ErrorsPastClose => Fault::Errors,
            Self::TooMany => Fault::TooMany { retry_after: self.fault_lasts(full) },
            Self::Hangs | Self::HangsAtClose => Fault::Hangs,
            Self::ResetAfterHalf => Fault::ResetsHalfway,
            Self::BadSpan => Fault::Refuses(BAD),
            Self::WrongKey => Fault::TakesKey("another key"),
            Self::WorkerSigkill => Fault::HangsHalfway,
            // The store refuses a parent of another trace by itself.
            Self::ForeignTrace | Self::RestartInTurn => Fault::None,
        }
    }

    /// The bound of what the run may be held up by.
    pub(crate) fn at_most(self, full: bool) -> Option<Duration> {
        match self {
            Self::WorkerSigkill => Some(task_timeout(full)),
            Self::RestartInTurn => None,
            _ => Some(LONGEST_DELAY),
        }
    }

    /// The name of the one span that is lost.
    pub(crate) fn loses(self) -> Option<&'static str> {
        match self {
            Self::BadSpan => Some(BAD),
            Self::ForeignTrace => Some(STEPS_WORKFLOW),
            _ => None,
        }
    }

    /// Whether workflow tasks time out without tracing, too.
    pub(crate) fn loses_workers(self) -> bool {
        matches!(self, Self::WorkerSigkill | Self::RestartInTurn)
    }
}

fn errors(class: Class) -> &'static str {
    if class == Class::File { "disk full" } else { "500" }
}

/// The timeout of workflow tasks where workers are killed.
pub(crate) fn task_timeout(full: bool) -> Duration {
    Duration::from_secs(if full { 10 } else { 2 })
}

//! The classes of sinks, by what each does with a span that it is sent twice, and one of each.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use durable_spans::{
    FileSink, OpenAiOptions, OpenAiSink, OpperOptions, OpperSink, OtlpOptions, OtlpSink,
    SgpOptions, SgpSink, SpanId, SpanSink, TraceId,
};
use serde::{Deserialize, Serialize};

use crate::row::Row;

/// What the sinks take, unless they are told otherwise.
const KEY: &str = "the right key";

/// A class of sinks, by the name of the one that shows it in `--sink` and in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Class {
    /// Upsert: the later record of a span replaces the earlier one (SGP)
    Sgp,
    /// Create, then finish: the server gives out ids, so a create that is sent again makes another span (Opper)
    Opper,
    /// First write wins: what comes later is ignored (OpenAI's traces)
    #[value(name = "openai")]
    OpenAi,
    /// Append only: every copy stays (OpenTelemetry)
    Otlp,
    /// Append only, and no server: a file of JSON lines
    File,
}

impl Class {
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// A sink as a process makes one. `target` is the URL of the server, or the path of the file.
    pub(crate) fn sink(self, target: &str, timeout: Duration) -> Result<Box<dyn SpanSink>> {
        Ok(match self {
            Self::Sgp => {
                Box::new(SgpSink::new(SgpOptions::new(target).api_key(KEY).timeout(timeout))?)
            }
            Self::Opper => {
                let options = OpperOptions::new(KEY).base_url(target).timeout(timeout);
                Box::new(OpperSink::new(options)?)
            }
            Self::OpenAi => {
                let options = OpenAiOptions::new(KEY).base_url(format!("{target}/v1"));
                Box::new(OpenAiSink::new(options.timeout(timeout))?)
            }
            Self::Otlp => {
                let options = OtlpOptions::new(target).timeout(timeout);
                let options = options.header("authorization", format!("Bearer {KEY}"));
                Box::new(OtlpSink::new(options)?)
            }
            Self::File => Box::new(FileSink::open(target)?),
        })
    }

    /// Whether the trouble of that row can come over such a sink.
    pub(crate) fn knows(self, row: Row) -> bool {
        match self {
            Self::Sgp | Self::OpenAi | Self::Otlp => true,
            // A parent is named by the id that the server gave to it, so a foreign one cannot be.
            Self::Opper => row != Row::ForeignTrace,
            // No server that refuses, hangs or wants a key: a disk that is full for a while, and
            // workers that die.
            Self::File => matches!(
                row,
                Row::Errors | Row::ErrorsPastClose | Row::WorkerSigkill | Row::RestartInTurn
            ),
        }
    }

    /// Whether a span that is sent twice is there twice, and nothing in the sink or its server
    /// prevents that.
    pub(crate) fn keeps_copies(self) -> bool {
        matches!(self, Self::Otlp | Self::File)
    }

    /// Whether the log names the span that this row costs. OpenTelemetry's backends take a batch
    /// except for some spans, and say how many these are.
    pub(crate) fn names_the_loss_of(self, row: Row) -> bool {
        (self, row) != (Self::Otlp, Row::ForeignTrace)
    }

    /// By what the store knows a trace of ours.
    pub(crate) fn trace_id(self, ours: &TraceId) -> Result<TraceId> {
        let bits = ours.bits().context("a trace id is not of this library")?;
        Ok(match self {
            Self::Sgp | Self::Opper | Self::File => ours.clone(),
            Self::OpenAi => format!("trace_{bits:032x}").parse()?,
            Self::Otlp => format!("{bits:032x}").parse()?,
        })
    }

    /// By what the store knows a span of ours. Opper's knows it by another id, and has this one in
    /// its data.
    pub(crate) fn span_id(self, ours: &SpanId) -> String {
        let bits = ours.bits().unwrap_or_default();
        match self {
            Self::Sgp | Self::Opper | Self::File => ours.to_string(),
            Self::OpenAi => format!("span_{:024x}", bits & ((1 << 96) - 1)),
            Self::Otlp => format!("{:016x}", bits & u128::from(u64::MAX)),
        }
    }
}

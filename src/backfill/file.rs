//! Histories in files.

use std::path::Path;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use temporalio_client::WorkflowHistory;
use temporalio_protos::protos::temporal::api::history::v1::History;

/// All of Temporal's messages, as its own build describes them.
const DESCRIPTORS: &[u8] = include_bytes!(env!("TEMPORAL_DESCRIPTORS"));

const HISTORY: &str = "temporal.api.history.v1.History";

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Reads a history from a file: as Temporal's CLI (`temporal workflow show --output json`) and page
/// export it, or as [`WorkflowHistory::to_json`] writes it. Needs the cargo feature `history-json`.
///
/// ```
/// # fn main() -> Result<(), durable_spans::HistoryFileError> {
/// let history = durable_spans::read_history("examples/testing/history.json")?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// When the file cannot be read, or holds something else. Payloads must be as the server stores them:
/// an export with decoded payloads is refused.
pub fn read_history(path: impl AsRef<Path>) -> Result<WorkflowHistory, HistoryFileError> {
    let path = path.as_ref();
    let error = |stage: Stage, source: AnyError| HistoryFileError {
        path: path.display().to_string(),
        stage,
        source,
    };
    let text = std::fs::read(path).map_err(|cause| error(Stage::Read, cause.into()))?;
    let history = parse(&text).map_err(|cause| error(Stage::Parse, cause))?;
    Ok(history.into())
}

/// Why [`read_history`] has no history.
#[derive(Debug, thiserror::Error)]
#[error("{path} {stage}: {source}")]
pub struct HistoryFileError {
    path: String,
    stage: Stage,
    source: AnyError,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Stage {
    #[error("cannot be read")]
    Read,
    #[error(
        "holds no history (export one with `temporal workflow show --output json`, or download one \
         from Temporal's page, without decoding its payloads)"
    )]
    Parse,
}

fn parse(text: &[u8]) -> Result<History, AnyError> {
    // The SDK's form first: what is the CLI's is refused there, not the other way round.
    let history = match serde_json::from_slice(text) {
        Ok(history) => history,
        Err(_) => parse_exported(text)?,
    };
    match history.events.is_empty() {
        true => Err("it has no events".into()),
        false => Ok(history),
    }
}

fn parse_exported(text: &[u8]) -> Result<History, AnyError> {
    let pool = DescriptorPool::decode(DESCRIPTORS)?;
    let kind = pool.get_message_by_name(HISTORY).ok_or("the descriptors know no history")?;
    let mut json = serde_json::Deserializer::from_slice(text);
    // Later servers may write fields that we do not know.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(kind, &mut json, &options)?;
    json.end()?;
    Ok(History::decode(message.encode_to_vec().as_slice())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use temporalio_protos::protos::temporal::api::{
        enums::v1::EventType, history::v1::history_event::Attributes,
    };

    #[test]
    fn the_json_of_temporals_cli_is_read_and_unknown_fields_are_passed_over() {
        let text = br#"{"events": [{
            "eventId": "1", "eventTime": "2026-11-21T08:00:00.123456Z", "newField": {"a": 1},
            "eventType": "EVENT_TYPE_WORKFLOW_EXECUTION_STARTED", "taskId": "1048587",
            "workflowExecutionStartedEventAttributes": {
                "workflowType": {"name": "Order"}, "workflowId": "order-17",
                "originalExecutionRunId": "0f1c2d3e", "workflowRunTimeout": "3.500s",
                "header": {"fields": {"_spans": {"data": "e30="}}}
            }
        }]}"#;
        let history = parse(text).unwrap();
        let event = &history.events[0];
        assert_eq!((event.event_id, event.task_id), (1, 1_048_587));
        assert_eq!(event.event_type(), EventType::WorkflowExecutionStarted);
        assert_eq!(event.event_time.unwrap().nanos, 123_456_000);
        let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) = &event.attributes
        else {
            panic!("{event:?}")
        };
        assert_eq!(started.workflow_id, "order-17");
        assert_eq!(started.workflow_run_timeout.unwrap().nanos, 500_000_000);
        assert_eq!(started.header.as_ref().unwrap().fields["_spans"].data, b"{}");
    }

    #[test]
    fn the_json_of_the_sdk_is_read_whole() {
        let fixture = "tests/fixtures/0.1.0/order-last.history.json";
        let history = parse(&std::fs::read(fixture).unwrap()).unwrap();
        let attributes = history.events.iter().filter(|event| event.attributes.is_some());
        assert_eq!(attributes.count(), history.events.len());
    }

    #[test]
    fn an_error_names_the_file_and_the_remedy() {
        let error = |path| read_history(path).err().unwrap().to_string();
        assert!(error("no/such/file").starts_with("no/such/file cannot be read: "));
        let not_json = error("Cargo.toml");
        assert!(
            not_json.starts_with("Cargo.toml holds no history (export one with "),
            "{not_json}"
        );
    }

    #[test]
    fn what_is_no_history_is_refused() {
        for text in [&b""[..], b"{}", b"[]", br#"{"events": []}"#, br#"{"events": [{}]} x"#] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}

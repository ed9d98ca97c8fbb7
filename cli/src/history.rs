use std::path::Path;

use anyhow::{Context, bail};
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use temporalio_client::WorkflowHistory;
use temporalio_protos::protos::temporal::api::history::v1::History;

/// All of Temporal's messages, as its own build describes them.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(env!("TEMPORAL_DESCRIPTORS"));

const HISTORY: &str = "temporal.api.history.v1.History";

/// Reads a history as Temporal's CLI (`temporal workflow show --output json`) and page export it.
pub(crate) fn read(path: &Path) -> anyhow::Result<WorkflowHistory> {
    let shown = path.display();
    let text = std::fs::read(path).with_context(|| format!("{shown} cannot be read"))?;
    let history = parse(&text).with_context(|| {
        format!(
            "{shown} holds no history: export one with `temporal workflow show --output json`, or \
             download one from Temporal's page, without decoding its payloads"
        )
    })?;
    Ok(history.into())
}

fn parse(text: &[u8]) -> anyhow::Result<History> {
    let pool = DescriptorPool::decode(DESCRIPTORS)?;
    let kind = pool.get_message_by_name(HISTORY).context("the descriptors know no history")?;
    let mut json = serde_json::Deserializer::from_slice(text);
    // Later servers may write fields that we do not know.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(kind, &mut json, &options)?;
    json.end()?;
    let history = History::decode(message.encode_to_vec().as_slice())?;
    if history.events.is_empty() {
        bail!("it has no events");
    }
    Ok(history)
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
    fn what_is_no_history_is_refused() {
        for text in [&b""[..], b"{}", b"[]", br#"{"events": []}"#, br#"{"events": [{}]} x"#] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}

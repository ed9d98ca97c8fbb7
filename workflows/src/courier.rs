//! Carries the last spans of a run past its close, while the sink is down.
#![expect(missing_docs, reason = "the constants that the workflow macros generate have none")]

use std::{
    io::{Read, Write},
    rc::Rc,
    time::Duration,
};

use durable_spans_model::{InvalidSpan, Span};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use temporalio_workflow::{
    LocalActivityOptions, RetryPolicy, WorkflowContext, WorkflowResult,
    common::{
        ActivityDefinition, data_converters::RawValue, error::ApplicationFailure,
        protos::temporal::api::common::v1::Payload,
    },
    workflow, workflow_methods,
};

use crate::flush::{Acknowledgement, FlushGroup};

/// Workflow type of the courier. It is in histories, so it may never change.
pub const COURIER_WORKFLOW: &str = "durable_spans.courier";

/// Activity type by which a courier delivers. It is in histories, so it may never change.
pub const DELIVER_ACTIVITY: &str = "durable_spans.deliver";

/// Bytes of JSON that a courier is meant to carry. The flush activity asks for as many couriers as
/// that takes.
pub const FREIGHT_BYTES: usize = 1_000_000;

/// The most that one command may carry, compressed. Temporal refuses payloads over 2 MiB, and the
/// user's codec may add to this.
const MAX_PACKED_BYTES: usize = 1_400_000;

/// The most that one command may carry, before compression: what a worker unpacks at once.
const MAX_UNPACKED_BYTES: usize = 8_000_000;

/// Of spans, two thirds of the bytes of level 1.
const GZIP_LEVEL: Compression = Compression::new(2);

/// Between the tries of a courier: from this, doubling, up to [`LONGEST_PAUSE`]. In histories, so
/// these may never change.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long one try may take.
const LONGEST_TRY: Duration = Duration::from_secs(5);

/// How many lost spans are named when a courier gives up.
const NAMED_SPANS: usize = 20;

/// What a courier carries: flushes of a run that the sink has not confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Freight {
    /// The run that recorded the spans.
    pub run_id: String,
    /// The spans, by the flush that first carried them.
    pub groups: Vec<FlushGroup>,
}

impl Freight {
    /// As the input of a courier: compressed JSON, which the user's payload codec will encode.
    pub fn pack(&self) -> RawValue {
        let mut gzip = GzEncoder::new(Vec::new(), GZIP_LEVEL);
        let json = serde_json::to_vec(self).expect("strings and numbers always make JSON");
        gzip.write_all(&json).expect("a buffer takes every byte");
        let data = gzip.finish().expect("a buffer takes every byte");
        let encoding = ("encoding".to_owned(), b"binary/plain".to_vec());
        RawValue::new(vec![Payload { metadata: [encoding].into(), data, ..Payload::default() }])
    }

    /// Reads the input of a courier, or of its activity.
    ///
    /// # Errors
    ///
    /// When it is not what [`Freight`] makes, for example because it is still encrypted.
    pub fn unpack(input: &RawValue) -> Result<Self, InvalidSpan> {
        let unreadable = || InvalidSpan::new("courier input", "is not compressed spans");
        let payload = input.payloads.first().ok_or_else(unreadable)?;
        let mut json = Vec::new();
        GzDecoder::new(payload.data.as_slice()).read_to_end(&mut json).map_err(|_| unreadable())?;
        serde_json::from_slice(&json).map_err(|_| unreadable())
    }

    /// A packed freight, and behind it something in JSON.
    pub(crate) fn with_note(freight: &RawValue, note: &impl Serialize) -> RawValue {
        let data = serde_json::to_vec(note).unwrap_or_default();
        let encoding = ("encoding".to_owned(), b"json/plain".to_vec());
        let note = Payload { metadata: [encoding].into(), data, ..Payload::default() };
        let mut input = freight.clone();
        input.payloads.push(note);
        input
    }

    /// What is behind the freight in the input of an activity.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn note<T: DeserializeOwned>(input: &RawValue) -> Result<T, InvalidSpan> {
        let payload = input.payloads.get(1).map(|payload| payload.data.as_slice());
        serde_json::from_slice(payload.unwrap_or_default())
            .map_err(|_| InvalidSpan::new("packed spans", "come without the note about them"))
    }

    /// Packs the first groups, as many as one command may carry. Returns how many bytes of JSON are
    /// left, too. A group that is too large alone is passed over.
    pub(crate) fn pack_first(
        run_id: &str,
        groups: &[Rc<FlushGroup>],
    ) -> (RawValue, Vec<Acknowledgement>, usize) {
        let mut fitting = Vec::new();
        let (mut bytes, mut left) = (0, 0);
        for group in groups {
            let size: usize = group.spans.iter().map(json_len).sum();
            if size > MAX_PACKED_BYTES || bytes + size > MAX_UNPACKED_BYTES {
                left += size;
            } else {
                bytes += size;
                fitting.push((size, group));
            }
        }
        let mut freight = Self {
            run_id: run_id.to_owned(),
            groups: fitting.iter().map(|(_, group)| FlushGroup::clone(group)).collect(),
        };
        loop {
            let packed = freight.pack();
            // One group alone fits, for compression adds next to nothing.
            if packed_len(&packed) <= MAX_PACKED_BYTES || freight.groups.len() <= 1 {
                let carried = freight.groups.iter().map(FlushGroup::acknowledgement).collect();
                return (packed, carried, left);
            }
            let kept = freight.groups.len() / 2;
            left += fitting.drain(kept..).map(|(size, _)| size).sum::<usize>();
            freight.groups.truncate(kept);
        }
    }

    /// Packs the groups for exactly `couriers` couriers. Replay takes the number from history while
    /// the spans come from today's code, so some may carry nothing, and what would be too large
    /// for its courier is given back as lost.
    pub(crate) fn pack_for(
        couriers: u32,
        run_id: &str,
        groups: &[Rc<FlushGroup>],
    ) -> (Vec<RawValue>, Vec<Span>) {
        let couriers = couriers as usize;
        let total: usize = groups.iter().flat_map(|group| group.spans.iter()).map(json_len).sum();
        let share = total / couriers.max(1) + 1;
        let mut freights: Vec<Vec<FlushGroup>> = vec![Vec::new(); couriers];
        let mut before = 0;
        for group in groups {
            let mut parts: Vec<Vec<Span>> = vec![Vec::new(); couriers];
            for span in group.spans.iter() {
                let courier = (before / share).min(couriers.saturating_sub(1));
                before += json_len(span);
                parts[courier].push(span.clone());
            }
            for (courier, spans) in parts.into_iter().enumerate() {
                if !spans.is_empty() {
                    freights[courier].push(group.part(spans));
                }
            }
        }
        let mut lost = Vec::new();
        let packed = freights.into_iter().map(|groups| {
            let mut freight = Self { run_id: run_id.to_owned(), groups };
            loop {
                let packed = freight.pack();
                if packed_len(&packed) <= MAX_PACKED_BYTES {
                    return packed;
                }
                for group in &mut freight.groups {
                    let (kept, rest) = group.spans.split_at(group.spans.len() / 2);
                    lost.extend_from_slice(rest);
                    *group = group.part(kept.to_vec());
                }
                freight.groups.retain(|group| !group.spans.is_empty());
            }
        });
        (packed.collect(), lost)
    }
}

fn packed_len(packed: &RawValue) -> usize {
    packed.payloads.iter().map(|payload| payload.data.len()).sum()
}

pub(crate) fn json_len(span: &Span) -> usize {
    serde_json::to_vec(span).map_or(0, |json| json.len())
}

/// The courier: a child workflow that outlives the run whose spans it carries. It is never traced.
///
/// It tries by a local activity, so it works wherever the run's workflow worker works, whoever
/// serves the activities of its task queue. Each try costs its own history 6 events.
#[workflow]
#[derive(Default)]
pub struct Courier;

#[workflow_methods]
impl Courier {
    /// Delivers, for days if need be.
    #[run(name = COURIER_WORKFLOW)]
    pub async fn run(ctx: &mut WorkflowContext<Self>, freight: RawValue) -> WorkflowResult<()> {
        let mut pause = FIRST_PAUSE;
        // The sum of the pauses instead of the clock, which replay may read otherwise.
        let mut waited = Duration::ZERO;
        let message = loop {
            let mut once = RetryPolicy::default();
            once.set_maximum_attempts(1);
            let options = LocalActivityOptions::builder()
                .schedule_to_close_timeout(LONGEST_TRY)
                .retry_policy(once)
                .build();
            let input = Freight::with_note(&freight, &Try { waited_s: waited.as_secs() });
            // How long to be patient is decided there, so that it is an option of today's worker
            // and yet the same in replay.
            match ctx.execute_local_activity(Deliver, input, options).await {
                Ok(Delivery::Done) => return Ok(()),
                Ok(Delivery::GiveUp) => break loss(&freight, &[]),
                Ok(Delivery::GiveUpFor(lacks)) => break loss(&freight, &lacks),
                Ok(Delivery::Later) | Err(_) => {}
            }
            ctx.timer(pause).await;
            waited += pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        if !ctx.is_replaying() {
            tracing::error!(workflow_id = ctx.workflow_id(), "{message}");
        }
        Err(ApplicationFailure::non_retryable(message).into())
    }
}

/// What the activity of a courier says of one try. In histories, so it may never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Every sink has confirmed everything.
    Done,
    /// The courier shall try again.
    Later,
    /// The courier has tried for long enough. Which sinks lack what, nobody says.
    GiveUp,
    /// The courier has tried for long enough: what these sinks lack is lost there.
    GiveUpFor(Vec<Lack>),
}

/// What a sink lacks of what a courier carries. In histories, so it may never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Name of the sink.
    pub sink: String,
    /// The groups, by their place in [`Freight::groups`].
    pub groups: Vec<usize>,
}

/// What a courier tells its activity besides the freight.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Try {
    /// Seconds that the courier has waited between its tries so far.
    pub waited_s: u64,
}

/// What is lost when a courier gives up: for which sinks, by number and name.
fn loss(freight: &RawValue, lacks: &[Lack]) -> String {
    let groups = Freight::unpack(freight).map(|freight| freight.groups).unwrap_or_default();
    if lacks.is_empty() {
        return format!("gave up, {}", lost(&groups.iter().collect::<Vec<_>>(), ""));
    }
    let of_sink = |Lack { sink, groups: places }: &Lack| {
        let lacking: Vec<_> = places.iter().filter_map(|place| groups.get(*place)).collect();
        lost(&lacking, &format!(" to {sink}"))
    };
    format!("gave up, {}", lacks.iter().map(of_sink).collect::<Vec<_>>().join("; "))
}

fn lost(groups: &[&FlushGroup], to_sink: &str) -> String {
    let spans: Vec<&Span> = groups.iter().flat_map(|group| group.spans.iter()).collect();
    let named: Vec<String> =
        spans.iter().take(NAMED_SPANS).map(|span| format!("{} {}", span.name, span.id)).collect();
    let more = if spans.len() > NAMED_SPANS { ", …" } else { "" };
    format!("{} spans are lost{to_sink}: {}{more}", spans.len(), named.join(", "))
}

/// How the courier names the activity that delivers. The activity half registers it.
struct Deliver;

impl ActivityDefinition for Deliver {
    type Input = RawValue;
    type Output = Delivery;

    fn name(&self) -> &str {
        DELIVER_ACTIVITY
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use durable_spans_model::{SpanId, Timestamp, TraceId};

    fn group(flush: u32, spans: std::ops::Range<u128>, text: &str) -> Rc<FlushGroup> {
        let spans = spans.map(|id| {
            let start = Timestamp::from_unix_ns(0);
            let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(id), "s", start);
            span.input.insert("text".into(), text.into());
            span
        });
        Rc::new(FlushGroup::new(flush, spans.collect()))
    }

    fn ids(freights: &[RawValue]) -> Vec<u128> {
        let freights = freights.iter().map(|packed| Freight::unpack(packed).unwrap());
        let groups = freights.flat_map(|freight| freight.groups);
        groups.flat_map(|group| group.spans.to_vec()).filter_map(|span| span.id.bits()).collect()
    }

    #[test]
    fn one_courier_carries_the_groups_as_they_are() {
        let groups = [group(1, 0..3, "x"), group(4, 3..5, "y")];
        let (packed, lost) = Freight::pack_for(1, "run", &groups);
        let freight = Freight::unpack(&packed[0]).unwrap();
        assert_eq!(freight.run_id, "run");
        assert_eq!(freight.groups, groups.map(|group| (*group).clone()));
        assert!(lost.is_empty());
    }

    #[test]
    fn several_couriers_share_the_spans_and_each_is_started_even_with_nothing() {
        let groups = [group(1, 0..100, "x")];
        let (packed, lost) = Freight::pack_for(3, "run", &groups);
        assert_eq!(packed.len(), 3);
        assert!(lost.is_empty());
        assert_eq!(ids(&packed), (0..100).collect::<Vec<_>>());
        let (packed, _) = Freight::pack_for(5, "run", &[]);
        assert_eq!(packed.len(), 5);
        assert!(ids(&packed).is_empty());
    }

    #[test]
    fn what_is_too_large_for_its_courier_is_given_back_as_lost() {
        // Random characters, which do not compress well.
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + (state >> 33) as u8 % 64)
        };
        let mut group = (*group(1, 0..190, "")).clone();
        for span in Arc::make_mut(&mut group.spans) {
            let text: String = (0..20_000).map(|_| noise()).collect();
            span.input.insert("text".into(), text.into());
        }
        let groups = [Rc::new(FlushGroup::new(1, group.spans.to_vec()))];
        let (packed, lost) = Freight::pack_for(1, "run", &groups);
        let carried = ids(&packed);
        assert!(!lost.is_empty() && !carried.is_empty());
        assert_eq!(carried.len() + lost.len(), 190);
        assert!(packed[0].payloads[0].data.len() <= MAX_PACKED_BYTES);
    }

    #[test]
    fn what_is_lost_is_named_for_each_sink_that_lacks_it() {
        let groups = [group(1, 0..2, "x"), group(2, 2..5, "y")];
        let (packed, _) = Freight::pack_for(1, "run", &groups);
        let lack = |sink: &str, groups: &[usize]| Lack { sink: sink.into(), groups: groups.into() };
        let message = loss(&packed[0], &[lack("otlp", &[1]), lack("file", &[0, 1])]);
        let of_otlp = "gave up, 3 spans are lost to otlp: s 00000000-0000-0000-0000-000000000002, ";
        assert!(message.starts_with(of_otlp), "{message}");
        assert!(message.contains("; 5 spans are lost to file: s 0000"), "{message}");
        assert!(loss(&packed[0], &[]).starts_with("gave up, 5 spans are lost: s "));
    }

    /// In the histories of couriers.
    #[test]
    fn what_the_activity_says_never_changes() {
        let lack = Lack { sink: "otlp".into(), groups: vec![0, 2] };
        let said = [
            (Delivery::Done, r#""done""#),
            (Delivery::Later, r#""later""#),
            (Delivery::GiveUp, r#""give_up""#),
            (
                Delivery::GiveUpFor(vec![lack]),
                r#"{"give_up_for":[{"sink":"otlp","groups":[0,2]}]}"#,
            ),
        ];
        for (delivery, json) in said {
            assert_eq!(serde_json::to_string(&delivery).unwrap(), json);
            assert_eq!(serde_json::from_str::<Delivery>(json).unwrap(), delivery);
        }
    }

    #[test]
    fn a_freight_that_cannot_be_read_is_an_error() {
        let encrypted = RawValue::new(vec![Payload { data: b"?".to_vec(), ..Default::default() }]);
        assert!(Freight::unpack(&encrypted).is_err());
        assert!(Freight::unpack(&RawValue::default()).is_err());
    }
}

use serde_json::{Value, json};

use super::*;
use crate::{SpanId, Timestamp, TraceId};

/// What SGP's processor (scale-gp-beta 0.7.0) sent for one span of each type of the OpenAI Agents
/// SDK 0.24.0.
fn captured() -> Vec<Value> {
    serde_json::from_str(include_str!("tests.json")).unwrap()
}

fn span() -> Span {
    Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", Timestamp::from_unix_ns(0))
}

fn with(data: impl SpanData) -> Span {
    let mut span = span();
    span.set(data);
    span
}

/// Type, input, output and metadata.
fn told(span: &Span) -> Value {
    let Span { span_type, input, output, metadata, .. } = span;
    json!({"type": span_type, "input": input, "output": output, "metadata": metadata})
}

fn messages(role: &str, content: &str) -> Value {
    json!([{"role": role, "content": content}])
}

/// One span of each type, in the order of the captured ones, each told of in two steps.
fn ours(captured: &[Value]) -> Vec<Span> {
    let response = &captured[2]["metadata"]["openai_metadata"]["openai_response"];
    let usage = || Usage::new(3, 4);
    let steps = |mut first: Span, then: &dyn Fn(&mut Span)| {
        then(&mut first);
        first
    };
    let nothing = |_: &mut Span| {};
    vec![
        steps(with(Agent::new("triage").handoffs(["b"]).tools(["t1"])), &|span| {
            span.set(Agent::default().output_type("str"));
        }),
        steps(
            with(
                Generation::new("gpt-x")
                    .messages(messages("user", "hi"))
                    .config("temperature", 0.1),
            ),
            &|span| {
                span.set(Generation::default().output(messages("assistant", "yo")).usage(usage()));
            },
        ),
        steps(with(Response::default().input("hi")), &|span| span.set(Response::of(response))),
        steps(with(Function::new("t1").input(r#"{"a":1}"#)), &|span| {
            span.set(Function::default().output(json!({"b": 2})));
        }),
        steps(with(Handoff::from("triage")), &|span| span.set(Handoff::default().to("b"))),
        steps(with(Guardrail::new("no_pii")), &|span| {
            span.set(Guardrail::default().triggered(true));
        }),
        steps(with(Custom::new("db")), &|span| span.set(Custom::default().field("rows", 3))),
        steps(with(McpTools::new("s")), &|span| span.set(McpTools::default().result(["x"]))),
        steps(with(Transcription::new("m").audio("AA==", "pcm")), &|span| {
            span.set(Transcription::default().output("hi"));
        }),
        steps(with(Speech::new("m").input("hi")), &|span| {
            let first = "2026-11-21T08:05:14.538023+00:00".parse().unwrap();
            span.set(Speech::default().audio("AA==", "pcm").first_content_at(first));
        }),
        steps(with(SpeechGroup::new("hi")), &nothing),
        steps(with(Task::new("answer")), &|span| span.set_usage(usage())),
        steps(with(Turn::new(1, "triage")), &|span| span.set(Turn::default().usage(usage()))),
    ]
}

#[test]
fn each_type_lies_in_a_span_where_sgps_own_processor_puts_it() {
    let captured = captured();
    let ours = ours(&captured);
    assert_eq!(ours.len(), captured.len());
    for (ours, theirs) in ours.iter().zip(captured) {
        let theirs: Span = serde_json::from_value(theirs).unwrap();
        let mut theirs = told(&theirs);
        let data = theirs["metadata"]["openai_metadata"].as_object_mut().unwrap();
        // The span's own id once more, and what was not set.
        data.remove("openai_span_id");
        data.retain(|_, value| !value.is_null());
        assert_eq!(told(ours), theirs);
    }
}

#[test]
fn retrieval_and_evaluation_have_the_names_of_opentelemetry() {
    let documents = json!([{"id": "d1", "score": 0.95}]);
    let search = Retrieval::new("spans?").source("kb-1").top_k(3).model("embed");
    assert_eq!(
        told(&with(search.documents(&documents))),
        json!({
            "type": "KB_RETRIEVAL",
            "input": {"query": "spans?"},
            "output": {"documents": documents},
            "metadata": {
                "gen_ai.data_source.id": "kb-1",
                "gen_ai.request.top_k": 3,
                "gen_ai.request.model": "embed",
            },
        })
    );
    let judged = Evaluation::new("relevance").input("a").expected("b").score(0.5).label("pass");
    assert_eq!(
        told(&with(judged.explanation("near").usage(Usage::new(1, 2)))),
        json!({
            "type": "EVALUATION",
            "input": {"input": "a", "expected": "b"},
            "output": {},
            "metadata": {
                "gen_ai.evaluation.name": "relevance",
                "gen_ai.evaluation.score.value": 0.5,
                "gen_ai.evaluation.score.label": "pass",
                "gen_ai.evaluation.explanation": "near",
                "usage": {"input_tokens": 1, "output_tokens": 2},
            },
        })
    );
}

#[test]
fn setting_again_merges_and_what_is_new_wins() {
    let mut span = span();
    span.metadata.insert("mine".into(), 1.into());
    span.input.insert("also".into(), 2.into());
    span.set(Generation::new("a").config("temperature", 0.1).config("top_p", 1));
    span.set(Generation::new("b").config("temperature", 0.2).messages("hi"));
    assert_eq!(
        told(&span),
        json!({
            "type": "COMPLETION",
            "input": {"also": 2, "input": "hi"},
            "output": {},
            "metadata": {
                "mine": 1,
                "openai_metadata": {
                    "type": "generation",
                    "model": "b",
                    "model_config": {"temperature": 0.2, "top_p": 1},
                },
            },
        })
    );
}

#[test]
fn a_function_takes_arguments_as_models_write_them() {
    let input = |arguments: Value| Value::from(with(Function::new("f").input(arguments)).input);
    assert_eq!(input(json!(r#"{"a": 1}"#)), json!({"a": 1}));
    assert_eq!(input(json!({"a": 1})), json!({"a": 1}));
    assert_eq!(input(json!("[1]")), json!({"input": [1]}));
    assert_eq!(input(json!("Paris")), json!({"input": "Paris"}));
    assert_eq!(input(json!(null)), json!({}));
}

#[test]
fn usage_is_in_one_place_whenever_it_is_set() {
    let usage = || Usage::new(1, 2).cost(0.5, "EUR");
    let generation = || Generation::new("m");
    let mut before = span();
    before.set_usage(usage());
    assert_eq!(before.span_type, SpanType::Standalone);
    before.set(generation());
    let mut after = with(generation());
    after.set_usage(usage());
    assert_eq!(told(&before), told(&after));
    assert_eq!(told(&after), told(&with(generation().usage(usage()))));
    assert_eq!(Usage::of(&after), usage());

    let mut task = span();
    task.set_usage(usage());
    task.set(Task::new("t"));
    assert_eq!(told(&task), told(&with(Task::new("t").usage(usage()))));
    assert_eq!(Usage::of(&task), usage());
}

#[test]
fn usage_has_the_names_of_openais_responses_api() {
    let usage = Usage::new(12, 34).total(50).cached(8).reasoning(30).cost_usd(0.0012);
    let mut span = span();
    span.set_usage(usage.clone());
    let json = json!({
        "input_tokens": 12, "output_tokens": 34, "total_tokens": 50,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens_details": {"reasoning_tokens": 30},
        "cost": 0.0012, "currency": "USD",
    });
    assert_eq!(span.metadata["usage"], json);
    assert_eq!(Usage::of(&span), usage);
    // The old total is none of the new counts.
    span.set_usage(Usage::new(1, 2));
    assert_eq!(Usage::of(&span).total_tokens(), Some(3));
    assert_eq!(Usage::of(&span).cost_amount(), Some(0.0012));
}

#[test]
fn a_cost_that_is_none_is_left_out() {
    for amount in [f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(Usage::default().cost_usd(amount), Usage::default());
    }
    assert_eq!(Usage::default().cost_usd(0.0).cost_amount(), Some(0.0));
}

fn reported(output: Value, metadata: Value) -> (Option<u64>, Option<u64>, Option<f64>) {
    let usage = Usage::reported(output.as_object().unwrap(), metadata.as_object().unwrap());
    (usage.input_tokens(), usage.output_tokens(), usage.cost_amount())
}

#[test]
fn usage_is_found_where_clients_put_it() {
    let counts = json!({"input_tokens": 7, "output_tokens": 3});
    let of_chat = json!({"prompt_tokens": 7, "completion_tokens": 3});
    for (output, metadata) in [
        (json!({"usage": counts}), json!({})),
        (json!({"usage": of_chat}), json!({"usage": {"input_tokens": 1, "output_tokens": 1}})),
        (json!({}), json!({"usage": of_chat})),
        (json!({}), counts.clone()),
        (json!({}), json!({"openai_metadata": {"usage": counts}})),
        (json!({}), json!({"openai_metadata": {"usage": null, "data": {"usage": counts}}})),
        (json!({}), json!({"openai_metadata": {"openai_response": {"usage": counts}}})),
        (json!({}), json!({"meta": {"usage": counts}})),
        (json!({}), json!({"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3})),
        (json!({}), json!({"llm.token_count.prompt": 7, "llm.token_count.completion": 3})),
    ] {
        assert_eq!(reported(output, metadata), (Some(7), Some(3), None));
    }
    for metadata in [
        json!({"usage": {"cost": 0.5}}),
        json!({"cost_usd": 0.5}),
        json!({"usage": {"details": {"total_cost": 0.5}}}),
        json!({"llm.cost.total": 0.5}),
    ] {
        assert_eq!(reported(json!({}), metadata), (None, None, Some(0.5)));
    }
}

#[test]
fn counts_are_never_mixed_from_two_places() {
    let usage = json!({"usage": {"prompt_tokens": 2}});
    let other = json!({"usage": {"total_tokens": 99}, "cost": 0.5});
    assert_eq!(reported(usage, other), (Some(2), None, Some(0.5)));
}

#[test]
fn what_is_no_count_is_not_reported() {
    assert_eq!(reported(json!({"usage": 7}), json!({"usage": null})), (None, None, None));
    let odd = json!({"usage": {"input_tokens": -1, "output_tokens": "3", "cost": -2}});
    assert_eq!(reported(odd, json!({})), (None, None, None));
}

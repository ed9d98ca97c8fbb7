use serde_json::{Map, Value};

/// The tokens of a language model that a span says it used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
}

/// Where clients put an object with token counts: their own place, and those of the OpenAI Agents
/// SDK behind SGP's processor.
const PLACES: [&[&str]; 3] =
    [&["usage"], &["openai_metadata", "usage"], &["openai_metadata", "openai_response", "usage"]];

/// Names of the counts: of OpenAI's Responses API and Anthropic, of OpenAI's Chat Completions, of
/// OpenTelemetry's conventions (today's and those before).
const INPUT: [&str; 4] =
    ["input_tokens", "prompt_tokens", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"];
const OUTPUT: [&str; 4] = [
    "output_tokens",
    "completion_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
];

impl Usage {
    /// What `output` reports, or else `metadata`.
    pub(crate) fn reported(output: &Map<String, Value>, metadata: &Map<String, Value>) -> Self {
        let mut usage = Self::default();
        for object in [output, metadata] {
            for place in PLACES {
                if let Some(counts) = descend(object, place) {
                    usage.fill(counts);
                }
            }
        }
        usage.fill(metadata);
        usage
    }

    fn fill(&mut self, counts: &Map<String, Value>) {
        let count = |names: [&str; 4]| {
            names.iter().find_map(|name| counts.get(*name)?.as_i64().filter(|count| *count >= 0))
        };
        self.input_tokens = self.input_tokens.or_else(|| count(INPUT));
        self.output_tokens = self.output_tokens.or_else(|| count(OUTPUT));
    }
}

fn descend<'a>(object: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Map<String, Value>> {
    path.iter().try_fold(object, |object, name| object.get(*name)?.as_object())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reported(output: Value, metadata: Value) -> (Option<i64>, Option<i64>) {
        let usage = Usage::reported(output.as_object().unwrap(), metadata.as_object().unwrap());
        (usage.input_tokens, usage.output_tokens)
    }

    #[test]
    fn counts_are_found_where_clients_put_them() {
        let counts = json!({"input_tokens": 7, "output_tokens": 3});
        let of_chat = json!({"prompt_tokens": 7, "completion_tokens": 3});
        for (output, metadata) in [
            (json!({"usage": counts}), json!({})),
            (json!({"usage": of_chat}), json!({"usage": {"input_tokens": 1, "output_tokens": 1}})),
            (json!({}), json!({"usage": of_chat})),
            (json!({}), counts.clone()),
            (json!({}), json!({"openai_metadata": {"usage": counts}})),
            (json!({}), json!({"openai_metadata": {"openai_response": {"usage": counts}}})),
            (json!({}), json!({"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3})),
        ] {
            assert_eq!(reported(output, metadata), (Some(7), Some(3)));
        }
    }

    #[test]
    fn what_is_no_count_is_not_reported() {
        assert_eq!(reported(json!({"usage": 7}), json!({"usage": null})), (None, None));
        let odd = json!({"usage": {"input_tokens": -1, "output_tokens": "3"}});
        assert_eq!(reported(odd, json!({})), (None, None));
        assert_eq!(reported(json!({"usage": {"prompt_tokens": 2}}), json!({})), (Some(2), None));
    }
}

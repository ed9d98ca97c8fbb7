use serde_json::{Map, Value};

use super::fields::{merge, object, usage_place};
use crate::{Fields, Span};

/// What money is counted in where nobody says.
const USD: &str = "USD";

/// The tokens of a language model that were used, and what they cost.
///
/// ```
/// use durable_spans_model::data::Usage;
///
/// let usage = Usage::new(12, 34).cached(8).cost_usd(0.0012);
/// assert_eq!(usage.total_tokens(), Some(46));
/// assert_eq!(usage.cost_amount(), Some(0.0012));
/// assert_eq!(usage.cost_currency(), "USD");
/// ```
///
/// In a span this is an object `usage` with the names of OpenAI's Responses API: `input_tokens`,
/// `output_tokens`, `total_tokens`, `input_tokens_details.cached_tokens` and
/// `output_tokens_details.reasoning_tokens`. For money there is no convention: it is `cost`, a
/// decimal number, with its `currency`.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Usage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    cost: Option<Cost>,
}

#[derive(Clone, Debug, PartialEq)]
struct Cost {
    amount: f64,
    currency: String,
}

impl Usage {
    /// That many tokens went in and came out. The default says nothing of them.
    pub fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            input_tokens: Some(input_tokens),
            output_tokens: Some(output_tokens),
            ..Self::default()
        }
    }

    /// All tokens. Default: the sum of those that went in and came out.
    pub fn total(mut self, tokens: u64) -> Self {
        self.total_tokens = Some(tokens);
        self
    }

    /// How many of the tokens that went in came from a cache.
    pub fn cached(mut self, tokens: u64) -> Self {
        self.cached_tokens = Some(tokens);
        self
    }

    /// How many of the tokens that came out were spent on reasoning.
    pub fn reasoning(mut self, tokens: u64) -> Self {
        self.reasoning_tokens = Some(tokens);
        self
    }

    /// The cost in US dollars.
    pub fn cost_usd(self, amount: f64) -> Self {
        self.cost(amount, USD)
    }

    /// The cost in a currency, by its code of three letters (ISO 4217), such as `EUR`. An amount that
    /// is no number, or is negative, is left out.
    pub fn cost(mut self, amount: f64, currency: impl Into<String>) -> Self {
        self.cost = (amount.is_finite() && amount >= 0.0)
            .then(|| Cost { amount, currency: currency.into() });
        self
    }

    /// Tokens that went in, cached ones included.
    pub fn input_tokens(&self) -> Option<u64> {
        self.input_tokens
    }

    /// Tokens that came out, those for reasoning included.
    pub fn output_tokens(&self) -> Option<u64> {
        self.output_tokens
    }

    /// All tokens: as said, or else the sum of what is known.
    pub fn total_tokens(&self) -> Option<u64> {
        self.total_tokens.or_else(|| match (self.input_tokens, self.output_tokens) {
            (None, None) => None,
            (input, output) => Some(input.unwrap_or(0).saturating_add(output.unwrap_or(0))),
        })
    }

    /// Tokens that came from a cache, of those that went in.
    pub fn cached_tokens(&self) -> Option<u64> {
        self.cached_tokens
    }

    /// Tokens for reasoning, of those that came out.
    pub fn reasoning_tokens(&self) -> Option<u64> {
        self.reasoning_tokens
    }

    /// The cost, in [`Self::cost_currency`].
    pub fn cost_amount(&self) -> Option<f64> {
        Some(self.cost.as_ref()?.amount)
    }

    /// The cost, if it is in US dollars.
    pub fn cost_in_usd(&self) -> Option<f64> {
        self.cost_amount().filter(|_| self.cost_currency().eq_ignore_ascii_case(USD))
    }

    /// What the cost is counted in; `USD` if nobody says.
    pub fn cost_currency(&self) -> &str {
        self.cost.as_ref().map_or(USD, |cost| &cost.currency)
    }

    /// What a span reports, wherever its sender has put it: see [`Self::reported`].
    pub fn of(span: &Span) -> Self {
        Self::reported(&span.output, &span.metadata)
    }

    /// What output or metadata report. The output goes first, since it is what a provider has answered.
    ///
    /// Looked for is an object `usage` in either, within any object of the metadata, and where SGP's
    /// processor has that of OpenAI's types; then the metadata itself. Known are the names of
    /// OpenAI's two APIs, of Anthropic, of OpenTelemetry's conventions, old and new, and of
    /// OpenInference. All counts of tokens come from one place, the first that has any; so does the cost.
    pub fn reported<V: Values>(output: &V, metadata: &V) -> Self {
        let mut usage = Self::default();
        let openai = metadata.get("openai_metadata").and_then(Value::as_object);
        let deep = ["data", "openai_response"].into_iter().filter_map(|name| openai?.get(name));
        let nested = metadata.all().chain(deep).filter_map(|value| value.get("usage"));
        let own = [output, metadata].into_iter().filter_map(|object| object.get("usage"));
        for object in own.chain(nested).filter_map(Value::as_object) {
            usage.fill(object);
        }
        usage.fill(metadata);
        usage
    }

    fn fill(&mut self, object: &impl Values) {
        let count = |names: &[&str]| names.iter().find_map(|name| find(object, name)?.as_u64());
        if self.total_tokens().is_none() {
            self.input_tokens = count(INPUT);
            self.output_tokens = count(OUTPUT);
            self.total_tokens = count(TOTAL);
            self.cached_tokens = count(CACHED);
            self.reasoning_tokens = count(REASONING);
        }
        let amount = COST.iter().find_map(|name| find(object, name)?.as_f64());
        if let (None, Some(amount)) = (&self.cost, amount.filter(|amount| *amount >= 0.0)) {
            let currency = find(object, "currency").and_then(Value::as_str).unwrap_or(USD);
            self.cost = Some(Cost { amount, currency: currency.to_owned() });
        }
    }

    /// See [`Span::set_usage`].
    pub(super) fn write_to(self, span: &mut Span) {
        let place = usage_place(span);
        if self.input_tokens.or(self.output_tokens).is_some() {
            // What was a total before is none now.
            place.remove("total_tokens");
        }
        merge(place, self.into_json());
    }

    /// The object as it stands in a span.
    pub fn into_json(self) -> Map<String, Value> {
        let mut json = Map::new();
        let counts = [
            ("input_tokens", self.input_tokens),
            ("output_tokens", self.output_tokens),
            ("total_tokens", self.total_tokens),
        ];
        for (name, count) in counts {
            json.extend(count.map(|count| (name.to_owned(), count.into())));
        }
        if let Some(cached) = self.cached_tokens {
            object(&mut json, "input_tokens_details").insert("cached_tokens".into(), cached.into());
        }
        if let Some(reasoning) = self.reasoning_tokens {
            let details = object(&mut json, "output_tokens_details");
            details.insert("reasoning_tokens".into(), reasoning.into());
        }
        if let Some(Cost { amount, currency }) = self.cost {
            json.insert("cost".into(), amount.into());
            json.insert("currency".into(), currency.into());
        }
        json
    }
}

const INPUT: &[&str] = &[
    "input_tokens",
    "prompt_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
];
const OUTPUT: &[&str] = &[
    "output_tokens",
    "completion_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
];
const TOTAL: &[&str] =
    &["total_tokens", "tokens", "gen_ai.usage.total_tokens", "llm.token_count.total"];
const CACHED: &[&str] = &[
    "input_tokens_details/cached_tokens",
    "prompt_tokens_details/cached_tokens",
    "cache_read_input_tokens",
    "cached_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "llm.token_count.prompt_details.cache_read",
];
const REASONING: &[&str] = &[
    "output_tokens_details/reasoning_tokens",
    "completion_tokens_details/reasoning_tokens",
    "reasoning_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "llm.token_count.completion_details.reasoning",
];
const COST: &[&str] = &["cost", "cost_usd", "total_cost", "gen_ai.usage.cost", "llm.cost.total"];

/// Values by name: those of a span, or of a JSON object.
pub trait Values {
    /// The value of that name.
    fn get(&self, name: &str) -> Option<&Value>;

    /// All values.
    fn all(&self) -> impl Iterator<Item = &Value>;
}

impl Values for Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }

    fn all(&self) -> impl Iterator<Item = &Value> {
        self.iter().map(|(_, value)| value)
    }
}

impl Values for Map<String, Value> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }

    fn all(&self) -> impl Iterator<Item = &Value> {
        self.values()
    }
}

/// A value by its name, or by a path with slashes. What is not of OpenAI's own names stands under
/// `details` in what its exporter sends.
fn find<'a>(object: &'a impl Values, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let value = object.get(first).or_else(|| object.get("details")?.get(first))?;
    if rest.is_empty() { Some(value) } else { value.get(rest) }
}

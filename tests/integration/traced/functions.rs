//! `#[traced]` on functions of every form.

use std::{fmt::Display, future::Future, pin::Pin, sync::Mutex, time::Duration};

use durable_spans::{DurableSpans, MemorySink, Span, SpanStatus, span, traced};
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::{Value, json};

use crate::harness::{assert_tree, named};

/// The spans of `work`, which is the root `work` of a trace.
async fn recorded(work: impl Future) -> Vec<Span> {
    let sink = MemorySink::new();
    let spans = DurableSpans::new(sink.clone());
    spans.trace("work").scope(work).await;
    spans.flush(Duration::from_secs(5)).await;
    sink.spans()
}

fn inputs(span: &Span) -> Value {
    span.input.clone().into()
}

/// Its documentation and its other attributes stay.
#[traced]
#[must_use]
#[deprecated(note = "for the test")]
fn add(a: u32, mut b: u32) -> u32 {
    if a == 0 {
        return b;
    }
    b += a;
    b
}

#[traced(name = "half", span_type = DataManipulation, output)]
fn halve(number: &str) -> Result<u32, std::num::ParseIntError> {
    let number: u32 = number.parse()?;
    Ok(number / 2)
}

#[traced(name = format!("greet {name}"), redact(password), skip(_now))]
async fn greet(name: String, password: &str, _now: &Mutex<u32>, _unused: Mutex<()>) -> String {
    span("inside").start().end();
    tokio::task::yield_now().await;
    format!("{name} {}", password.len())
}

#[traced(record(r#type))]
async fn boxed_error(r#type: u8, other: Mutex<u8>) -> Result<u8, Box<dyn std::error::Error>> {
    if r#type > 1 {
        return Err("too large".into());
    }
    let parsed: u8 = "1".parse()?;
    Ok(parsed + *other.lock().unwrap())
}

#[traced(skip_all)]
fn nothing(_a: u32, b: u32) {
    if b == 0 {
        return;
    }
    unreachable!("the test passes 0");
}

#[tokio::test]
#[expect(deprecated, reason = "to see that the attribute stays")]
async fn arguments_and_outcomes_are_recorded_as_the_options_say() {
    let spans = recorded(async {
        assert_eq!((add(1, 2), add(0, 7)), (3, 7));
        assert_eq!(halve("4"), Ok(2));
        assert!(halve("four").is_err());
        let greeted = greet("Ada".to_owned(), "secret", &Mutex::new(1), Mutex::new(())).await;
        assert_eq!(greeted, "Ada 6");
        assert_eq!(boxed_error(1, 1.into()).await.unwrap(), 2);
        assert!(boxed_error(2, 1.into()).await.is_err());
        nothing(1, 0);
    })
    .await;
    assert_tree(
        &spans,
        "
        work STANDALONE SUCCESS
          add STANDALONE SUCCESS
          add STANDALONE SUCCESS
          half DATA_MANIPULATION SUCCESS
          half DATA_MANIPULATION ERROR
          greet Ada STANDALONE SUCCESS
            inside STANDALONE SUCCESS
          boxed_error STANDALONE SUCCESS
          boxed_error STANDALONE ERROR
          nothing STANDALONE SUCCESS
        ",
    );
    let of = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    assert!(of("add").any(|span| inputs(span) == json!({"a": 1, "b": 2})));
    let half = of("half").find(|span| span.status == SpanStatus::Success).unwrap();
    assert_eq!((inputs(half), &half.output["output"]), (json!({"number": "4"}), &json!(2)));
    let half = of("half").find(|span| span.status == SpanStatus::Error).unwrap();
    assert_eq!(half.metadata["error_type"], "ParseIntError");
    assert!(half.output.is_empty());
    let greet = named(&spans, "greet Ada");
    assert_eq!(inputs(greet), json!({"name": "Ada", "password": "[REDACTED]"}));
    assert!(of("boxed_error").any(|span| inputs(span) == json!({"type": 2})));
    assert!(named(&spans, "nothing").input.is_empty());
}

struct Point(u32, u32);

#[traced]
fn patterns((a, [b, ..]): (u32, [u32; 2]), Point(x, ref y): Point, &z: &u8, (): ()) -> u32 {
    a + b + x + *y + u32::from(z)
}

#[traced(output)]
fn generic<'a, T, const N: usize>(first: &'a T, _rest: [T; N]) -> Option<&'a T>
where
    T: Serialize + PartialEq,
{
    (N > 0).then_some(first)
}

#[traced]
fn evens(upto: u32) -> impl Iterator<Item = u32> + use<> {
    (0..upto).filter(|n| n % 2 == 0)
}

#[traced(skip(shout))]
async fn callbacks(
    text: impl AsRef<str> + Serialize,
    shout: impl Fn(&str) -> String,
) -> Result<impl Display, String> {
    if text.as_ref().is_empty() {
        Err("empty")?;
    }
    Ok(shout(text.as_ref()))
}

#[traced]
fn coerced(error: bool) -> Box<dyn Display> {
    if error {
        return Box::new("no");
    }
    Box::new(1)
}

#[traced]
async fn coerced_later(_error: bool) -> Option<Box<dyn Display + Send>> {
    Some(Box::new(1))
}

#[rustfmt::skip]
#[traced]
fn on_one_line(n: u32) -> u32 { n + 1 }

#[traced]
fn empty(_n: u32) {}

#[traced]
fn allowed() -> u32 {
    #![expect(clippy::let_and_return, reason = "to see that attributes inside of a body work")]
    let one = 1;
    one
}

#[traced(output)]
async fn unit_in_result(ok: bool) -> anyhow::Result<()> {
    anyhow::ensure!(ok, "not ok");
    Ok(())
}

#[traced]
fn longest<'a>(words: &'a mut Vec<String>) -> &'a mut String {
    let at = (0..words.len()).max_by_key(|at| words[*at].len()).unwrap();
    &mut words[at]
}

#[traced]
async fn first<'a>(words: &'a mut [String], _more: &str) -> &'a mut String {
    &mut words[0]
}

#[traced]
async fn recursive(depth: u8) -> u8 {
    if depth == 0 { 0 } else { 1 + Box::pin(recursive(depth - 1)).await }
}

#[traced]
fn shadowed(span: u32, output: u32, inputs: u32, future: u32, name: u32) -> u32 {
    let context = 1;
    span + output + inputs + future + name + context
}

#[tokio::test]
async fn patterns_generics_and_borrows_compile_and_work() {
    let spans = recorded(async {
        assert_eq!(patterns((1, [2, 3]), Point(4, 5), &6, ()), 18);
        assert_eq!(generic(&"x", ["y"]), Some(&"x"));
        assert_eq!(evens(5).collect::<Vec<_>>(), [0, 2, 4]);
        let shouted = callbacks("hey", |text| text.to_uppercase()).await;
        assert_eq!(shouted.ok().unwrap().to_string(), "HEY");
        assert!(callbacks("", |text| text.to_owned()).await.is_err());
        assert_eq!(
            (coerced(true).to_string(), coerced(false).to_string()),
            ("no".into(), "1".into())
        );
        assert_eq!(coerced_later(true).await.unwrap().to_string(), "1");
        let mut words = vec!["a".to_owned(), "bcd".to_owned()];
        longest(&mut words).push('e');
        first(&mut words, "").await.push('f');
        assert_eq!(words, ["af", "bcde"]);
        assert_eq!(recursive(2).await, 2);
        assert_eq!((on_one_line(1), allowed()), (2, 1));
        empty(1);
        assert!(unit_in_result(true).await.is_ok() && unit_in_result(false).await.is_err());
        assert_eq!(shadowed(1, 2, 3, 4, 5), 16);
    })
    .await;
    assert_eq!(inputs(named(&spans, "patterns")), json!({"a": 1, "b": 2, "x": 4, "y": 5, "z": 6}));
    assert_eq!(named(&spans, "generic").output["output"], "x");
    let shadowed = json!({"span": 1, "output": 2, "inputs": 3, "future": 4, "name": 5});
    assert_eq!(inputs(named(&spans, "shadowed")), shadowed);
    let deepest = spans.iter().find(|span| inputs(span) == json!({"depth": 0})).unwrap();
    let above = spans.iter().find(|span| Some(&span.id) == deepest.parent_id.as_ref()).unwrap();
    assert_eq!(inputs(above), json!({"depth": 1}));
}

trait Shop {
    fn price(&self, item: &str) -> Result<u32, String>;

    async fn buy(&mut self, item: String) -> Result<u32, String>;

    #[traced]
    fn greeting(&self) -> String {
        "welcome".to_owned()
    }
}

struct Bakery {
    sold: Vec<String>,
}

impl Bakery {
    #[traced]
    fn open() -> Self {
        Self { sold: Vec::new() }
    }

    #[traced(output)]
    fn close(self) -> Vec<String> {
        self.sold
    }
}

impl Shop for Bakery {
    #[traced]
    fn price(&self, item: &str) -> Result<u32, String> {
        let price = item.len().checked_sub(4).ok_or_else(|| format!("no {item}"))?;
        u32::try_from(price).map_err(|error| error.to_string())
    }

    #[traced(output)]
    async fn buy(&mut self, item: String) -> Result<u32, String> {
        let price = self.price(&item)?;
        self.sold.push(item);
        Ok(price)
    }
}

#[tokio::test]
async fn methods_and_those_of_traits_are_spans() {
    let spans = recorded(async {
        let mut bakery = Bakery::open();
        assert_eq!(bakery.greeting(), "welcome");
        assert_eq!(bakery.buy("bread".to_owned()).await, Ok(1));
        assert_eq!(bakery.buy("ham".to_owned()).await, Err("no ham".to_owned()));
        assert_eq!(bakery.close(), ["bread"]);
    })
    .await;
    assert_tree(
        &spans,
        "
        work STANDALONE SUCCESS
          open STANDALONE SUCCESS
          greeting STANDALONE SUCCESS
          buy STANDALONE SUCCESS
            price STANDALONE SUCCESS
          buy STANDALONE ERROR
            price STANDALONE ERROR
          close STANDALONE SUCCESS
        ",
    );
    assert_eq!(named(&spans, "close").output["output"], json!(["bread"]));
    assert!(named(&spans, "close").input.is_empty());
}

#[traced(output)]
fn later(n: u32) -> impl Future<Output = Result<u32, String>> + Send + use<> {
    let doubled = n.checked_mul(2);
    async move {
        tokio::task::yield_now().await;
        span("inside").start().end();
        doubled.ok_or("too large".to_owned())
    }
}

#[traced]
fn pinned<'a>(text: &'a str) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>> {
    Box::pin(async move { text.len() })
}

#[traced(skip_all)]
fn aliased(text: &str) -> BoxFuture<'_, Result<usize, String>> {
    Box::pin(async move { Err(text.to_owned()) })
}

#[async_trait::async_trait]
trait Store {
    async fn load(&self, key: &str) -> Result<String, String>;
}

struct Shelf(String);

#[async_trait::async_trait]
impl Store for Shelf {
    #[traced(output)]
    async fn load(&self, key: &str) -> Result<String, String> {
        tokio::task::yield_now().await;
        if key != self.0 {
            return Err(format!("no {key}"));
        }
        Ok(format!("{key}!"))
    }
}

#[tokio::test]
async fn a_returned_future_is_in_its_span_until_it_ends() {
    let spans = recorded(async {
        assert_eq!(later(2).await, Ok(4));
        assert!(later(u32::MAX).await.is_err());
        assert_eq!(pinned("abc").await, 3);
        assert!(aliased("no").await.is_err());
        drop(later(3));
        let shelf: Box<dyn Store> = Box::new(Shelf("jam".to_owned()));
        assert_eq!(shelf.load("jam").await, Ok("jam!".to_owned()));
    })
    .await;
    assert_tree(
        &spans,
        "
        work STANDALONE SUCCESS
          later STANDALONE SUCCESS
            inside STANDALONE SUCCESS
          later STANDALONE ERROR
            inside STANDALONE SUCCESS
          pinned STANDALONE SUCCESS
          aliased STANDALONE ERROR
          load STANDALONE SUCCESS
        ",
    );
    let done = spans.iter().find(|span| inputs(span) == json!({"n": 2})).unwrap();
    assert_eq!(done.output["output"], 4);
    assert_eq!(inputs(named(&spans, "pinned")), json!({"text": "abc"}));
    let load = named(&spans, "load");
    assert_eq!((inputs(load), &load.output["output"]), (json!({"key": "jam"}), &json!("jam!")));
}

type Outcome<T> = Result<T, String>;

#[traced(result)]
fn by_alias() -> Outcome<u32> {
    Err("as told".to_owned())
}

struct QueryResult;

#[traced(result = false)]
async fn no_result() -> QueryResult {
    QueryResult
}

#[traced]
async fn never_ends() -> u32 {
    std::future::pending().await
}

#[traced(crate = ::durable_spans)]
fn panics() {
    panic!("no")
}

#[tokio::test]
async fn spans_end_with_the_true_outcome() {
    let spans = recorded(async {
        assert!(by_alias().is_err());
        no_result().await;
        assert!(tokio::time::timeout(Duration::from_millis(1), never_ends()).await.is_err());
        assert!(std::panic::catch_unwind(panics).is_err());
    })
    .await;
    let status = |name| named(&spans, name).status;
    assert_eq!(status("by_alias"), SpanStatus::Error);
    assert_eq!(status("no_result"), SpanStatus::Success);
    assert_eq!(status("never_ends"), SpanStatus::Canceled);
    assert_eq!(named(&spans, "panics").metadata["error_type"], "Panic");
}

/// Counts how often it is serialized.
struct Counting<'a>(&'a Mutex<u32>);

impl Serialize for Counting<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        *self.0.lock().unwrap() += 1;
        serializer.serialize_unit()
    }
}

#[traced]
fn costly(_first: u8, value: &Counting<'_>) {
    let _ = value;
}

#[traced]
async fn costly_later(value: &Counting<'_>) {
    let _ = value;
}

#[tokio::test]
async fn where_nothing_is_traced_arguments_are_not_serialized() {
    let count = Mutex::new(0);
    costly(1, &Counting(&count));
    costly_later(&Counting(&count)).await;
    assert_eq!(*count.lock().unwrap(), 0);
    recorded(async {
        costly(1, &Counting(&count));
        costly_later(&Counting(&count)).await;
    })
    .await;
    assert_eq!(*count.lock().unwrap(), 2);
}

#[tokio::test]
async fn traced_futures_can_be_spawned() {
    let spawned = tokio::spawn(async {
        let mut bakery = Bakery::open();
        let greeted = greet("Ada".to_owned(), "x", &Mutex::new(1), Mutex::new(())).await;
        let words = first(&mut ["a".to_owned()], "").await.clone();
        let bought = bakery.buy("bread".to_owned()).await;
        (greeted, words, bought, later(1).await, callbacks("a", str::to_owned).await.is_ok())
    });
    let expected = ("Ada 1".to_owned(), "a".to_owned(), Ok(1), Ok(2), true);
    assert_eq!(spawned.await.unwrap(), expected);
}

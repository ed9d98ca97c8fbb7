use durable_spans_macros::traced;

#[traced(nam = "a span")]
fn unknown_option() {}

#[traced("a span")]
fn name_without_its_option() {}

#[traced(name = "")]
fn empty_name() {}

#[traced(name = "one", name = "two")]
fn option_twice() {}

fn main() {}

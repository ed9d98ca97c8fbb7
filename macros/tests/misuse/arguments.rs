#![allow(unused)]

use durable_spans_macros::traced;

struct ActivityContext;
struct Shop;

#[traced(record(orders, order))]
fn no_such_argument(order: u32) {}

#[traced(record(order), skip(order))]
fn recorded_and_skipped(order: u32) {}

#[traced(redact(order, order))]
fn named_twice(order: u32) {}

#[traced(record(order.id))]
fn a_part_of_an_argument(order: u32) {}

#[traced(record(ctx))]
fn a_context(ctx: ActivityContext) {}

impl Shop {
    #[traced(record(self))]
    fn receiver(&self) {}
}

fn main() {}

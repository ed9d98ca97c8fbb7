#![allow(unused)]

use durable_spans_macros::traced;

struct ActivityContext;
struct WorkflowContext;
struct WorkflowContextView;

#[traced(ctx = context)]
fn no_such_context(ctx: &WorkflowContext) {}

#[traced(ctx = self.ctx)]
fn no_receiver(ctx: &WorkflowContext) {}

#[traced(ctx = WorkflowContext {})]
fn no_argument() {}

#[traced]
fn unnamed_context(_: &WorkflowContext) {}

#[traced]
fn query(view: &WorkflowContextView) {}

// As `#[activities]` and `#[workflow_methods]` leave them.
#[traced]
fn __sync_activity(ctx: ActivityContext) {}

#[traced(name = "bake")]
async fn __activity(ctx: ActivityContext) {}

#[traced(span_type = Custom)]
async fn __run(ctx: &mut WorkflowContext) {}

fn main() {}

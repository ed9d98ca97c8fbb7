//! What `#[traced]` expands to. Not for use by hand, and no promise that it stays.

pub use durable_spans_model::to_json;
use serde::Serialize;

/// What can be recorded as an input or output.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be recorded, since it does not implement `Serialize`",
    label = "cannot be recorded",
    note = "derive `serde::Serialize` for it, or leave it out: an argument by `#[traced(skip(…))]`, or \
            with its name alone by `redact(…)`; what is returned by removing `output`"
)]
pub trait Recordable: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Recordable for T {}

/// Gives the compiler a place to say that a value cannot be recorded, once.
pub fn recordable<T: Recordable + ?Sized>(value: &T) -> impl Serialize {
    value
}

/// Calls a closure where it stands, without a warning that it could be left out.
pub fn call<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// A value of any type, in code that is never reached.
pub fn never<T>() -> T {
    unreachable!("tells the compiler a type only")
}

use std::rc::Rc;

use temporalio_workflow::{SyncWorkflowContext, WorkflowContext, WorkflowContextKey};

use crate::{recorder::SpanRef, run::Run};

/// Where in the trace the code that is being polled now stands.
///
/// One composite value under one key: with two keys nested eagerly, the SDK would lose the outer.
#[derive(Clone)]
pub struct Scope {
    pub(crate) run: Rc<Run>,
    pub(crate) current: SpanRef,
}

pub(crate) struct ScopeKey;

impl WorkflowContextKey for ScopeKey {
    type Value = Scope;
}

/// Contexts that know the current scope. Seals the trait that users see.
pub trait Scoped {
    fn scope(&self) -> Option<Rc<Scope>>;
    fn within<R>(&self, scope: Scope, work: impl FnOnce() -> R) -> R;
}

impl<W> Scoped for WorkflowContext<W> {
    fn scope(&self) -> Option<Rc<Scope>> {
        self.context_value::<ScopeKey>()
    }

    fn within<R>(&self, scope: Scope, work: impl FnOnce() -> R) -> R {
        self.with_context_value_sync::<ScopeKey, R>(scope, work)
    }
}

impl<W> Scoped for SyncWorkflowContext<W> {
    fn scope(&self) -> Option<Rc<Scope>> {
        self.context_value::<ScopeKey>()
    }

    fn within<R>(&self, scope: Scope, work: impl FnOnce() -> R) -> R {
        self.with_context_value_sync::<ScopeKey, R>(scope, work)
    }
}

//! Where a function's code runs, as its arguments tell: in a workflow, or in an activity or a client.

use darling::{Error, Result};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Expr, FnArg, Ident, PatType, Path, Signature, Type, TypeParamBound, TypePath, TypeReference,
};

use crate::{arguments::bound_by, options::Options};

/// The context by which a function records spans.
pub(crate) enum Context {
    /// Workflow code: an expression for a reference to its context. `owned` if that must be cloned,
    /// since the body moves or borrows it mutably.
    Workflow { place: TokenStream, owned: bool },
    /// Activity or client code, whose current span is known to its task.
    Task,
}

impl Context {
    pub(crate) fn of(signature: &Signature, options: &Options) -> Result<Self> {
        if let Some(place) = &options.ctx {
            return named(place, signature);
        }
        for argument in typed(signature) {
            match kind(&argument.ty) {
                Some(Kind::View) => {
                    let error = "queries, update validators and `#[init]` record no spans, since \
                                 replay repeats them in no particular order: remove `#[traced]`";
                    return Err(Error::custom(error).with_span(&argument.ty));
                }
                Some(Kind::Workflow) => return of_argument(argument),
                Some(Kind::Activity) | None => {}
            }
        }
        Ok(Self::Task)
    }
}

/// Whether a type is a context of the SDK's, which is never recorded.
pub(crate) fn is_context(ty: &Type) -> bool {
    kind(ty).is_some()
}

/// Whether `#[activities]` or `#[workflow_methods]` has made this of a function that the SDK calls,
/// hence one that has a span already. Both take their own attribute away, and put `__` before the
/// name.
pub(crate) fn is_handler(signature: &Signature) -> bool {
    signature.ident.to_string().starts_with("__")
        && typed(signature).any(|argument| match kind(&argument.ty) {
            Some(Kind::Activity) => !matches!(&*argument.ty, Type::Reference(_)),
            Some(Kind::Workflow) => matches!(&*argument.ty, Type::Reference(_)),
            _ => false,
        })
}

#[derive(PartialEq, Eq)]
enum Kind {
    Workflow,
    View,
    Activity,
}

fn kind(ty: &Type) -> Option<Kind> {
    match ty {
        Type::Reference(TypeReference { elem, .. }) => kind(elem),
        Type::Paren(inner) => kind(&inner.elem),
        Type::Group(inner) => kind(&inner.elem),
        Type::Path(TypePath { path, .. }) => match last(path)?.to_string().as_str() {
            "WorkflowContext" | "SyncWorkflowContext" => Some(Kind::Workflow),
            "WorkflowContextView" => Some(Kind::View),
            "ActivityContext" => Some(Kind::Activity),
            _ => None,
        },
        Type::ImplTrait(ty) => {
            let is_spans = |bound: &TypeParamBound| match bound {
                TypeParamBound::Trait(bound) => {
                    last(&bound.path).is_some_and(|name| name == "WorkflowSpans")
                }
                _ => false,
            };
            ty.bounds.iter().any(is_spans).then_some(Kind::Workflow)
        }
        _ => None,
    }
}

pub(crate) fn last(path: &Path) -> Option<&Ident> {
    path.segments.last().map(|segment| &segment.ident)
}

fn typed(signature: &Signature) -> impl Iterator<Item = &PatType> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(argument),
        FnArg::Receiver(_) => None,
    })
}

fn of_argument(argument: &PatType) -> Result<Context> {
    let [ident] = &bound_by(&argument.pat)[..] else {
        let error = "name this argument: its context records the span";
        return Err(Error::custom(error).with_span(&argument.pat));
    };
    Ok(of_type(ident.to_token_stream(), &argument.ty))
}

fn of_type(place: TokenStream, ty: &Type) -> Context {
    match ty {
        Type::Reference(TypeReference { mutability: None, .. }) => {
            Context::Workflow { place, owned: false }
        }
        _ => Context::Workflow { place: quote!(#place.clone()), owned: true },
    }
}

/// The context that `ctx = …` names: an argument, or a part of one.
fn named(place: &Expr, signature: &Signature) -> Result<Context> {
    let Some(root) = root(place) else {
        let error = "name an argument here, or a field of one";
        return Err(Error::custom(error).with_span(place));
    };
    let argument = typed(signature).find(|argument| bound_by(&argument.pat).contains(&root));
    match argument {
        Some(argument) if matches!(place, Expr::Path(_)) => {
            Ok(of_type(place.to_token_stream(), &argument.ty))
        }
        None if root != "self" || signature.receiver().is_none() => {
            let error = format!("there is no argument `{root}` to record the span by");
            Err(Error::custom(error).with_span(&root))
        }
        _ => Ok(Context::Workflow { place: quote!((#place).clone()), owned: true }),
    }
}

/// `order` of `order.ctx`.
pub(crate) fn root(place: &Expr) -> Option<Ident> {
    match place {
        Expr::Path(path) => path.path.get_ident().cloned(),
        Expr::Field(field) => root(&field.base),
        Expr::MethodCall(call) => root(&call.receiver),
        Expr::Reference(reference) => root(&reference.expr),
        _ => None,
    }
}

//! What a function returns.

use syn::{
    AngleBracketedGenericArguments, GenericArgument, Path, PathArguments, ReturnType, Signature,
    Type, TypeParamBound, TypePath, parse_quote,
    visit_mut::{VisitMut, visit_type_mut},
};

use crate::context::last;

/// When the work of a function is done.
pub(crate) enum Shape {
    /// When it returns.
    Sync,
    /// It is an `async fn`.
    Async,
    /// When the future ends that it returns.
    Future {
        /// That future is in a `Box`, as `async-trait` makes it.
        boxed: bool,
        /// What the future gives.
        output: Box<Type>,
    },
}

impl Shape {
    pub(crate) fn of(signature: &Signature) -> Self {
        match &signature.output {
            _ if signature.asyncness.is_some() => Self::Async,
            ReturnType::Default => Self::Sync,
            ReturnType::Type(_, ty) => future(ty).unwrap_or(Self::Sync),
        }
    }

    /// Whether the work gives a `Result`, as far as its type tells.
    pub(crate) fn gives_result(&self, signature: &Signature) -> bool {
        match (self, &signature.output) {
            (Self::Future { output, .. }, _) => is_result(output),
            (_, ReturnType::Default) => false,
            (_, ReturnType::Type(_, ty)) => is_result(ty),
        }
    }
}

/// The return type, as a closure or an expression may have it: `_` instead of `impl Trait`.
pub(crate) fn annotation(signature: &Signature) -> Option<Type> {
    struct Infer;

    impl VisitMut for Infer {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if matches!(ty, Type::ImplTrait(_)) {
                *ty = parse_quote!(_);
            }
            visit_type_mut(self, ty);
        }
    }

    let ReturnType::Type(_, ty) = &signature.output else { return None };
    let mut ty = Type::clone(ty);
    Infer.visit_type_mut(&mut ty);
    Some(ty)
}

/// `anyhow::Result<T>`, `WorkflowResult<T>`.
fn is_result(ty: &Type) -> bool {
    let Type::Path(TypePath { path, .. }) = ty else { return false };
    last(path).is_some_and(|name| name.to_string().ends_with("Result"))
}

fn future(ty: &Type) -> Option<Shape> {
    let of = |boxed, output| Shape::Future { boxed, output: Box::new(output) };
    match ty {
        Type::ImplTrait(ty) => output_among(ty.bounds.iter()).map(|output| of(false, output)),
        Type::Path(TypePath { path, .. }) => boxed_output(path).map(|output| of(true, output)),
        _ => None,
    }
}

/// `T` of `Pin<Box<dyn Future<Output = T>>>` and of the aliases of the crate `futures`.
fn boxed_output(path: &Path) -> Option<Type> {
    let name = last(path)?;
    if name == "BoxFuture" || name == "LocalBoxFuture" {
        return types(path).last().cloned();
    }
    let Some(Type::Path(inner)) = (name == "Pin").then(|| types(path).next()).flatten() else {
        return None;
    };
    let is_box = last(&inner.path).is_some_and(|name| name == "Box");
    match is_box.then(|| types(&inner.path).next()).flatten() {
        Some(Type::TraitObject(object)) => output_among(object.bounds.iter()),
        _ => None,
    }
}

/// `T` of `Future<Output = T>`.
fn output_among<'a>(bounds: impl Iterator<Item = &'a TypeParamBound>) -> Option<Type> {
    let bounds = bounds.filter_map(|bound| match bound {
        TypeParamBound::Trait(bound) => Some(&bound.path),
        _ => None,
    });
    let mut futures = bounds.filter(|path| last(path).is_some_and(|name| name == "Future"));
    arguments(futures.next()?).find_map(|argument| match argument {
        GenericArgument::AssocType(output) if output.ident == "Output" => Some(output.ty.clone()),
        _ => None,
    })
}

fn types(path: &Path) -> impl Iterator<Item = &Type> {
    arguments(path).filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn arguments(path: &Path) -> impl Iterator<Item = &GenericArgument> {
    let arguments = match path.segments.last().map(|segment| &segment.arguments) {
        Some(PathArguments::AngleBracketed(AngleBracketedGenericArguments { args, .. })) => {
            Some(args.iter())
        }
        _ => None,
    };
    arguments.into_iter().flatten()
}

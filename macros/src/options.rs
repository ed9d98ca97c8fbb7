//! What is written in `#[traced(…)]`.

use darling::{
    Error, FromMeta, Result,
    ast::NestedMeta,
    util::{Flag, parse_expr::preserve_str_literal},
};
use proc_macro2::TokenStream;
use syn::{Expr, ExprLit, Ident, Lit, Meta, Path, Token, punctuated::Punctuated, spanned::Spanned};

#[derive(FromMeta)]
pub(crate) struct Options {
    #[darling(default, with = span_name, map = Some)]
    pub(crate) name: Option<Expr>,
    #[darling(default)]
    pub(crate) span_type: Option<Path>,
    #[darling(default)]
    pub(crate) record: Option<Names>,
    #[darling(default)]
    pub(crate) skip: Names,
    #[darling(default)]
    pub(crate) skip_all: Flag,
    #[darling(default)]
    pub(crate) redact: Names,
    #[darling(default)]
    pub(crate) output: Flag,
    /// Whether the value returned is a `Result`. `None` to look at its type.
    #[darling(default)]
    pub(crate) result: Option<bool>,
    #[darling(default, with = preserve_str_literal, map = Some)]
    pub(crate) ctx: Option<Expr>,
    /// Where durable-spans is.
    #[darling(default, rename = "crate")]
    pub(crate) krate: Option<Path>,
}

impl Options {
    pub(crate) fn parse(attribute: TokenStream) -> Result<Self> {
        let list = NestedMeta::parse_meta_list(attribute)?;
        if let Some(NestedMeta::Lit(literal)) = list.first() {
            let error = "the options have names: `#[traced(name = \"…\")]` names the span";
            return Err(Error::custom(error).with_span(literal));
        }
        Self::from_list(&list)
    }

    /// Options that only a span of its own can have.
    pub(crate) fn of_new_span(&self) -> Vec<(&'static str, proc_macro2::Span)> {
        let name = self.name.as_ref().map(|name| ("name", name.span()));
        let span_type = self.span_type.as_ref().map(|path| ("span_type", path.span()));
        name.into_iter().chain(span_type).collect()
    }
}

/// Names of arguments, as `record(a, b)` has them.
#[derive(Default)]
pub(crate) struct Names(Vec<Ident>);

impl Names {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ident> {
        self.0.iter()
    }
}

impl FromMeta for Names {
    fn from_meta(meta: &Meta) -> Result<Self> {
        let list = meta.require_list()?;
        let values = list.parse_args_with(Punctuated::<Expr, Token![,]>::parse_terminated)?;
        let mut errors = Error::accumulator();
        let names = values.iter().filter_map(|value| errors.handle(name(value))).collect();
        errors.finish_with(Self(names))
    }
}

fn name(value: &Expr) -> Result<Ident> {
    let name = match value {
        Expr::Path(path) => path.path.get_ident().cloned(),
        _ => None,
    };
    let error = "name arguments here: what is not an argument itself can be recorded in the \
                 body, by `current_span().input(…)`";
    name.ok_or_else(|| Error::custom(error).with_span(value))
}

fn span_name(meta: &Meta) -> Result<Expr> {
    let name = preserve_str_literal(meta)?;
    match &name {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if text.value().is_empty() => {
            let error = "a span needs a name: leave `name` out to take the function's";
            Err(Error::custom(error).with_span(text))
        }
        _ => Ok(name),
    }
}

//! What `#[traced]` stands on.

use darling::{Error, Result};
use proc_macro2::TokenStream;
use syn::{Item, ItemFn, TraitItemFn, spanned::Spanned};

/// A function or method with a body.
pub(crate) fn parse(item: TokenStream) -> Result<ItemFn> {
    let function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(error) => return Err(refuse(item).unwrap_or_else(|| error.into())),
    };
    if let Some(constant) = &function.sig.constness {
        let error = "a `const fn` records no spans, since it may run in the compiler: remove \
                     `const` or `#[traced]`";
        return Err(Error::custom(error).with_span(constant));
    }
    Ok(function)
}

/// `None` where the item is nothing that could be parsed.
fn refuse(item: TokenStream) -> Option<Error> {
    let span = item.span();
    if syn::parse2::<TraitItemFn>(item.clone()).is_ok() {
        let error = "there is no body to trace: put `#[traced]` on the methods that implement \
                     this one";
        return Some(Error::custom(error).with_span(&span));
    }
    let error = match syn::parse2::<Item>(item).ok()? {
        Item::Impl(_) | Item::Trait(_) => "put `#[traced]` on the methods in here, one by one",
        _ => "only functions and methods can be traced",
    };
    Some(Error::custom(error).with_span(&span))
}

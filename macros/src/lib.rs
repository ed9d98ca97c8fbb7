//! The attribute `#[traced]`, as a crate of its own, since procedural macros must be in one. Users have it
//! from the crate `durable-spans`.

mod arguments;
mod context;
mod expand;
mod item;
mod options;
mod returns;

use proc_macro::TokenStream;

#[doc = include_str!("traced.md")]
#[proc_macro_attribute]
pub fn traced(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    let expanded = item::parse(item.clone())
        .and_then(|function| expand::expand(attribute.into(), function))
        // The item stays, so that its callers are not in error, too.
        .unwrap_or_else(|error| {
            let errors = error.write_errors();
            quote::quote!(#errors #item)
        });
    expanded.into()
}

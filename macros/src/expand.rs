//! What a traced function becomes.

use darling::{Error, Result};
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Block, Expr, Ident, ItemFn, Path, ReturnType, Stmt, ext::IdentExt, parse_quote,
    spanned::Spanned,
};

use crate::{
    arguments::{Recorded, recorded},
    context::{Context, is_handler},
    options::Options,
    returns::{Shape, annotation},
};

pub(crate) fn expand(attribute: TokenStream, mut function: ItemFn) -> Result<TokenStream> {
    let options = Options::parse(attribute)?;
    let signature = &function.sig;
    let shape = Shape::of(signature);
    let traced = Traced {
        function: &function,
        context: Context::of(signature, &options)?,
        recorded: recorded(signature, &options)?,
        gives_result: options.result.unwrap_or_else(|| shape.gives_result(signature)),
        krate: options.krate.clone().unwrap_or_else(|| parse_quote!(::durable_spans)),
        shape,
        options: &options,
    };
    let block = match is_handler(signature) {
        true => traced.on_current_span()?,
        false => traced.in_new_span(),
    };
    let stmts = vec![Stmt::Expr(Expr::Verbatim(block), None)];
    function.block = Box::new(Block { brace_token: function.block.brace_token, stmts });
    Ok(function.into_token_stream())
}

struct Traced<'a> {
    function: &'a ItemFn,
    options: &'a Options,
    context: Context,
    shape: Shape,
    recorded: Vec<Recorded>,
    gives_result: bool,
    /// Where durable-spans is.
    krate: Path,
}

/// A name that the user's code can neither see nor mean.
fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Like [`own`], where errors are shown at `place` of the user's code.
fn here(place: Span) -> Span {
    Span::mixed_site().located_at(place)
}

impl Traced<'_> {
    /// The function, with a span around its work.
    fn in_new_span(&self) -> TokenStream {
        let (name, context) = (self.name(), self.owned_context());
        match &self.shape {
            Shape::Sync => {
                let method = self.method("in_scope");
                let builder = self.builder(name);
                let (handle, inputs) = (self.handle(), self.inputs());
                let annotation = self.arrow();
                let work = match self.options.output.is_present() {
                    true => self.with_output(self.called()),
                    false => self.body(),
                };
                quote! {
                    #context
                    #builder.#method(move |#handle| #annotation { #inputs #work })
                }
            }
            Shape::Async => {
                let builder = self.builder(name);
                let inputs = self.inputs();
                let scope = self.scope(builder, inputs, self.async_block());
                quote!(#context #scope.await)
            }
            Shape::Future { boxed, .. } => {
                let (name_value, inputs, future) = (own("name"), own("inputs"), own("future"));
                let values = self.recorded.iter().map(|argument| {
                    let (name, value) = self.input(argument);
                    let krate = &self.krate;
                    quote!((#name, #krate::__private::to_json(#value)))
                });
                let values = quote!([#(#values),*]);
                let keep = (!self.recorded.is_empty()).then(|| quote!(let #inputs = #values;));
                let handle = own("span");
                let replay = keep
                    .is_some()
                    .then(|| quote!(for (name, value) in #inputs { #handle.input(name, value); }));
                let called = self.called();
                let scope = self.scope(
                    self.builder(name_value.to_token_stream()),
                    replay.unwrap_or_default(),
                    future.to_token_stream(),
                );
                let work = quote!(async move { #scope.await });
                let work = if *boxed { quote!(::std::boxed::Box::pin(#work)) } else { work };
                quote! {
                    let #name_value = #name;
                    #keep
                    #context
                    let #future = #called;
                    #work
                }
            }
        }
    }

    /// The function, with what is known of it added to the span that it is in already.
    fn on_current_span(&self) -> Result<TokenStream> {
        if let Some((option, at)) = self.options.of_new_span().first() {
            let error = format!(
                "this is a span already, to which `#[traced]` adds the arguments: leave out \
                 `{option}`; the SDK's own attribute sets the name"
            );
            return Err(Error::custom(error).with_span(at));
        }
        if let (Context::Task, Shape::Sync) = (&self.context, &self.shape) {
            let error = "the SDK runs an activity that is no `async fn` on another thread, where \
                         its span is not known: make it `async`, or remove `#[traced]`";
            return Err(Error::custom(error).with_span(&self.function.sig.fn_token));
        }
        let krate = &self.krate;
        let context = self.owned_context();
        let handle = own("span");
        let current = match &self.context {
            Context::Task => quote!(#krate::current_span()),
            Context::Workflow { .. } => {
                let place = self.place();
                quote!(#krate::WorkflowSpans::current_span(#place))
            }
        };
        let inputs = self.inputs();
        let work = match (self.options.output.is_present(), &self.shape) {
            (false, _) => self.body(),
            (true, Shape::Async) => {
                let block = self.async_block();
                self.with_output(quote!(#block.await))
            }
            (true, _) => self.with_output(self.called()),
        };
        let current = self.uses_handle().then(|| quote!(#context let #handle = #current;));
        Ok(quote!(#current #inputs #work))
    }

    fn name(&self) -> TokenStream {
        match &self.options.name {
            Some(name) => name.to_token_stream(),
            None => self.function.sig.ident.unraw().to_string().into_token_stream(),
        }
    }

    /// Keeps the workflow's context, where the body moves it or borrows it mutably.
    fn owned_context(&self) -> Option<TokenStream> {
        match &self.context {
            Context::Workflow { place, owned: true } => {
                let context = own("context");
                Some(quote!(let #context = #place;))
            }
            Context::Workflow { place, .. } if matches!(self.shape, Shape::Future { .. }) => {
                let context = own("context");
                Some(quote!(let #context = #place.clone();))
            }
            _ => None,
        }
    }

    /// A reference to the workflow's context.
    fn place(&self) -> TokenStream {
        match (&self.context, self.owned_context()) {
            (Context::Workflow { place, .. }, None) => place.clone(),
            _ => {
                let context = own("context");
                quote!(&#context)
            }
        }
    }

    fn builder(&self, name: TokenStream) -> TokenStream {
        let krate = &self.krate;
        let span_type = self.options.span_type.as_ref().map(|path| {
            let path = match path.get_ident() {
                Some(variant) => quote!(#krate::SpanType::#variant),
                None => path.to_token_stream(),
            };
            quote!(.span_type(#path))
        });
        match &self.context {
            Context::Task => quote!(#krate::span(#name) #span_type),
            Context::Workflow { .. } => {
                let place = self.place();
                quote!(#krate::WorkflowSpans::span(#place, #name) #span_type)
            }
        }
    }

    /// A future that runs `future` inside of the span.
    fn scope(&self, builder: TokenStream, inputs: TokenStream, future: TokenStream) -> TokenStream {
        let method = self.method("scope_with");
        let handle = self.handle();
        let future = match self.options.output.is_present() {
            true => {
                let span = own("span");
                let work = self.with_output(quote!(#future.await));
                quote!({ let #span = #span.clone(); async move { #work } })
            }
            false => future,
        };
        quote!(#builder.#method(move |#handle| { #inputs #future }))
    }

    fn method(&self, name: &str) -> Ident {
        if self.gives_result { format_ident!("try_{name}") } else { format_ident!("{name}") }
    }

    fn uses_handle(&self) -> bool {
        !self.recorded.is_empty() || self.options.output.is_present()
    }

    /// The parameter of a closure that is given the span.
    fn handle(&self) -> TokenStream {
        if self.uses_handle() { own("span").into_token_stream() } else { quote!(_) }
    }

    fn inputs(&self) -> TokenStream {
        let inputs = self.recorded.iter().map(|argument| {
            let at = here(argument.ident.span());
            let (name, value) = self.input(argument);
            let handle = Ident::new("span", at);
            quote_spanned!(at=> #handle.input(#name, #value);)
        });
        quote!(#(#inputs)*)
    }

    fn input(&self, Recorded { ident, redacted }: &Recorded) -> (String, TokenStream) {
        let at = here(ident.span());
        let value = match redacted {
            true => quote!("[REDACTED]"),
            false => self.recordable(&quote_spanned!(at=> &#ident), at),
        };
        (ident.unraw().to_string(), value)
    }

    /// What `reference` refers to, with an error at `at` if that cannot be recorded.
    fn recordable(&self, reference: &TokenStream, at: Span) -> TokenStream {
        let krate = self.krate.to_token_stream().into_iter().map(|mut token| {
            token.set_span(at);
            token
        });
        quote_spanned!(at=> #(#krate)*::__private::recordable(#reference))
    }

    /// Runs `work`, and records what it gives.
    fn with_output(&self, work: TokenStream) -> TokenStream {
        let at = here(match &self.function.sig.output {
            ReturnType::Type(_, ty) => ty.span(),
            ReturnType::Default => self.function.sig.ident.span(),
        });
        let [handle, output, value] = ["span", "output", "value"].map(|name| Ident::new(name, at));
        let record = if self.gives_result {
            let recorded = self.recordable(&quote!(#value), at);
            quote_spanned! {at=>
                if let ::core::result::Result::Ok(#value) = &#output {
                    #handle.output("output", #recorded);
                }
            }
        } else {
            let recorded = self.recordable(&quote_spanned!(at=> &#output), at);
            quote_spanned!(at=> #handle.output("output", #recorded);)
        };
        quote!(let #output = #work; #record #output)
    }

    /// The statements of the function: its braces, if kept, would be one pair too many.
    fn body(&self) -> TokenStream {
        let statements = &self.function.block.stmts;
        quote!(#(#statements)*)
    }

    fn arrow(&self) -> Option<TokenStream> {
        annotation(&self.function.sig).map(|ty| quote!(-> #ty))
    }

    /// The body of a function that is not async, called at once.
    fn called(&self) -> TokenStream {
        let (krate, annotation, body) = (&self.krate, self.arrow(), self.body());
        quote!(#krate::__private::call(move || #annotation { #body }))
    }

    /// The body of an async function. The compiler cannot be told what an async block gives, but
    /// finds it where the block returns it.
    fn async_block(&self) -> TokenStream {
        let (krate, body) = (&self.krate, self.body());
        let annotation = annotation(&self.function.sig)
            .map(|ty| quote!(if false { return #krate::__private::never::<#ty>(); }));
        quote!(async move { #annotation #body })
    }
}

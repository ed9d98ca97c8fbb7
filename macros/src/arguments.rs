//! Which arguments are recorded, and how.

use darling::{Error, Result, error::Accumulator};
use syn::{
    FnArg, Ident, Pat, PatIdent, Signature,
    ext::IdentExt,
    visit::{Visit, visit_pat_ident},
};

use crate::{
    context::{is_context, root},
    options::{Names, Options},
};

/// An argument that the span gets as an input.
pub(crate) struct Recorded {
    pub(crate) ident: Ident,
    /// Its name alone is recorded, not its value.
    pub(crate) redacted: bool,
}

/// The arguments to record, in their order.
pub(crate) fn recorded(signature: &Signature, options: &Options) -> Result<Vec<Recorded>> {
    let arguments = Arguments::of(signature, options.ctx.as_ref().and_then(root));
    let mut errors = Error::accumulator();
    let mut named = Vec::new();
    let mut chosen = |list: &Names, errors: &mut Accumulator| -> Vec<Ident> {
        let idents = list.iter().filter_map(|name| errors.handle(arguments.find(name)));
        let idents: Vec<Ident> = idents.collect();
        for ident in &idents {
            if named.contains(ident) {
                let error = format!("say once what becomes of `{ident}`: record, skip or redact");
                errors.push(Error::custom(error).with_span(ident));
            }
            named.push(ident.clone());
        }
        idents
    };
    let record = options.record.as_ref().map(|list| chosen(list, &mut errors));
    let skip = chosen(&options.skip, &mut errors);
    let redact = chosen(&options.redact, &mut errors);
    errors.finish()?;

    let is_recorded = |ident: &Ident| match &record {
        Some(record) => record.contains(ident),
        None if options.skip_all.is_present() => false,
        None => !skip.contains(ident) && !ident.to_string().starts_with('_'),
    };
    let all = arguments.values.into_iter().map(|ident| {
        let redacted = redact.contains(&ident);
        (redacted || is_recorded(&ident)).then_some(Recorded { ident, redacted })
    });
    Ok(all.flatten().collect())
}

/// What the patterns of a function's arguments bind.
#[derive(Default)]
struct Arguments {
    values: Vec<Ident>,
    contexts: Vec<Ident>,
}

impl Arguments {
    fn of(signature: &Signature, context: Option<Ident>) -> Self {
        let mut arguments = Self::default();
        for argument in &signature.inputs {
            if let FnArg::Typed(argument) = argument {
                let bound = bound_by(&argument.pat);
                let is_context = is_context(&argument.ty)
                    || context.as_ref().is_some_and(|context| bound.contains(context));
                let of_its_kind = match is_context {
                    true => &mut arguments.contexts,
                    false => &mut arguments.values,
                };
                of_its_kind.extend(bound);
            }
        }
        arguments
    }

    /// The argument that is named so, with the place where it is named.
    fn find(&self, name: &Ident) -> Result<Ident> {
        let error = if self.values.contains(name) {
            return Ok(name.clone());
        } else if self.contexts.contains(name) {
            "contexts are never recorded".to_owned()
        } else if name == "self" {
            "`self` is never recorded: record what you need of it in the body, by \
             `current_span().input(…)`"
                .to_owned()
        } else {
            format!("there is no argument `{}`", name.unraw())
        };
        Err(Error::custom(error).with_span(name))
    }
}

/// The names that a pattern binds: one, unless it takes its value apart.
pub(crate) fn bound_by(pattern: &Pat) -> Vec<Ident> {
    struct Bound(Vec<Ident>);

    impl<'ast> Visit<'ast> for Bound {
        fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
            self.0.push(pattern.ident.clone());
            visit_pat_ident(self, pattern);
        }
    }

    let mut bound = Bound(Vec::new());
    bound.visit_pat(pattern);
    bound.0
}

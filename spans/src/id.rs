use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::InvalidSpan;

/// Longest id that a span may carry, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

/// Either 128 bits of ours, or somebody else's text, kept as it came.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    /// The upper and the lower half: they need less room than one number of 128 bits.
    Bits(u64, u64),
    Verbatim(Arc<str>),
}

impl Repr {
    fn parse(field: &'static str, text: &str) -> Result<Self, InvalidSpan> {
        check_id(field, text)?;
        // Only the exact text that we would print again may become bits: any other spelling
        // (undashed, upper case, braces) names a foreign id, and rewriting it splits the trace.
        if text.len() == 36
            && let Ok(uuid) = Uuid::try_parse(text)
            && uuid.hyphenated().encode_lower(&mut [0; 36]) == text
        {
            let (high, low) = uuid.as_u64_pair();
            return Ok(Self::Bits(high, low));
        }
        Ok(Self::Verbatim(text.into()))
    }
}

/// Refuses an id that no store accepts: empty, over [`MAX_ID_BYTES`], or holding a NUL byte.
pub(crate) fn check_id(field: &'static str, text: &str) -> Result<(), InvalidSpan> {
    if text.is_empty() {
        return Err(InvalidSpan::new(field, "must not be empty"));
    }
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidSpan::new(
            field,
            format!("is {} bytes long, at most {MAX_ID_BYTES} are allowed", text.len()),
        ));
    }
    if text.contains('\0') {
        return Err(InvalidSpan::new(field, "must not hold a NUL byte"));
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Repr);

        impl $name {
            /// An id of ours, printed as a lower-case, dashed UUID.
            pub const fn from_bits(bits: u128) -> Self {
                Self(Repr::Bits((bits >> 64) as u64, bits as u64))
            }

            /// The 128 bits of an id of ours, `None` for one that came from elsewhere.
            pub fn bits(&self) -> Option<u128> {
                match self.0 {
                    Repr::Bits(high, low) => Some(u128::from(high) << 64 | u128::from(low)),
                    Repr::Verbatim(_) => None,
                }
            }
        }

        impl $name {
            /// The text as it is printed, in `buffer` if it must be made.
            pub fn text<'a>(&'a self, buffer: &'a mut [u8; 36]) -> &'a str {
                match &self.0 {
                    Repr::Bits(high, low) => {
                        Uuid::from_u64_pair(*high, *low).hyphenated().encode_lower(buffer)
                    }
                    Repr::Verbatim(text) => text,
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidSpan;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Repr::parse($field, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text(&mut [0; 36]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.text(&mut [0; 36]))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Names a trace: the tree of spans that one request caused.
    ///
    /// Ids that durable-spans makes hold 128 bits and print as UUID text. Ids that came from
    /// elsewhere (undashed hex, a user's own text) are kept verbatim. There is no `Default` and no
    /// random constructor: workflow code must not draw random ids.
    ///
    /// ```
    /// use durable_spans_model::TraceId;
    ///
    /// let ours: TraceId = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea".parse()?;
    /// assert!(ours.bits().is_some());
    /// let foreign: TraceId = "c58c5e1ebcff46d881c54dc1a5fdafea".parse()?;
    /// assert_eq!(foreign.to_string(), "c58c5e1ebcff46d881c54dc1a5fdafea");
    /// # Ok::<(), durable_spans_model::InvalidSpan>(())
    /// ```
    TraceId, "trace_id"
}

id! {
    /// Names a span within its trace. See [`TraceId`] for the two kinds of ids.
    SpanId, "id"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_over_256_bytes_is_refused_with_the_field_named() {
        let error = "é".repeat(129).parse::<SpanId>().unwrap_err();
        assert_eq!(error.to_string(), "id is 258 bytes long, at most 256 are allowed");
        assert!("x".repeat(256).parse::<TraceId>().is_ok());
    }

    #[test]
    fn a_nul_byte_or_an_empty_id_is_refused() {
        assert_eq!("a\0b".parse::<TraceId>().unwrap_err().field(), "trace_id");
        assert_eq!("".parse::<SpanId>().unwrap_err().to_string(), "id must not be empty");
    }

    #[test]
    fn an_upper_case_uuid_is_foreign_and_kept_verbatim() {
        let id: SpanId = "C58C5E1E-BCFF-46D8-81C5-4DC1A5FDAFEA".parse().unwrap();
        assert_eq!(id.bits(), None);
        assert_eq!(id.to_string(), "C58C5E1E-BCFF-46D8-81C5-4DC1A5FDAFEA");
    }

    proptest! {
        #[test]
        fn any_accepted_text_prints_again_as_it_came(text in "[^\0]{1,60}") {
            prop_assert_eq!(text.parse::<TraceId>().unwrap().to_string(), text);
        }

        #[test]
        fn bits_survive_text_and_json(bits: u128) {
            let id = SpanId::from_bits(bits);
            prop_assert_eq!(&id.to_string().parse::<SpanId>().unwrap(), &id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<SpanId>(&json).unwrap(), id);
        }
    }
}

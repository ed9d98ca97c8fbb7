use std::fmt;

use subtle::ConstantTimeEq;

/// The key that requests must carry. Never printed.
#[derive(Clone)]
pub(crate) struct ApiKey(String);

impl ApiKey {
    pub(crate) fn new(key: String) -> Self {
        Self(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in a time that tells nothing but the length.
    pub(crate) fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_key_matches_and_debug_hides_it() {
        let key = ApiKey::new("hunter2".into());
        assert!(key.matches(b"hunter2"));
        for other in ["hunter", "hunter22", "Hunter2", ""] {
            assert!(!key.matches(other.as_bytes()), "{other}");
        }
        assert!(!format!("{key:?}").contains("hunter"));
    }
}

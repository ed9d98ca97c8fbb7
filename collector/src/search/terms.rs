//! Free-text search, by the rules of SGP's tracing service.

use uuid::Uuid;

use crate::refusal::Refusal;

/// Most terms of one search.
const MAX_TERMS: usize = 10;

/// Least characters of a term.
const MIN_CHARS: usize = 2;

/// Most words of a term that is matched as words.
const MAX_WORDS: usize = 8;

/// Longest word that is matched as one, in bytes.
const MAX_WORD_BYTES: usize = 2047;

/// The terms of one search. A span must match all texts, or be of one of the traces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) texts: Vec<Term>,
    /// Terms that are UUIDs, which match ids of traces.
    pub(crate) trace_ids: Vec<String>,
}

/// Text to look for in the name, the input, the output and the metadata of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// What must occur, in lower case.
    text: String,
    /// The words of `text` that must occur as whole words in the same value, too.
    words: Vec<String>,
    /// Whether the name counts.
    in_name: bool,
}

impl Terms {
    /// # Errors
    ///
    /// For more terms than ten, and for one of less than two characters.
    pub(crate) fn parse(terms: &[&str]) -> Result<Self, Refusal> {
        if terms.len() > MAX_TERMS {
            let reason = format!("holds {} terms, at most {MAX_TERMS} are allowed", terms.len());
            return Err(Refusal::invalid("search_texts", &reason));
        }
        let mut parsed = Self::default();
        for (index, term) in terms.iter().enumerate() {
            let phrase = phrase(term);
            let text = phrase.as_deref().unwrap_or(term.trim());
            if text.trim().chars().count() < MIN_CHARS {
                let reason = format!("must have {MIN_CHARS} characters at least");
                return Err(Refusal::invalid(format!("search_texts[{index}]"), &reason));
            }
            if phrase.is_none() && is_uuid(text) {
                parsed.trace_ids.push(text.to_lowercase());
            } else {
                parsed.texts.push(Term::new(text, phrase.is_none()));
            }
        }
        Ok(parsed)
    }
}

/// Dashed, as SGP's clients print them.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && Uuid::try_parse(text).is_ok()
}

/// What stands between the quotes, if the term is a phrase: quoted from end to end. A backslash
/// escapes a quote or a backslash.
fn phrase(term: &str) -> Option<String> {
    let mut inside = term.trim().strip_prefix('"')?.chars();
    let mut phrase = String::new();
    loop {
        match inside.next()? {
            '"' => return inside.as_str().is_empty().then_some(phrase),
            '\\' => match inside.next()? {
                escaped @ ('"' | '\\') => phrase.push(escaped),
                other => phrase.extend(['\\', other]),
            },
            other => phrase.push(other),
        }
    }
}

impl Term {
    fn new(text: &str, in_name: bool) -> Self {
        let text = text.to_lowercase();
        let words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        let is_word = |word: &String| {
            word.len() <= MAX_WORD_BYTES && word.bytes().all(|c| c.is_ascii_alphanumeric())
        };
        let as_words = words.len() <= MAX_WORDS && words.iter().all(is_word);
        Self { words: if as_words { words } else { Vec::new() }, text, in_name }
    }

    /// Whether the name counts for this term, and holds it.
    pub(crate) fn matches_name(&self, name: &str) -> bool {
        self.in_name && name.to_lowercase().contains(&self.text)
    }

    pub(crate) fn may_match_name(&self) -> bool {
        self.in_name
    }

    /// Whether a value holds the term. `value` is in lower case.
    pub(crate) fn matches_value(&self, value: &str) -> bool {
        value.contains(&self.text) && self.words.iter().all(|word| holds_word(value, word))
    }

    /// What the index of words can say: words that a matching value must hold, the last one perhaps
    /// only as a beginning. None, if it cannot help.
    pub(crate) fn indexed(&self) -> Option<Indexed<'_>> {
        if !self.words.is_empty() {
            return Some(Indexed {
                words: self.words.iter().map(|word| &**word).collect(),
                prefix: None,
            });
        }
        // At its open ends, the text may be a part of a longer word of the value.
        let bytes = self.text.as_bytes();
        let mut words: Vec<&str> = tokens(&self.text).collect();
        if bytes.first().is_some_and(|c| is_token_byte(*c)) {
            words.remove(0);
        }
        let is_open = bytes.last().is_some_and(|c| is_token_byte(*c));
        let prefix = if is_open { words.pop() } else { None };
        // The index folds the case of ASCII letters only.
        words.retain(|word| word.is_ascii());
        let prefix = prefix.filter(|word| word.is_ascii());
        (!words.is_empty() || prefix.is_some()).then_some(Indexed { words, prefix })
    }
}

/// Words to ask the index for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Indexed<'a> {
    pub(crate) words: Vec<&'a str>,
    pub(crate) prefix: Option<&'a str>,
}

impl Indexed<'_> {
    /// The query in the language of SQLite's FTS5.
    pub(crate) fn query(&self) -> String {
        let words = self.words.iter().map(|word| format!("\"{word}\""));
        let prefix = self.prefix.map(|prefix| format!("\"{prefix}\"*"));
        words.chain(prefix).collect::<Vec<_>>().join(" AND ")
    }
}

/// The words that the index knows: runs of ASCII letters and digits and of everything that is not
/// ASCII, as SQLite's tokenizer `ascii` splits them.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric())
        .filter(|token| !token.is_empty())
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn holds_word(value: &str, word: &str) -> bool {
    let bytes = value.as_bytes();
    value.match_indices(word).any(|(start, _)| {
        let before = start.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(start + word.len()).copied();
        !before.is_some_and(is_token_byte) && !after.is_some_and(is_token_byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn term(text: &str) -> Term {
        let terms = Terms::parse(&[text]).unwrap();
        assert!(terms.trace_ids.is_empty());
        terms.texts[0].clone()
    }

    fn matches(text: &str, value: &str) -> bool {
        term(text).matches_value(&value.to_lowercase())
    }

    #[test]
    fn a_word_matches_as_a_whole_word_in_values_and_as_a_part_of_a_name() {
        assert!(matches("Error", "an ERROR: x"));
        assert!(matches("error", "x_error_y"));
        assert!(!matches("error", "errors"));
        assert!(!matches("error", "éerror"));
        assert!(matches("error", "errors and error"));
        assert!(term("ank").matches_name("Rank-Documents"));
        assert!(!term("ankx").matches_name("rank"));
    }

    #[test]
    fn words_match_as_a_phrase_of_whole_words() {
        assert!(matches("card declined", "the Card Declined."));
        assert!(!matches("card declined", "card was declined"));
        assert!(!matches("card declined", "card declinedx"));
        assert!(!matches("card declined", "a scard declined"));
        let nine = "a1 b2 c3 d4 e5 f6 g7 h8 i9";
        assert!(matches(nine, &format!("x{nine}y")), "nine words are a plain text");
        assert!(!matches(&nine[3..], &format!("x{}y", &nine[3..])));
    }

    #[test]
    fn anything_else_matches_as_a_part() {
        assert!(matches("gpt-4", "model=xgpt-4o"));
        assert!(matches("É!", "caFé!"));
        assert!(matches("50%", "at 150%."));
        assert!(!matches("gpt-4", "gpt 4"));
        assert!(term("nk-d").matches_name("Rank-Documents"));
    }

    #[test]
    fn quotes_make_a_phrase_that_does_not_look_at_the_name() {
        assert!(matches(r#""card declined""#, "card declined"));
        assert!(!matches(r#""card declined""#, "card declinedx"));
        assert!(!term(r#""rank""#).matches_name("rank"));
        assert!(matches(r#"  "say \"hi\" \\ "  "#, r#"they say "hi" \ again"#));
        assert!(!matches(r#""hi there""#, r#""hi, there""#));
        // Unterminated, or unescaped in the middle: nothing but text.
        assert!(matches(r#""open"#, r#"an "open quote"#));
        assert!(!matches(r#""open"#, "an open quote"));
        assert!(matches(r#""a"b""#, r#"x"a"b"y"#));
        let uuid = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea";
        assert!(matches(&format!("\"{uuid}\""), &format!("id {uuid}")));
    }

    #[test]
    fn uuids_are_ids_of_traces() {
        let uuid = "C58C5E1E-bcff-46d8-81c5-4dc1a5fdafea";
        let terms = Terms::parse(&[uuid, "word"]).unwrap();
        assert_eq!(terms.trace_ids, [uuid.to_lowercase()]);
        assert_eq!(terms.texts.len(), 1);
    }

    #[test]
    fn limits_are_those_that_sgp_documents() {
        let error = |terms: &[&str]| Terms::parse(terms).unwrap_err().detail();
        assert_eq!(error(&["x"]), "search_texts[0] must have 2 characters at least");
        assert_eq!(error(&["ab", r#"" é ""#]), "search_texts[1] must have 2 characters at least");
        assert_eq!(error(&["ab"; 11]), "search_texts holds 11 terms, at most 10 are allowed");
        assert_eq!(Terms::parse(&["éé"; 10]).unwrap().texts.len(), 10);
    }

    #[test]
    fn the_index_is_asked_for_what_it_knows() {
        let query = |text: &str| term(text).indexed().map(|indexed| indexed.query());
        assert_eq!(query("Declined").as_deref(), Some(r#""declined""#));
        assert_eq!(query("card declined").as_deref(), Some(r#""card" AND "declined""#));
        assert_eq!(query("gpt-4o-mini").as_deref(), Some(r#""4o" AND "mini"*"#));
        assert_eq!(query("/path/to").as_deref(), Some(r#""path" AND "to"*"#));
        assert_eq!(query("50%"), None);
        assert_eq!(query("café"), None);
        assert_eq!(query("-é-x-").as_deref(), Some(r#""x""#));
    }

    proptest! {
        /// What the index leaves out must not match: else spans would go missing.
        #[test]
        fn the_index_never_leaves_out_a_match(
            value in "[a-bé .\"-]{0,24}",
            text in "[a-bé .\"-]{2,6}",
        ) {
            let Ok(terms) = Terms::parse(&[&text]) else { return Ok(()) };
            let value = value.to_lowercase();
            let words: Vec<&str> = tokens(&value).collect();
            for term in &terms.texts {
                if let Some(indexed) = term.indexed() && term.matches_value(&value) {
                    prop_assert!(indexed.words.iter().all(|word| words.contains(word)));
                    let prefix = indexed.prefix;
                    prop_assert!(prefix.is_none_or(|p| words.iter().any(|w| w.starts_with(p))));
                }
            }
        }
    }
}

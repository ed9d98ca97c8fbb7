//! The work itself: words, their ranking, and the sentences that say most. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Terms of one document that are kept, the most frequent ones: it is passed between activities,
/// so it is in the history of the run.
const TERMS_OF_DOCUMENT: usize = 60;

/// Terms of a group that are kept, the best ones.
const TERMS_OF_GROUP: usize = 12;

/// Words of a sentence that may stand in a summary.
const SENTENCE_WORDS: std::ops::RangeInclusive<usize> = 6..=40;

/// Words that tell nothing about a text or about a program.
const STOP_WORDS: &str = "
    about above after again against all also and any are because been before below both but can
    cannot could did does doing down each else ever every few for from further had has have having
    her here him his how into its itself just least less like made make many may more most much
    must never nor not now off once one only onto other our out over own per same she should since
    some such than that the their them then there these they this those through too two under until
    upon very was were what when where whether which while who why will with within without would
    yet you your
    assert async await bool break cfg clone const continue crate debug default derive dyn enum err
    expect false fmt impl let loop match mod move mut new none null pub ref return self some static
    str string struct super test trait true type unsafe unwrap use usize vec
    char iter map option result u16 u32 u64 u128 u8 i32 i64 f64 ok";

/// How often each of its terms is in a document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) words: u64,
    pub(crate) terms: BTreeMap<String, u32>,
}

/// A term and how much it tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Term {
    pub(crate) word: String,
    pub(crate) score: f64,
}

/// Counts the terms of a text.
pub(crate) fn tokenize(text: &str) -> Document {
    let stop_words: BTreeSet<&str> = STOP_WORDS.split_whitespace().collect();
    let mut words = 0;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for word in words_of(text) {
        words += 1;
        if word.chars().count() >= 3 && !stop_words.contains(word.as_str()) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked.truncate(TERMS_OF_DOCUMENT);
    Document { words, terms: ranked.into_iter().collect() }
}

/// The terms that tell most about the documents: frequent in a few of them (tf-idf).
pub(crate) fn rank(documents: &[Document]) -> Vec<Term> {
    let mut holders: BTreeMap<&str, u32> = BTreeMap::new();
    for word in documents.iter().flat_map(|document| document.terms.keys()) {
        *holders.entry(word).or_default() += 1;
    }
    let mut scores: BTreeMap<&str, f64> = BTreeMap::new();
    for document in documents {
        for (word, count) in &document.terms {
            let frequency = f64::from(*count) / document.words as f64;
            let rarity = (1.0 + documents.len() as f64 / f64::from(holders[word.as_str()])).ln();
            *scores.entry(word).or_default() += frequency * rarity;
        }
    }
    best(scores, TERMS_OF_GROUP)
}

/// The terms of all groups, each group with the same weight.
pub(crate) fn merge<'a>(groups: impl Iterator<Item = &'a [Term]>) -> Vec<Term> {
    let mut scores: BTreeMap<&str, f64> = BTreeMap::new();
    for group in groups {
        let whole: f64 = group.iter().map(|term| term.score).sum();
        for term in group {
            *scores.entry(&term.word).or_default() += term.score / whole;
        }
    }
    best(scores, TERMS_OF_GROUP)
}

/// The sentence of a text that holds the most weight of `terms` for its length, with that weight.
pub(crate) fn best_sentence(text: &str, terms: &[Term]) -> Option<(f64, String)> {
    let weights: BTreeMap<&str, f64> =
        terms.iter().map(|term| (term.word.as_str(), term.score)).collect();
    let scored = sentences(text).into_iter().filter_map(|sentence| {
        let words: Vec<String> = words_of(&sentence).collect();
        let known: BTreeSet<&String> = words.iter().collect();
        let weight: f64 = known.iter().filter_map(|word| weights.get(word.as_str())).sum();
        let fits = SENTENCE_WORDS.contains(&words.len()) && weight > 0.0;
        fits.then(|| (weight / (words.len() as f64).sqrt(), sentence))
    });
    scored.max_by(|a, b| a.0.total_cmp(&b.0))
}

/// Text from a file or its name as one line that cannot move the cursor of a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn best(scores: BTreeMap<&str, f64>, count: usize) -> Vec<Term> {
    let mut terms: Vec<Term> =
        scores.into_iter().map(|(word, score)| Term { word: word.to_owned(), score }).collect();
    terms.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.word.cmp(&b.word)));
    terms.truncate(count);
    terms
}

fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().any(char::is_alphabetic))
        .map(str::to_lowercase)
}

/// Prose in paragraphs and in comments. Code, tables and headings have no sentences.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut paragraph = String::new();
    let mut fenced = false;
    // An empty line at the end closes the last paragraph.
    for line in text.lines().chain([""]) {
        let line = line.trim().trim_start_matches(['/', '!', '>']).trim();
        let fence = line.starts_with("```");
        fenced ^= fence;
        let is_prose = line.chars().next().is_some_and(|c| c.is_alphabetic() || c == '`')
            && !line.ends_with(['{', '}', ';', ',', '(', ')', '|']);
        if fence || fenced || !is_prose {
            sentences.extend(split(&std::mem::take(&mut paragraph)));
        } else {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    sentences
}

fn split(paragraph: &str) -> impl Iterator<Item = String> + use<'_> {
    let whole = paragraph.split_inclusive(". ").map(str::trim);
    whole.filter(|sentence| sentence.ends_with('.')).map(str::to_owned)
}

//! What a batch must not do to the traces that it touches: hang a span under one of another trace,
//! or make a span its own ancestor. Pure: what is stored already comes in through [`Stored`].

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use axum::http::StatusCode;

use crate::{item::Record, refusal::Refusal};

/// What the rules need to know of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link<'a> {
    pub(crate) parent_id: Option<Cow<'a, str>>,
    pub(crate) completed: bool,
}

impl Link<'_> {
    /// The upsert rule: what has ended wins over what has not, otherwise the later write wins.
    fn yields_to(&self, later: &Record<'_>) -> bool {
        later.is_completed() || !self.completed
    }
}

/// Look-ups in the spans that are stored already.
pub(crate) trait Stored {
    fn link(&mut self, trace_id: &str, id: &str) -> Result<Option<Link<'static>>, Refusal>;

    /// Whether any trace holds a span of this id.
    fn exists_anywhere(&mut self, id: &str) -> Result<bool, Refusal>;
}

/// Checks a whole batch against itself and what is stored.
///
/// # Errors
///
/// 409 with the first item at fault, or what [`Stored`] failed with.
pub(crate) fn check(records: &[Record<'_>], stored: &mut impl Stored) -> Result<(), Refusal> {
    let ids: HashSet<&str> = records.iter().map(|record| &*record.id).collect();
    let mut traces: BTreeMap<&str, Vec<(usize, &Record<'_>)>> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        traces.entry(&record.trace_id).or_default().push((index, record));
    }
    for (trace_id, records) in traces {
        let mut trace = Trace { id: trace_id, after: HashMap::new(), stored };
        trace.apply(&records)?;
        trace.check_parents(&records, &ids)?;
        trace.check_cycles(&records)?;
    }
    Ok(())
}

/// One trace as it will be once the batch is stored.
struct Trace<'a, S> {
    id: &'a str,
    /// The spans that the batch writes, as the upsert rule leaves them.
    after: HashMap<&'a str, Link<'a>>,
    stored: &'a mut S,
}

impl<'a, S: Stored> Trace<'a, S> {
    fn link(&mut self, id: &str) -> Result<Option<Link<'a>>, Refusal> {
        match self.after.get(id) {
            Some(link) => Ok(Some(link.clone())),
            None => self.stored.link(self.id, id),
        }
    }

    fn apply(&mut self, records: &[(usize, &'a Record<'a>)]) -> Result<(), Refusal> {
        for (_, record) in records {
            // A record that has ended wins whatever is stored, so nobody needs to look.
            let wins = record.is_completed()
                || self.link(&record.id)?.is_none_or(|link| link.yields_to(record));
            if wins {
                let parent_id = record.parent_id.as_deref().map(Cow::Borrowed);
                let completed = record.is_completed();
                self.after.insert(&record.id, Link { parent_id, completed });
            }
        }
        Ok(())
    }

    /// A parent that nobody has sent yet may still arrive; one that is known only in other traces
    /// is a mistake.
    fn check_parents(
        &mut self,
        records: &[(usize, &Record<'_>)],
        ids: &HashSet<&str>,
    ) -> Result<(), Refusal> {
        // Most spans of a batch have their parent in common with others.
        let mut seen: HashSet<&str> = HashSet::new();
        for (index, record) in records {
            if let Some(parent_id) = record.parent_id.as_deref()
                && seen.insert(parent_id)
                && self.link(parent_id)?.is_none()
                && (ids.contains(parent_id) || self.stored.exists_anywhere(parent_id)?)
            {
                return Err(conflict(*index, "belongs to another trace"));
            }
        }
        Ok(())
    }

    /// Walks up from each span of the batch. What one walk found to end at a root, the next ones
    /// need not walk again. A cycle holds at least one span of the batch, since what was stored
    /// before had none.
    fn check_cycles(&mut self, records: &[(usize, &Record<'_>)]) -> Result<(), Refusal> {
        let mut rooted: HashSet<String> = HashSet::new();
        for (index, record) in records {
            let mut path = HashSet::new();
            let mut next = Some(record.id.to_string());
            while let Some(id) = next.take_if(|id| !rooted.contains(id)) {
                next = self.link(&id)?.and_then(|link| link.parent_id).map(Cow::into_owned);
                if !path.insert(id) {
                    return Err(conflict(*index, "makes the span its own ancestor"));
                }
            }
            rooted.extend(path);
        }
        Ok(())
    }
}

fn conflict(index: usize, reason: &str) -> Refusal {
    Refusal::of_field(StatusCode::CONFLICT, format!("items[{index}].parent_id"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A store that needs no file: the links by trace and span.
    #[derive(Clone, Default)]
    struct Memory(BTreeMap<(String, String), Link<'static>>);

    impl Stored for Memory {
        fn link(&mut self, trace_id: &str, id: &str) -> Result<Option<Link<'static>>, Refusal> {
            Ok(self.0.get(&(trace_id.to_owned(), id.to_owned())).cloned())
        }

        fn exists_anywhere(&mut self, id: &str) -> Result<bool, Refusal> {
            Ok(self.0.keys().any(|(_, known)| known == id))
        }
    }

    impl Memory {
        fn write(&mut self, records: &[Record<'_>]) {
            for record in records {
                let key = (record.trace_id.to_string(), record.id.to_string());
                if self.0.get(&key).is_none_or(|link| link.yields_to(record)) {
                    let parent_id = record.parent_id.as_deref().map(|id| id.to_owned().into());
                    let link = Link { parent_id, completed: record.is_completed() };
                    self.0.insert(key, link);
                }
            }
        }

        /// The slow way: from every span at most as many steps up as there are spans.
        fn has_cycle(&self) -> bool {
            self.0.keys().any(|(trace_id, id)| {
                let mut id = id.clone();
                for _ in 0..=self.0.len() {
                    match self.0.get(&(trace_id.clone(), id)) {
                        Some(Link { parent_id: Some(parent_id), .. }) => id = parent_id.to_string(),
                        _ => return false,
                    }
                }
                true
            })
        }
    }

    fn record(
        trace_id: &str,
        id: &str,
        parent_id: Option<&str>,
        completed: bool,
    ) -> Record<'static> {
        Record {
            trace_id: trace_id.to_owned().into(),
            id: id.to_owned().into(),
            parent_id: parent_id.map(|id| id.to_owned().into()),
            end_ns: completed.then_some(1),
            ..Record::default()
        }
    }

    /// The verdict on `batch`, after `before` was stored.
    fn verdict(before: &[Record<'_>], batch: &[Record<'_>]) -> Result<(), String> {
        let mut stored = Memory::default();
        stored.write(before);
        check(batch, &mut stored).map_err(|refusal| {
            assert_eq!(refusal.status(), 409);
            refusal.detail()
        })
    }

    #[test]
    fn a_parent_that_nobody_sent_yet_is_fine() {
        assert_eq!(verdict(&[], &[record("t", "a", Some("later"), true)]), Ok(()));
    }

    #[test]
    fn a_parent_of_another_trace_is_a_conflict_whether_stored_or_in_the_batch() {
        let other = || record("other", "p", None, true);
        let child = || record("t", "a", Some("p"), true);
        let expected = |index| Err(format!("items[{index}].parent_id belongs to another trace"));
        assert_eq!(verdict(&[other()], &[child()]), expected(0));
        assert_eq!(verdict(&[], &[other(), child()]), expected(1));
        // The same id in the same trace is the parent, whoever else has it.
        assert_eq!(verdict(&[other()], &[record("t", "p", None, true), child()]), Ok(()));
    }

    #[test]
    fn a_cycle_is_a_conflict_within_the_batch_and_through_what_is_stored() {
        let expected = Err("items[0].parent_id makes the span its own ancestor".to_owned());
        let edge = |id, parent_id| record("t", id, Some(parent_id), true);
        assert_eq!(verdict(&[], &[edge("a", "a")]), expected);
        assert_eq!(verdict(&[], &[edge("a", "b"), edge("b", "a")]), expected);
        assert_eq!(verdict(&[edge("b", "c"), edge("c", "a")], &[edge("a", "b")]), expected);
        assert_eq!(verdict(&[edge("b", "c")], &[edge("a", "b")]), Ok(()));
    }

    #[test]
    fn an_open_record_that_loses_to_a_completed_one_does_not_break_its_cycle() {
        let before = [record("t", "x", Some("a"), true)];
        let batch = [record("t", "x", None, false), record("t", "a", Some("x"), true)];
        assert!(verdict(&before, &batch).is_err());
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_spans_is_walked_without_recursion() {
        let chain: Vec<_> = (0..100_000)
            .map(|n: u32| record("t", &n.to_string(), Some(&(n + 1).to_string()), true))
            .collect();
        assert_eq!(verdict(&[], &chain), Ok(()));
        let closing = record("t", "100000", Some("0"), true);
        assert!(verdict(&chain, &[closing]).is_err());
    }

    fn records() -> impl Strategy<Value = Vec<Record<'static>>> {
        let one = (0..2_u8, 0..5_u8, proptest::option::of(0..5_u8), any::<bool>());
        proptest::collection::vec(one, 0..8).prop_map(|records| {
            let text = |n: u8| n.to_string();
            let records = records.into_iter();
            records
                .map(|(trace, id, parent, completed)| {
                    record(&text(trace), &text(id), parent.map(text).as_deref(), completed)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_accepted_never_makes_a_cycle_and_a_refused_cycle_is_one(
            batches in proptest::collection::vec(records(), 1..6),
        ) {
            let mut stored = Memory::default();
            for batch in batches {
                let mut after = stored.clone();
                after.write(&batch);
                match check(&batch, &mut stored) {
                    Ok(()) => {
                        prop_assert!(!after.has_cycle());
                        stored = after;
                    }
                    Err(refusal) if refusal.detail().contains("ancestor") => {
                        prop_assert!(after.has_cycle());
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

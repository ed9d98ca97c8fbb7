//! Spans that should have come against spans that have.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
};

use serde::Serialize;

use crate::history::CompletedRun;

/// A span as the receiver has it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) ended: bool,
}

/// How a side names the spans of the same workflow.
pub(crate) struct Names {
    pub(crate) root: &'static str,
    /// The call of the activity.
    pub(crate) call: &'static str,
}

/// What became of the spans that workflows record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// By the histories.
    pub(crate) expected: usize,
    /// Expected ones that the receiver has, ended or not, each once.
    pub(crate) received: usize,
    pub(crate) lost: usize,
    /// What the receiver has beyond that.
    pub(crate) duplicated: usize,
    /// Received without an end.
    pub(crate) endless: usize,
    /// Runs whose own span was received.
    pub(crate) roots: usize,
}

impl Counts {
    /// Counts for one run. `received` are all spans that its workflow recorded, and no others.
    pub(crate) fn of(run: &CompletedRun, names: &Names, received: &[Received]) -> Self {
        let expected = expected(run, names);
        // The receiver may have several spans with one id: that one span came several times.
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for span in received {
            ids.entry(&span.name).or_default().insert(&span.id);
        }
        let distinct = |name: &str| ids.get(name).map_or(0, BTreeSet::len);
        let came = |(name, number): (&String, &usize)| distinct(name).min(*number);
        let in_all: usize = expected.values().sum();
        let came: usize = expected.iter().map(came).sum();
        Self {
            expected: in_all,
            received: came,
            lost: in_all - came,
            duplicated: received.len() - came,
            endless: received.iter().filter(|span| !span.ended).count(),
            roots: distinct(names.root).min(1),
        }
    }

    /// Whether every span came, once, with its end.
    pub(crate) fn are_right(&self) -> bool {
        self.received == self.expected && self.duplicated == 0 && self.endless == 0
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.endless += other.endless;
        self.roots += other.roots;
    }
}

/// The spans of a run by name: its own, and for each activity the step around it, the one before it
/// in the step, and the call.
fn expected(run: &CompletedRun, names: &Names) -> BTreeMap<String, usize> {
    let activities = run.activities().len();
    let steps = (0..activities).map(|step| (format!("step {step}"), 1));
    let others = [(names.root, 1), ("before", activities), (names.call, activities)];
    steps.chain(others.map(|(name, number)| (name.to_owned(), number))).collect()
}

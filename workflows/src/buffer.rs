use std::{collections::BTreeSet, mem};

use durable_spans_model::{Children, Draft, Span};
use slab::Slab;

/// The spans of a run that no flush has carried with their end.
///
/// A span stays where it began until a flush takes it: moving it would cost as much as most of what is
/// done with it.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Those that began since the last flush, in this order.
    spans: Vec<Span>,
    /// Where in `spans` one was that has ended and is not kept.
    gaps: BTreeSet<usize>,
    open: Slab<OpenSpan>,
    /// Those that a flush has announced and that ended since, with their sequence.
    late: Vec<(u64, Span)>,
    began: u64,
}

/// Names a span of a buffer. Stays valid, without effect, after the span has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Order of beginning, from 0, so that parents come before children.
    pub(crate) sequence: u64,
    /// Among the open ones. Another one has this place afterwards.
    place: usize,
}

#[derive(Debug)]
struct OpenSpan {
    sequence: u64,
    place: Place,
    notes: Notes,
}

#[derive(Debug)]
enum Place {
    /// In [`Buffer::spans`].
    Buffered(usize),
    /// A flush has announced it, and taken its place.
    Announced(Box<Span>),
}

/// What is known of an open span besides itself.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Whether its work goes on when nobody waits for it.
    pub(crate) outlives: bool,
    pub(crate) children: Children,
}

impl Buffer {
    /// How many spans began.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// Takes a span that begins, and leaves a blank one. Returns where it is from now on.
    pub(crate) fn begin(&mut self, span: &mut Span) -> (Key, &mut Span) {
        let sequence = self.began;
        self.began += 1;
        let index = self.spans.len();
        self.spans.push(mem::replace(span, blank()));
        let notes = Notes::default();
        let open = OpenSpan { sequence, place: Place::Buffered(index), notes };
        let key = Key { sequence, place: self.open.insert(open) };
        (key, &mut self.spans[index])
    }

    /// The span, if it is still open.
    pub(crate) fn span(&mut self, key: Key) -> Option<&mut Span> {
        let open = self.open.get_mut(key.place).filter(|open| open.sequence == key.sequence)?;
        Some(match &mut open.place {
            Place::Buffered(index) => &mut self.spans[*index],
            Place::Announced(span) => span,
        })
    }

    /// What else is known of the span, if it is still open.
    pub(crate) fn notes(&mut self, key: Key) -> Option<&mut Notes> {
        let open = self.open.get_mut(key.place).filter(|open| open.sequence == key.sequence)?;
        Some(&mut open.notes)
    }

    /// Those that are open, in order of beginning.
    pub(crate) fn all_open(&self) -> Vec<Key> {
        let key = |(place, open): (usize, &OpenSpan)| Key { sequence: open.sequence, place };
        let mut open: Vec<Key> = self.open.iter().map(key).collect();
        open.sort_by_key(|key| key.sequence);
        open
    }

    /// Ends a span as `finish` does, which says whether it is kept. Does nothing to one that has ended.
    pub(crate) fn end(&mut self, key: Key, finish: impl FnOnce(&mut Span, &Notes) -> bool) {
        if self.notes(key).is_none() {
            return;
        }
        let OpenSpan { place, notes, sequence } = self.open.remove(key.place);
        match place {
            Place::Buffered(index) => {
                if !finish(&mut self.spans[index], &notes) {
                    self.discard(index);
                }
            }
            Place::Announced(mut span) => {
                if finish(&mut span, &notes) {
                    self.late.push((sequence, *span));
                }
            }
        }
    }

    /// Takes what has ended, and of what is open and was never announced a copy as `announce` leaves it;
    /// in order of beginning.
    pub(crate) fn take(&mut self, mut announce: impl FnMut(&mut Span)) -> Vec<Span> {
        self.close_gaps();
        let mut spans = mem::take(&mut self.spans);
        for (_, open) in &mut self.open {
            if let Place::Buffered(index) = open.place {
                let mut announced = spans[index].clone();
                announce(&mut announced);
                let span = mem::replace(&mut spans[index], announced);
                open.place = Place::Announced(Box::new(span));
            }
        }
        // All of them began before those of the buffer.
        self.late.sort_by_key(|(sequence, _)| *sequence);
        spans.splice(0..0, self.late.drain(..).map(|(_, span)| span));
        spans
    }

    /// All that is left, those that are open as `announce` leaves them; in order of beginning.
    pub(crate) fn into_spans(mut self, mut announce: impl FnMut(&mut Span)) -> Vec<Span> {
        for (_, open) in mem::take(&mut self.open) {
            match open.place {
                Place::Buffered(index) => announce(&mut self.spans[index]),
                Place::Announced(mut span) => {
                    announce(&mut span);
                    self.late.push((open.sequence, *span));
                }
            }
        }
        self.take(announce)
    }

    /// Forgets a span of the buffer, at once if it is the last one there: nearly always.
    fn discard(&mut self, index: usize) {
        self.spans[index] = blank();
        self.gaps.insert(index);
        while self.gaps.last().is_some_and(|gap| gap + 1 == self.spans.len()) {
            self.gaps.pop_last();
            self.spans.pop();
        }
        if self.gaps.len() > self.spans.len() / 2 {
            self.close_gaps();
        }
    }

    fn close_gaps(&mut self) {
        if self.gaps.is_empty() {
            return;
        }
        let gaps: Vec<usize> = mem::take(&mut self.gaps).into_iter().collect();
        let mut index = 0;
        self.spans.retain(|_| {
            index += 1;
            gaps.binary_search(&(index - 1)).is_err()
        });
        for (_, open) in &mut self.open {
            if let Place::Buffered(index) = &mut open.place {
                *index -= gaps.partition_point(|gap| gap < index);
            }
        }
    }
}

fn blank() -> Span {
    Draft::<()>::new("").span
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        End { which: prop::sample::Index, kept: bool },
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = (any::<prop::sample::Index>(), any::<bool>());
        prop_oneof![
            4 => Just(Step::Begin),
            3 => end.prop_map(|(which, kept)| Step::End { which, kept }),
            1 => Just(Step::Take),
        ]
    }

    fn named(number: u64) -> Span {
        Draft::<()>::new(number.to_string()).span
    }

    /// What a list of all spans says, however slow.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Told {
        Open { announced: bool },
        Ended,
        Gone,
    }

    proptest! {
        #[test]
        fn each_span_is_taken_in_order_of_beginning_announced_once_and_ended_once(
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let mut buffer = Buffer::default();
            let mut told: Vec<Told> = Vec::new();
            let mut keys: Vec<Key> = Vec::new();
            let ended = |span: &mut Span| span.metadata.insert("ended".into(), true.into());
            let announced = |span: &mut Span| {
                span.metadata.insert("announced".into(), true.into());
            };
            for step in steps {
                match step {
                    Step::Begin => {
                        keys.push(buffer.begin(&mut named(told.len() as u64)).0);
                        told.push(Told::Open { announced: false });
                    }
                    Step::End { which, kept } if !keys.is_empty() => {
                        let at = which.index(keys.len());
                        let was_open = matches!(told[at], Told::Open { .. });
                        prop_assert_eq!(buffer.notes(keys[at]).is_some(), was_open);
                        prop_assert_eq!(buffer.span(keys[at]).is_some(), was_open);
                        buffer.end(keys[at], |span, _| {
                            assert_eq!(span.name, at.to_string());
                            ended(span);
                            kept
                        });
                        if was_open {
                            told[at] = if kept { Told::Ended } else { Told::Gone };
                        }
                    }
                    Step::End { .. } => {}
                    Step::Take => {
                        let mut expected = Vec::new();
                        for (number, told) in told.iter_mut().enumerate() {
                            match *told {
                                Told::Open { announced: false } => {
                                    expected.push((number.to_string(), "announced"));
                                    *told = Told::Open { announced: true };
                                }
                                Told::Ended => {
                                    expected.push((number.to_string(), "ended"));
                                    *told = Told::Gone;
                                }
                                Told::Open { announced: true } | Told::Gone => {}
                            }
                        }
                        let taken = buffer.take(announced);
                        let seen: Vec<_> = taken
                            .iter()
                            .map(|span| (span.name.to_string(), span.metadata.keys().next().unwrap()))
                            .collect();
                        prop_assert_eq!(seen, expected);
                    }
                }
                let open = buffer.all_open().iter().map(|key| key.sequence as usize).collect::<Vec<_>>();
                let expected: Vec<usize> = (0..told.len())
                    .filter(|number| matches!(told[*number], Told::Open { .. }))
                    .collect();
                prop_assert_eq!(open, expected);
            }
            let left: BTreeMap<String, bool> = buffer
                .into_spans(announced)
                .iter()
                .map(|span| (span.name.to_string(), span.metadata.contains_key("ended")))
                .collect();
            for (number, told) in told.iter().enumerate() {
                let expected = match told {
                    Told::Open { .. } => Some(false),
                    Told::Ended => Some(true),
                    Told::Gone => None,
                };
                prop_assert_eq!(left.get(&number.to_string()).copied(), expected);
            }
        }
    }

    #[test]
    fn what_is_not_kept_needs_no_room_even_where_each_span_outlasts_the_one_before() {
        let mut buffer = Buffer::default();
        let mut last = buffer.begin(&mut named(0)).0;
        for number in 1..10_000 {
            let next = buffer.begin(&mut named(number)).0;
            buffer.end(last, |_, _| false);
            last = next;
            assert!(buffer.spans.len() < 10);
        }
        assert_eq!(buffer.span(last).unwrap().name, "9999");
    }
}

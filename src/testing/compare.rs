//! Compares an expected tree with a recorded one, line by line.

use super::{expected::Expected, line::is_anything};

/// How long a report may be before lines that are alike are left out.
const LONG_REPORT: usize = 60;

/// How many of these stay around a difference.
const CONTEXT: usize = 3;

/// One step from the expected lines to the recorded ones. Numbers are positions of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An expected line that a recorded one meets.
    Met(usize),
    Missing(usize),
    Unexpected(usize),
    /// A recorded line that `…` stands for.
    Covered,
    /// An expected line that is `…`, after what it stands for.
    Anything(usize),
}

/// The steps with the fewest differences. `depths` are those of the recorded lines.
///
/// `…` stands for any number of spans at its depth, with all that is below them.
pub(super) fn compare(
    expected: &[Expected<'_>],
    depths: &[usize],
    meets: impl Fn(usize, usize) -> bool,
) -> Vec<Step> {
    let is_met = |i: usize, j: usize| {
        !is_anything(expected[i].text) && expected[i].depth == depths[j] && meets(i, j)
    };
    // Most lines are alike: what is so at both ends need not be searched.
    let shorter = expected.len().min(depths.len());
    let start = (0..shorter).take_while(|n| is_met(*n, *n)).count();
    let from_end = |n: &usize| is_met(expected.len() - 1 - n, depths.len() - 1 - n);
    let end = (0..shorter - start).take_while(from_end).count();

    let (rows, columns) = (expected.len() - end, depths.len() - end);
    let moves = Moves::of(&expected[start..rows], &depths[start..columns], |i, j| {
        is_met(start + i, start + j)
    });
    let mut steps: Vec<Step> = (0..start).map(Step::Met).collect();
    steps.extend(moves.steps().map(|step| match step {
        Step::Met(i) => Step::Met(start + i),
        Step::Missing(i) => Step::Missing(start + i),
        Step::Unexpected(j) => Step::Unexpected(start + j),
        Step::Anything(i) => Step::Anything(start + i),
        Step::Covered => Step::Covered,
    }));
    steps.extend((rows..expected.len()).map(Step::Met));
    steps
}

/// The report of a comparison, `None` where all expected lines are met and no other is there.
pub(super) fn report(
    steps: &[Step],
    expected: &[Expected<'_>],
    recorded: impl Fn(usize) -> (usize, String),
) -> Option<String> {
    let is_difference = |step: &Step| matches!(step, Step::Missing(_) | Step::Unexpected(_));
    if !steps.iter().any(is_difference) {
        return None;
    }
    let wanted = |i: usize| (expected[i].depth, expected[i].text.to_owned());
    let shown: Vec<&Step> = steps.iter().filter(|step| **step != Step::Covered).collect();
    let is_near = |position: usize| {
        let first = position.saturating_sub(CONTEXT);
        let last = (position + CONTEXT + 1).min(shown.len());
        shown.len() <= LONG_REPORT || shown[first..last].iter().any(|step| is_difference(step))
    };
    let mut report = String::new();
    let mut left_out = 0;
    for (position, step) in shown.iter().enumerate() {
        if !is_near(position) {
            left_out += 1;
            continue;
        }
        push_left_out(&mut report, &mut left_out);
        let (mark, (depth, text)) = match step {
            Step::Missing(i) => ('-', wanted(*i)),
            Step::Unexpected(j) => ('+', recorded(*j)),
            Step::Met(i) | Step::Anything(i) => (' ', wanted(*i)),
            Step::Covered => continue,
        };
        report.push_str(&format!("{mark} {}{text}\n", "  ".repeat(depth)));
    }
    push_left_out(&mut report, &mut left_out);
    Some(report)
}

fn push_left_out(report: &mut String, left_out: &mut usize) {
    if *left_out > 0 {
        report.push_str(&format!("  ({left_out} lines alike)\n"));
        *left_out = 0;
    }
}

/// The best move at each pair of an expected and a recorded line, once before and once within what
/// `…` stands for.
struct Moves {
    moves: Vec<[Move; 2]>,
    rows: usize,
    columns: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    Meet,
    Miss,
    Add,
    /// `…` stands for this line, too.
    Cover,
    /// `…` ends here.
    Leave,
}

const BEFORE: usize = 0;
const WITHIN: usize = 1;

impl Moves {
    fn of(
        expected: &[Expected<'_>],
        depths: &[usize],
        is_met: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let (rows, columns) = (expected.len(), depths.len());
        let mut moves = vec![[Move::Leave; 2]; (rows + 1) * (columns + 1)];
        // Differences from here to the end, in this row and in the one below.
        let mut below = vec![[0_usize; 2]; columns + 1];
        let mut costs = below.clone();
        for i in (0..=rows).rev() {
            for j in (0..=columns).rev() {
                let line = expected.get(i);
                let is_anything = line.is_some_and(|line| is_anything(line.text));
                let depth = line.map_or(0, |line| line.depth);
                let mut best = [(usize::MAX, Move::Leave); 2];
                let mut offer = |state: usize, cost: usize, next: Move| {
                    if cost < best[state].0 {
                        best[state] = (cost, next);
                    }
                };
                if i == rows && j == columns {
                    offer(BEFORE, 0, Move::Leave);
                }
                if is_anything {
                    // What is deeper hangs below a line before this one: shown there.
                    if j < columns && depths[j] > depth {
                        offer(BEFORE, costs[j + 1][BEFORE] + 1, Move::Add);
                    }
                    offer(BEFORE, below[j][BEFORE], Move::Leave);
                    offer(WITHIN, below[j][BEFORE], Move::Leave);
                    if j < columns && depths[j] == depth {
                        offer(BEFORE, costs[j + 1][WITHIN], Move::Cover);
                    }
                    if j < columns && depths[j] >= depth {
                        offer(WITHIN, costs[j + 1][WITHIN], Move::Cover);
                    }
                } else if i < rows {
                    if j < columns && is_met(i, j) {
                        offer(BEFORE, below[j + 1][BEFORE], Move::Meet);
                    }
                    offer(BEFORE, below[j][BEFORE] + 1, Move::Miss);
                }
                if j < columns {
                    offer(BEFORE, costs[j + 1][BEFORE] + 1, Move::Add);
                }
                costs[j] = best.map(|(cost, _)| cost);
                moves[i * (columns + 1) + j] = best.map(|(_, next)| next);
            }
            std::mem::swap(&mut below, &mut costs);
        }
        Self { moves, rows, columns }
    }

    fn steps(&self) -> impl Iterator<Item = Step> {
        let (mut i, mut j, mut state) = (0, 0, BEFORE);
        std::iter::from_fn(move || {
            if i == self.rows && j == self.columns {
                return None;
            }
            let (row, column) = (i, j);
            let next = self.moves[i * (self.columns + 1) + j][state];
            state = if next == Move::Cover { WITHIN } else { BEFORE };
            i += usize::from(matches!(next, Move::Meet | Move::Miss | Move::Leave));
            j += usize::from(matches!(next, Move::Meet | Move::Add | Move::Cover));
            Some(match next {
                Move::Meet => Step::Met(row),
                Move::Miss => Step::Missing(row),
                Move::Add => Step::Unexpected(column),
                Move::Cover => Step::Covered,
                Move::Leave => Step::Anything(row),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expected::parse;

    /// What of a recorded tree, whose lines are met by the same text only, differs.
    fn differences(expected: &str, recorded: &str) -> String {
        let (expected, recorded) = (parse(expected).unwrap(), parse(recorded).unwrap());
        let depths: Vec<usize> = recorded.iter().map(|line| line.depth).collect();
        let steps = compare(&expected, &depths, |i, j| expected[i].text == recorded[j].text);
        let line = |j: usize| (recorded[j].depth, recorded[j].text.to_owned());
        report(&steps, &expected, line).unwrap_or_default()
    }

    #[test]
    fn equal_trees_do_not_differ_and_others_do_line_by_line() {
        assert_eq!(differences("", ""), "");
        assert_eq!(differences("a\n  b\nc", "a\n  b\nc"), "");
        assert_eq!(differences("a\n  b\n  d", "a\n  c\n  d"), "  a\n-   b\n+   c\n    d\n");
        assert_eq!(differences("a", ""), "- a\n");
        assert_eq!(differences("", "a\n  b"), "+ a\n+   b\n");
        assert_eq!(differences("a\n  b", "a\nb"), "  a\n-   b\n+ b\n");
    }

    #[test]
    fn anything_stands_for_further_children_and_all_below_them() {
        for recorded in ["a\n  b", "a\n  b\n  c\n    d\n  e", "a\n  x\n    y\n  b\n  c"] {
            assert_eq!(differences("a\n  …\n  b\n  …", recorded), "", "{recorded}");
        }
        assert_eq!(differences("…", ""), "");
        assert_eq!(differences("…", "a\n  b\nc"), "");
        assert_eq!(differences("a\n  b\n  ...\nz", "a\n  b\n  c\n    d\nz"), "");
        // But neither for children of its siblings, nor for what stands further out.
        assert_eq!(differences("a\n  b\n  …", "a\n  b\n    c"), "  a\n    b\n+     c\n    …\n");
        assert_eq!(differences("a\n  …", "a\n  b\nc"), "  a\n    …\n+ c\n");
        assert_eq!(differences("a\n  …\n  b", "a\n  c"), "  a\n    …\n-   b\n");
    }

    #[test]
    fn of_a_long_tree_the_neighbours_of_a_difference_are_shown() {
        let lines: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let mut other = lines.clone();
        other[100] = "other".to_owned();
        assert_eq!(
            differences(&lines.join("\n"), &other.join("\n")),
            "  (97 lines alike)\n  97\n  98\n  99\n- 100\n+ other\n  101\n  102\n  103\n  (96 lines alike)\n"
        );
    }
}

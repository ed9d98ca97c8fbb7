//! The workloads, each played by every side in turns.

use anyhow::Result;

use crate::{
    crew::Side,
    row::{Goal, Row},
    stage::{self, Stage, Took},
    work,
};

/// The sides that record within workflow code, and the same work untraced.
pub(crate) const IN_WORKFLOWS: &[Side] =
    &[Side::Ours, Side::Untraced, Side::Seed, Side::PythonUntraced];

/// The sides that trace activities, and the same work untraced.
pub(crate) const IN_ACTIVITIES: &[Side] = &[
    Side::Ours,
    Side::Untraced,
    Side::Otel,
    Side::OtelUntraced,
    Side::PythonOtel,
    Side::PythonUntraced,
];

/// The sides in an order that favours none: forwards in one turn, backwards in the next.
fn in_turn(sides: &[Side], turn: usize) -> Vec<Side> {
    let mut sides = sides.to_vec();
    if turn % 2 == 1 {
        sides.reverse();
    }
    sides
}

/// Spans in one run, with nothing else in it: history, wall, processor time and bytes on the wire.
pub(crate) async fn thousand(stage: &mut Stage, turns: usize) -> Result<Vec<Row>> {
    const SPANS: u32 = 1_000;
    let mut figures = Figures::default();
    for turn in 0..turns {
        for side in in_turn(IN_WORKFLOWS, turn) {
            let runs = if matches!(side, Side::Ours | Side::Untraced) { 20 } else { 3 };
            let took = stage.run(side, || work::Spans::run, SPANS, runs, 1).await?;
            let history = stage.history(&took.last_workflow_id).await?;
            figures.add("history", side, stage::bytes(&history) / f64::from(SPANS));
            figures.add("wall", side, took.median_wall_ms());
            figures.add("cpu", side, took.cpu.as_secs_f64() * 1e3 / runs as f64);
            // Each run's own span counts as well, on both sides.
            figures.add("wire", side, took.arrived.bytes as f64 / (runs as f64 * f64::from(SPANS)));
        }
    }
    let added = |what| {
        (
            figures.difference(what, Side::Ours, Side::Untraced),
            figures.difference(what, Side::Seed, Side::PythonUntraced),
        )
    };
    let seed = Side::Seed.name();
    let row = |name: &str, unit, (ours, peer), goal| {
        Row::own(name, unit, ours).beside(seed, peer).goal(goal)
    };
    let over = |what| {
        (
            figures.quotient(what, Side::Ours, Side::Untraced),
            figures.quotient(what, Side::Seed, Side::PythonUntraced),
        )
    };
    let wire = (figures.of("wire", Side::Ours), figures.of("wire", Side::Seed));
    Ok(vec![
        row("history per span, run of 1,000 spans", "B", added("history"), Goal::AtMost(2.2)),
        row(
            "wall of a run of 1,000 spans over the untraced run",
            "x",
            over("wall"),
            Goal::AtMost(1.3),
        ),
        row(
            "worker CPU per 1,000 spans in workflows, without the untraced run's",
            "ms",
            added("cpu"),
            Goal::RatioAtMost(1.0 / 50.0),
        ),
        row("bytes on the wire per span", "B", wire, Goal::RatioAtMost(1.0 / 8.0)),
    ])
}

/// A short run without operations: what tracing adds to its history.
pub(crate) async fn ten(stage: &mut Stage) -> Result<Vec<Row>> {
    let mut figures = Figures::default();
    for &side in IN_WORKFLOWS {
        let took = stage.run(side, || work::Spans::run, 10, 1, 1).await?;
        let history = stage.history(&took.last_workflow_id).await?;
        figures.add("bytes", side, stage::bytes(&history));
        figures.add("events", side, history.len() as f64);
    }
    let row = |name: &str, unit, what, goal| {
        let ours = figures.difference(what, Side::Ours, Side::Untraced);
        let peer = figures.difference(what, Side::Seed, Side::PythonUntraced);
        Row::own(name, unit, ours).beside(Side::Seed.name(), peer).goal(goal)
    };
    Ok(vec![
        row("history added to a run of 10 spans", "B", "bytes", Goal::AtMost(450.0)),
        row("events added to a run of 10 spans", "events", "events", Goal::AtMost(1.0)),
    ])
}

/// Activities one after the other, fully traced. A few runs at once, which sleep most of the time, give
/// a median in the time that one takes.
pub(crate) async fn steps(stage: &mut Stage, turns: usize) -> Result<Vec<Row>> {
    const RUNS: usize = 5;
    let mut figures = Figures::default();
    for turn in 0..turns {
        for side in in_turn(IN_ACTIVITIES, turn) {
            let took = stage.run(side, || work::Steps::run, 20, RUNS, RUNS).await?;
            figures.add("wall", side, took.median_wall_ms());
            let headers = stage::header_bytes(&stage.history(&took.last_workflow_id).await?);
            let most = headers.iter().copied().fold(0.0, f64::max);
            figures.add("header", side, most);
        }
    }
    let ours = figures.quotient("wall", Side::Ours, Side::Untraced);
    let name = "wall of 20 activities of 100 ms over the untraced run";
    let mut rows = vec![Row::own(name, "x", ours.clone()).goal(Goal::AtMost(1.03))];
    for (otel, untraced) in
        [(Side::Otel, Side::OtelUntraced), (Side::PythonOtel, Side::PythonUntraced)]
    {
        let peer = figures.quotient("wall", otel, untraced);
        rows.push(
            Row::own(name, "x", ours.clone()).beside(otel.name(), peer).goal(Goal::NotAbovePeer),
        );
        let headers = Row::own("header per activity", "B", figures.of("header", Side::Ours));
        let peer = figures.of("header", otel);
        rows.push(headers.beside(otel.name(), peer).goal(Goal::NotAbovePeer));
    }
    Ok(rows)
}

/// Many short runs at once, while the sink takes its time.
pub(crate) async fn calls(stage: &mut Stage, turns: usize, runs: usize) -> Result<Vec<Row>> {
    let mut figures = Figures::default();
    stage.sink.answer_after(std::time::Duration::from_millis(50));
    for turn in 0..turns {
        for side in in_turn(&[Side::Ours, Side::Seed], turn) {
            let took: Took = stage.run(side, || work::Spans::run, 5, runs, 100).await?;
            figures.add("calls", side, took.arrived.calls as f64);
            figures.add("rate", side, runs as f64 / took.all.as_secs_f64());
        }
    }
    stage.sink.answer_after(std::time::Duration::ZERO);
    let row = |name: &str, unit, what, goal| {
        let [ours, peer] = [Side::Ours, Side::Seed].map(|side| figures.of(what, side));
        Row::own(name, unit, ours).beside(Side::Seed.name(), peer).goal(goal)
    };
    let name =
        format!("HTTP calls for {runs} runs of 5 spans, 100 at a time, sink answering in 50 ms");
    Ok(vec![
        row(&name, "calls", "calls", Goal::RatioAtMost(1.0 / 3.0)),
        row("runs per second meanwhile", "1/s", "rate", Goal::None),
    ])
}

/// Figures by what they are and whose they are, one for each turn.
#[derive(Default)]
pub(crate) struct Figures(Vec<(&'static str, Side, f64)>);

impl Figures {
    pub(crate) fn add(&mut self, what: &'static str, side: Side, figure: f64) {
        self.0.push((what, side, figure));
    }

    pub(crate) fn of(&self, what: &str, side: Side) -> Vec<f64> {
        let of_both = self.0.iter().filter(|(name, whose, _)| *name == what && *whose == side);
        of_both.map(|(.., figure)| *figure).collect()
    }

    fn pairs(&self, what: &str, traced: Side, untraced: Side) -> impl Iterator<Item = (f64, f64)> {
        self.of(what, traced).into_iter().zip(self.of(what, untraced))
    }

    /// What tracing adds.
    pub(crate) fn difference(&self, what: &str, traced: Side, untraced: Side) -> Vec<f64> {
        self.pairs(what, traced, untraced).map(|(traced, untraced)| traced - untraced).collect()
    }

    fn quotient(&self, what: &str, traced: Side, untraced: Side) -> Vec<f64> {
        self.pairs(what, traced, untraced).map(|(traced, untraced)| traced / untraced).collect()
    }
}

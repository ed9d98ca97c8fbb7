//! How the cost grows with the size: it should be in proportion.

use anyhow::{Result, ensure};
use temporalio_common::HasWorkflowDefinition;

use crate::{
    crew::Side,
    row::{Goal, Row},
    stage::Stage,
    work,
};

/// Noise can make a small cost negative.
const LEAST_MS: f64 = 1e-3;

/// Spans in a run, runs at once, and runs in a chain.
pub(crate) async fn ladders(stage: &mut Stage) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut spans = Ladder::new("spans in a run");
    for (size, runs) in [(1_000, 20), (10_000, 5), (100_000, 2), (1_000_000, 1)] {
        let expected = u64::from(size) * runs as u64;
        spans
            .climb(stage, || work::Rounds::run, size, (runs, 1, runs), f64::from(size), expected)
            .await?;
    }
    rows.extend(spans.rows());
    let mut runs = Ladder::new("runs at once, of 5 spans");
    for (size, rounds) in [(10, 20), (100, 5), (1_000, 1)] {
        for _ in 0..rounds {
            let expected = 5 * size as u64;
            runs.climb(stage, || work::Spans::run, 5, (size, size, 1), size as f64, expected)
                .await?;
        }
    }
    rows.extend(runs.rows());
    let mut generations = Ladder::new("generations of a chain, of 10 spans");
    // The server keeps a second between two generations, so chains run side by side.
    let chains = 20;
    for size in [1, 10, 50] {
        let expected = 10 * u64::from(size) * chains as u64;
        let at_once = (chains, chains, chains);
        generations
            .climb(stage, || work::Generations::run, size, at_once, f64::from(size), expected)
            .await?;
    }
    rows.extend(generations.rows());
    Ok(rows)
}

struct Ladder {
    name: &'static str,
    /// Size, and the milliseconds of processor time that tracing took for one of that size.
    rungs: Vec<(f64, f64)>,
}

impl Ladder {
    fn new(name: &'static str) -> Self {
        Self { name, rungs: Vec::new() }
    }

    /// Plays so many runs, so many of them at once. The cost is divided by the last number.
    async fn climb<W>(
        &mut self,
        stage: &mut Stage,
        workflow: fn() -> W,
        input: u32,
        (runs, at_once, parts): (usize, usize, usize),
        size: f64,
        spans: u64,
    ) -> Result<()>
    where
        W: HasWorkflowDefinition<Input = u32>,
    {
        if self.rungs.last().is_none_or(|(last, _)| *last != size) {
            eprintln!("  {size} {}", self.name);
        }
        let traced = stage.run(Side::Ours, workflow, input, runs, at_once).await?;
        let arrived = traced.arrived.spans;
        ensure!(
            arrived >= spans,
            "{arrived} of {spans} spans arrived: the machine is too small for {size} {}",
            self.name
        );
        let untraced = stage.run(Side::Untraced, workflow, input, runs, at_once).await?;
        let added = traced.cpu.as_secs_f64() - untraced.cpu.as_secs_f64();
        self.rungs.push((size, added * 1e3 / parts as f64));
        Ok(())
    }

    fn rows(self) -> Vec<Row> {
        let mut sizes: Vec<f64> = self.rungs.iter().map(|(size, _)| *size).collect();
        sizes.dedup();
        let of_size = |wanted: f64| {
            let rungs = self.rungs.iter().filter(move |(size, _)| *size == wanted);
            rungs.map(|(_, cost)| *cost).collect::<Vec<_>>()
        };
        let medians: Vec<(f64, f64)> =
            sizes.iter().map(|size| (*size, crate::row::median(&of_size(*size)))).collect();
        let name = self.name;
        let mut rows: Vec<Row> = sizes
            .iter()
            .map(|size| Row::own(format!("worker CPU, {size} {name}"), "ms", of_size(*size)))
            .collect();
        let fit = Fit::of(&medians);
        let mut row = |what: &str, unit, figure: f64, goal| {
            let name = format!("worker CPU over {name}: {what}");
            rows.push(Row::own(name, unit, vec![figure]).goal(goal));
        };
        row("each adds", "us", fit.slope * 1e3, Goal::None);
        row("the first costs beside that", "ms", fit.intercept, Goal::None);
        row("off the straight line at most", "%", fit.off * 100.0, Goal::None);
        let (exponent, goal) = (exponent(&medians), Goal::AtMost(1.1));
        row("exponent of the fit, 1 is linear", "", exponent, goal);
        rows
    }
}

/// The straight line that fits best, where each rung counts by how far off it is in parts of itself: the
/// top rung alone would decide otherwise.
struct Fit {
    slope: f64,
    intercept: f64,
    /// The most that a rung is off the line, as a part of its own cost.
    off: f64,
}

impl Fit {
    fn of(points: &[(f64, f64)]) -> Self {
        let weighted =
            points.iter().map(|(size, cost)| (cost.max(LEAST_MS).powi(-2), *size, *cost));
        let weighted: Vec<(f64, f64, f64)> = weighted.collect();
        let sum = |of: fn(&(f64, f64, f64)) -> f64| weighted.iter().map(of).sum::<f64>();
        let all = sum(|(weight, ..)| *weight);
        let mean_size = sum(|(weight, size, _)| weight * size) / all;
        let mean_cost = sum(|(weight, _, cost)| weight * cost) / all;
        let covariance: f64 = weighted
            .iter()
            .map(|(weight, size, cost)| weight * (size - mean_size) * (cost - mean_cost))
            .sum();
        let variance: f64 =
            weighted.iter().map(|(weight, size, _)| weight * (size - mean_size).powi(2)).sum();
        let slope = covariance / variance;
        let intercept = mean_cost - slope * mean_size;
        let off = points
            .iter()
            .map(|(size, cost)| (intercept + slope * size - cost).abs() / cost.max(LEAST_MS))
            .fold(0.0, f64::max);
        Self { slope, intercept, off }
    }
}

/// The slope of the straight line that fits best where both axes are logarithmic.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> =
        points.iter().map(|(size, cost)| (size.ln(), cost.max(LEAST_MS).ln())).collect();
    let count = logs.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| logs.iter().map(pick).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let covariance: f64 = logs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = logs.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    covariance / variance
}

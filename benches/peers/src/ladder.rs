//! How the cost grows with the size: it should be in proportion.

use anyhow::Result;
use temporalio_common::HasWorkflowDefinition;

use crate::{
    crew::Side,
    row::{Goal, Row},
    stage::Stage,
    work,
};

/// Spans in a run, runs at once, and runs in a chain.
pub(crate) async fn ladders(stage: &mut Stage) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut spans = Ladder::new("spans in a run");
    for (size, runs) in [(1_000, 20), (10_000, 5), (100_000, 2), (1_000_000, 1)] {
        spans.climb(stage, || work::Rounds::run, size, (runs, 1), f64::from(size)).await?;
    }
    rows.extend(spans.rows());
    let mut runs = Ladder::new("runs at once, of 5 spans");
    for size in [10, 100, 1_000] {
        // As many runs on each rung.
        let rounds = 1_000 / size;
        for _ in 0..rounds {
            runs.climb(stage, || work::Spans::run, 5, (size, size), size as f64).await?;
        }
    }
    rows.extend(runs.rows());
    let mut generations = Ladder::new("generations of a chain, of 10 spans");
    for (size, runs) in [(1, 50), (10, 10), (50, 4)] {
        generations
            .climb(stage, || work::Generations::run, size, (runs, 1), f64::from(size))
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

    async fn climb<W>(
        &mut self,
        stage: &mut Stage,
        workflow: fn() -> W,
        input: u32,
        (runs, at_once): (usize, usize),
        size: f64,
    ) -> Result<()>
    where
        W: HasWorkflowDefinition<Input = u32>,
    {
        let of_one = runs.div_ceil(at_once) as f64;
        let traced = stage.run(Side::Ours, workflow, input, runs, at_once).await?;
        let untraced = stage.run(Side::Untraced, workflow, input, runs, at_once).await?;
        let added = traced.cpu.as_secs_f64() - untraced.cpu.as_secs_f64();
        self.rungs.push((size, added * 1e3 / of_one));
        Ok(())
    }

    fn rows(self) -> Vec<Row> {
        let mut sizes: Vec<f64> = self.rungs.iter().map(|(size, _)| *size).collect();
        sizes.dedup();
        let rungs: Vec<(f64, Vec<f64>)> = sizes
            .into_iter()
            .map(|size| {
                let of_size = self.rungs.iter().filter(|(other, _)| *other == size);
                (size, of_size.map(|(_, cost)| *cost).collect())
            })
            .collect();
        let medians: Vec<(f64, f64)> =
            rungs.iter().map(|(size, costs)| (*size, crate::row::median(costs))).collect();
        let name = self.name;
        let exponent = Row::own(
            format!("worker CPU over {name}: exponent of the fit, 1 is linear"),
            "",
            vec![exponent(&medians)],
        );
        let rung = |(size, costs)| Row::own(format!("worker CPU, {size} {name}"), "ms", costs);
        rungs.into_iter().map(rung).chain([exponent.goal(Goal::AtMost(1.1))]).collect()
    }
}

/// The slope of the straight line that fits best where both axes are logarithmic.
fn exponent(points: &[(f64, f64)]) -> f64 {
    // Noise can make a small cost negative.
    let logs: Vec<(f64, f64)> =
        points.iter().map(|(size, cost)| (size.ln(), cost.max(1e-3).ln())).collect();
    let count = logs.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| logs.iter().map(pick).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
    let covariance: f64 = logs.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = logs.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    covariance / variance
}

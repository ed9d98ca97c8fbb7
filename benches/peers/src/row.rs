//! What is printed: figures of ours beside a peer's, turn by turn.

use serde::Serialize;

/// What a figure is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Our figure is at most this.
    AtMost(f64),
    AtLeast(f64),
    /// Our figure divided by the peer's is at most this.
    RatioAtMost(f64),
    /// Our figure is not above the peer's. Where that is so in some turns and not in others, it is a tie.
    NotAbovePeer,
    /// Only shown.
    None,
}

/// One line: the same work on both sides, in several turns.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Vec<f64>,
    /// As many, or none where there is no peer.
    pub(crate) peer: Vec<f64>,
    pub(crate) peer_name: &'static str,
    pub(crate) goal: Goal,
}

/// The line as `--json` prints it: medians, and the ratio's range.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    name: &'a str,
    unit: &'a str,
    ours: f64,
    peer: Option<f64>,
    peer_name: Option<&'a str>,
    /// Ours divided by the peer's, turn by turn.
    ratio: Option<f64>,
    ratio_min: Option<f64>,
    ratio_max: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
}

impl Row {
    /// A figure that has no peer.
    pub(crate) fn own(name: impl Into<String>, unit: &'static str, ours: Vec<f64>) -> Self {
        Self { name: name.into(), unit, ours, peer: Vec::new(), peer_name: "", goal: Goal::None }
    }

    pub(crate) fn beside(mut self, peer_name: &'static str, peer: Vec<f64>) -> Self {
        (self.peer_name, self.peer) = (peer_name, peer);
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self
    }

    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.peer).map(|(ours, peer)| ours / peer).collect()
    }

    fn met(&self) -> Option<bool> {
        let ours = median(&self.ours);
        match self.goal {
            Goal::AtMost(most) => Some(ours <= most),
            Goal::AtLeast(least) => Some(ours >= least),
            Goal::RatioAtMost(most) => Some(median(&self.ratios()) <= most),
            Goal::NotAbovePeer => Some(median(&self.ratios()) <= 1.0),
            Goal::None => None,
        }
    }

    /// Whether the peer is ahead in some turns and behind in others.
    fn is_tie(&self) -> bool {
        let ratios = self.ratios();
        let behind = ratios.iter().any(|ratio| *ratio > 1.0);
        matches!(self.goal, Goal::NotAbovePeer)
            && behind
            && ratios.iter().any(|ratio| *ratio <= 1.0)
    }

    fn goal_text(&self) -> Option<String> {
        match self.goal {
            Goal::AtMost(most) => Some(format!("<= {}", short(most))),
            Goal::AtLeast(least) => Some(format!(">= {}", short(least))),
            Goal::RatioAtMost(most) => Some(format!("ratio <= {}", short(most))),
            Goal::NotAbovePeer => Some("ratio <= 1".to_owned()),
            Goal::None => None,
        }
    }

    fn printed(&self) -> Printed<'_> {
        let ratios = self.ratios();
        let has_peer = !ratios.is_empty();
        let of_ratios = |pick: fn(&[f64]) -> f64| has_peer.then(|| pick(&ratios));
        Printed {
            name: &self.name,
            unit: self.unit,
            ours: median(&self.ours),
            peer: has_peer.then(|| median(&self.peer)),
            peer_name: has_peer.then_some(self.peer_name),
            ratio: of_ratios(median),
            ratio_min: of_ratios(|all| all.iter().copied().fold(f64::INFINITY, f64::min)),
            ratio_max: of_ratios(|all| all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            goal: self.goal_text(),
            met: self.met(),
        }
    }
}

pub(crate) fn json(rows: &[Row]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&rows.iter().map(Row::printed).collect::<Vec<_>>())
}

/// A table in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | unit | ours | peer | ours / peer: median (min to max) | turns | goal |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Printed { ours, peer, ratio, ratio_min, ratio_max, goal, met, .. } = row.printed();
        let [peer, ratio, least, most] =
            [peer, ratio, ratio_min, ratio_max].map(|figure| figure.map(short).unwrap_or_default());
        let peer = if peer.is_empty() { peer } else { format!("{peer} ({})", row.peer_name) };
        let ratio = if ratio.is_empty() { ratio } else { format!("{ratio} ({least} to {most})") };
        let met = match met {
            Some(true) => ": met",
            Some(false) if row.is_tie() => ": a tie",
            Some(false) => ": **not met**",
            None => "",
        };
        let goal = goal.unwrap_or_default();
        let (name, unit, ours) = (&row.name, row.unit, short(ours));
        let turns = row.ours.len();
        text.push_str(&format!(
            "| {name} | {unit} | {ours} | {peer} | {ratio} | {turns} | {goal}{met} |\n"
        ));
    }
    text
}

pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

/// Three digits that count.
fn short(figure: f64) -> String {
    let decimals = match figure.abs() {
        above if above >= 100.0 || above == 0.0 => 0,
        above if above >= 10.0 => 1,
        above if above >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{figure:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

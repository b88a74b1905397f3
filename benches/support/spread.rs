//! Figures of several rounds: their median, and how far apart they are.

use serde_json::{Value, json};

/// At least one figure, sorted.
pub struct Spread(Vec<f64>);

impl Spread {
    /// Of the figures that are numbers; `None` if there is none.
    pub fn new(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        (!figures.is_empty()).then_some(Self(figures))
    }

    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) { (self.0[middle - 1] + self.0[middle]) / 2.0 } else { self.0[middle] }
    }

    pub fn least(&self) -> f64 {
        self.0[0]
    }

    pub fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Median, least and most.
    pub fn text(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median(), self.least(), self.most())
    }

    pub fn json(&self) -> Value {
        json!({ "median": self.median(), "least": self.least(), "most": self.most(), "rounds": self.0.len() })
    }
}

//! What the benchmarks share: contenders, load, measured processes, and the table that comes out.
//!
//! Contenders take turns within one run (A B C A B C …), so that a noisy neighbour hits all of them; medians are
//! reported, ratios before absolute figures, and CPU time beside the clock.

pub mod contenders;
pub mod counted;
pub mod engines;
pub mod load;
pub mod plain;
pub mod report;

/// The median; 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

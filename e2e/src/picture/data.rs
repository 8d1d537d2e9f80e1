//! Results of range queries, as charts take them.
//!
//! Pure.

use anyhow::{Context as _, Result};
use chrono::DateTime;
use serde_json::Value;
use std::collections::BTreeMap;

/// Labels of a series, and its value, or none, for each time.
pub type Labelled = (BTreeMap<String, String>, Vec<Option<f32>>);

/// Series of the same times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Times of day, UTC.
    pub times: Vec<String>,
    /// In the order of the answer.
    pub series: Vec<Labelled>,
}

/// The result of `query_range`: a matrix. Every series has the values of the same times; where it has none, there is a gap.
pub fn samples(matrix: &[Value]) -> Result<Samples> {
    let mut rows = Vec::new();
    for series in matrix {
        let labels = series["metric"].as_object().into_iter().flatten();
        let labels: BTreeMap<_, _> = labels
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        rows.push((labels, values(series)?));
    }
    let mut times: Vec<i64> = rows
        .iter()
        .flat_map(|(_, values)| values.keys().copied())
        .collect();
    times.sort_unstable();
    times.dedup();
    let aligned = |(labels, values): (BTreeMap<String, String>, BTreeMap<i64, f32>)| {
        let row = times.iter().map(|time| values.get(time).copied()).collect();
        (labels, row)
    };
    let series = rows.into_iter().map(aligned).collect();
    let times = times.iter().map(|time| clock(*time)).collect::<Result<_>>()?;
    Ok(Samples { times, series })
}

fn values(series: &Value) -> Result<BTreeMap<i64, f32>> {
    let points = series["values"].as_array().context("a series without values")?;
    let mut values = BTreeMap::new();
    for point in points {
        let time = point[0].as_f64().context("a sample without time")?;
        let value: f32 = point[1].as_str().context("a sample without value")?.parse()?;
        if value.is_finite() {
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
            values.insert(time as i64, value);
        }
    }
    Ok(values)
}

fn clock(seconds: i64) -> Result<String> {
    let time = DateTime::from_timestamp(seconds, 0).context("a time out of range")?;
    Ok(time.format("%H:%M:%S").to_string())
}

/// The legend with the values of the labels in place of `{{label}}`.
pub(super) fn legend(legend: &str, labels: &BTreeMap<String, String>) -> String {
    let filled = labels.iter().fold(legend.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{{name}}}}}"), value)
    });
    if filled.is_empty() {
        "value".to_owned()
    } else {
        filled
    }
}

/// Number of observations in each bucket of a cumulative histogram, by its upper bound; without buckets that have none at any time.
pub(super) fn buckets(samples: &Samples) -> Vec<(String, Vec<f32>)> {
    let mut bounds: Vec<(f32, String, Vec<f32>)> = samples
        .series
        .iter()
        .filter_map(|(labels, values)| {
            let name = labels.get("le")?;
            let bound = name.parse().unwrap_or(f32::INFINITY);
            Some((
                bound,
                name.clone(),
                values.iter().map(|value| value.unwrap_or(0.0)).collect(),
            ))
        })
        .collect();
    bounds.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let mut below = vec![0.0; samples.times.len()];
    let mut buckets = Vec::new();
    for (_, name, cumulative) in bounds {
        let own: Vec<f32> = cumulative
            .iter()
            .zip(&below)
            .map(|(value, below)| (value - below).max(0.0))
            .collect();
        if own.iter().any(|value| *value >= 0.5) {
            buckets.push((name, own));
        }
        below = cumulative;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn series(le: &str, values: &[(i64, &str)]) -> Value {
        json!({"metric": {"le": le}, "values": values})
    }

    #[test]
    fn series_are_aligned_and_buckets_are_not_cumulative() {
        let matrix = [
            series("+Inf", &[(0, "5"), (10, "6")]),
            series("0.1", &[(0, "2"), (10, "2")]),
            series("0.2", &[(10, "6")]),
        ];
        let samples = samples(&matrix).unwrap();
        assert_eq!(samples.times, ["00:00:00", "00:00:10"]);
        assert_eq!(samples.series[2].1, [None, Some(6.0)]);
        let expected = [
            ("0.1".to_owned(), vec![2.0, 2.0]),
            ("0.2".to_owned(), vec![0.0, 4.0]),
            ("+Inf".to_owned(), vec![5.0, 0.0]),
        ];
        assert_eq!(buckets(&samples), expected);
    }

    #[test]
    fn a_value_that_is_no_number_is_a_gap() {
        let samples = samples(&[series("1", &[(0, "NaN"), (10, "1")])]).unwrap();
        assert_eq!(samples.series[0].1, [Some(1.0)]);
        assert_eq!(samples.times, ["00:00:10"]);
    }

    #[test]
    fn a_legend_names_its_labels() {
        let labels = [("cause".to_owned(), "rules".to_owned())].into();
        assert_eq!(legend("failing: {{cause}}", &labels), "failing: rules");
        assert_eq!(legend("", &labels), "value");
    }
}

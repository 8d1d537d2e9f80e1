//! A picture of the dashboard: each panel of `olm::dashboard` with the data of a Prometheus, as SVG.
//!
//! Pure but for the queries, which the caller runs. Grafana is not in any package registry that the test bed uses, so the crate charts-rs
//! draws what Grafana would.

mod data;

pub use data::{Labelled, Samples, samples};

use anyhow::{Result, anyhow};
use charts_rs::{ChildChart, HeatmapChart, LineChart, MultiChart, Series, TableChart};
use olm::dashboard::{Kind, Panel, Row, Unit};

/// Width of the picture, in pixels.
const WIDTH: f32 = 1600.0;
const HEADING: f32 = 34.0;
const PANEL: f32 = 260.0;
const TILES: f32 = 100.0;
const GAP: f32 = 10.0;

/// Draws the rows from top to bottom. `query` returns the series of a query over the time of the picture.
pub fn draw(rows: &[Row], query: &mut dyn FnMut(&str) -> Result<Samples>) -> Result<String> {
    let mut picture = MultiChart::new();
    let mut top = 0.0;
    for row in rows {
        picture.charts.push(heading(row.title, top));
        top += HEADING;
        let is_tiles = row.panels.iter().all(is_tile);
        if is_tiles {
            picture.charts.push(tiles(&row.panels, query, top)?);
        } else {
            picture.charts.extend(panels(&row.panels, query, top)?);
        }
        top += GAP + if is_tiles { TILES } else { PANEL };
    }
    picture.svg().map_err(|error| anyhow!("charts-rs: {error}"))
}

fn is_tile(panel: &Panel) -> bool {
    matches!(panel.kind, Kind::Stat | Kind::Word { .. })
}

fn heading(title: &str, top: f32) -> ChildChart {
    let mut line = TableChart::new(vec![vec![title.to_owned()]]);
    line.width = WIDTH;
    ChildChart::Table(line, Some((0.0, top)))
}

/// Panels with one number each: a table with the titles above the values.
fn tiles(panels: &[Panel], query: &mut dyn FnMut(&str) -> Result<Samples>, top: f32) -> Result<ChildChart> {
    let titles = panels.iter().map(|panel| panel.title.to_owned()).collect();
    let mut values = Vec::new();
    for panel in panels {
        let samples = query(panel.queries[0].0)?;
        let latest = samples
            .series
            .first()
            .and_then(|(_, values)| values.iter().rev().flatten().next().copied());
        values.push(word(panel, latest));
    }
    let mut table = TableChart::new(vec![titles, values]);
    table.width = WIDTH;
    Ok(ChildChart::Table(table, Some((0.0, top))))
}

fn word(panel: &Panel, latest: Option<f32>) -> String {
    match (latest, panel.kind) {
        (None, _) => "no data".to_owned(),
        (Some(value), Kind::Word { one, zero, .. }) => if value > 0.5 { one } else { zero }.to_owned(),
        (Some(value), _) => format!("{value}"),
    }
}

fn panels(
    panels: &[Panel],
    query: &mut dyn FnMut(&str) -> Result<Samples>,
    top: f32,
) -> Result<Vec<ChildChart>> {
    let count = u16::try_from(panels.len().max(1))?;
    let width = (WIDTH - GAP * f32::from(count - 1)) / f32::from(count);
    let mut drawn = Vec::new();
    for (column, panel) in (0u16..).zip(panels) {
        let place = Some((f32::from(column) * (width + GAP), top));
        drawn.push(match panel.kind {
            Kind::Heatmap => ChildChart::Heatmap(heatmap(panel, query, width)?, place),
            _ => ChildChart::Line(lines(panel, query, width)?, place),
        });
    }
    Ok(drawn)
}

fn lines(panel: &Panel, query: &mut dyn FnMut(&str) -> Result<Samples>, width: f32) -> Result<LineChart> {
    let (scale, unit) = scale(panel.unit);
    let (mut series, mut times) = (Vec::new(), Vec::new());
    for (expression, legend) in &panel.queries {
        let samples = query(expression)?;
        // A query without result has no times.
        if samples.times.len() > times.len() {
            times.clone_from(&samples.times);
        }
        for (labels, values) in samples.series {
            let values = values
                .iter()
                .map(|value| value.map(|value| value * scale))
                .collect();
            let mut one = Series::new(data::legend(legend, &labels), Vec::new());
            one.data = values;
            series.push(one);
        }
    }
    let mut chart = LineChart::new(series, times);
    (chart.width, chart.height) = (width, PANEL);
    chart.title.text = format!("{}{unit}", panel.title);
    chart.title.font.size = 14.0;
    chart.series.symbol = Some(charts_rs::Symbol::None);
    chart.series.fill = panel.kind == Kind::Areas;
    chart.empty_text = Some("none".to_owned());
    Ok(chart)
}

/// One row for each bucket that ever grew, one column for each time.
fn heatmap(
    panel: &Panel,
    query: &mut dyn FnMut(&str) -> Result<Samples>,
    width: f32,
) -> Result<HeatmapChart> {
    let samples = query(panel.queries[0].0)?;
    let buckets = data::buckets(&samples);
    let columns = samples.times.len();
    let mut cells = Vec::new();
    for (row, (_, values)) in buckets.iter().enumerate() {
        let filled = values.iter().enumerate().filter(|(_, value)| **value > 0.0);
        cells.extend(filled.map(|(column, value)| (row * columns + column, *value)));
    }
    let highest = cells.iter().map(|(_, value)| *value).fold(1.0, f32::max);
    let labels = buckets.into_iter().map(|(bucket, _)| bucket).collect();
    let mut chart = HeatmapChart::new(cells, samples.times, labels);
    (chart.width, chart.height) = (width, PANEL);
    chart.title.text = format!("{} (up to seconds)", panel.title);
    chart.title.font.size = 14.0;
    chart.heatmap_series.max = highest;
    Ok(chart)
}

/// Factor and its name for the title.
fn scale(unit: Unit) -> (f32, &'static str) {
    match unit {
        Unit::Number => (1.0, ""),
        Unit::PerSecond => (1.0, " (per second)"),
        Unit::Seconds => (1e3, " (ms)"),
        Unit::Bytes => (1e-6, " (MB)"),
        Unit::Cores => (1e3, " (thousandths of a core)"),
    }
}

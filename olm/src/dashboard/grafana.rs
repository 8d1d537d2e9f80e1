//! The dashboard for Grafana 9 and newer, to be imported.
//!
//! Pure.

use super::{Kind, Panel, Row, TITLE};
use serde_json::{Value, json};

/// Columns of Grafana's grid.
const COLUMNS: usize = 24;

/// Renders the dashboard. The data source is chosen at the top of the page.
pub fn dashboard(rows: &[Row]) -> Value {
    let (mut panels, mut top) = (Vec::new(), 0);
    for row in rows {
        let position = json!({ "x": 0, "y": top, "w": COLUMNS, "h": 1 });
        panels.push(json!({ "type": "row", "title": row.title, "collapsed": false, "gridPos": position, "panels": [] }));
        let height = if row.panels.iter().all(is_small) { 4 } else { 8 };
        let width = COLUMNS / row.panels.len().max(1);
        for (column, panel) in row.panels.iter().enumerate() {
            let position = json!({ "x": column * width, "y": top + 1, "w": width, "h": height });
            panels.push(render(panel, &position));
        }
        top += 1 + height;
    }
    for (id, panel) in panels.iter_mut().enumerate() {
        panel["id"] = (id + 1).into();
    }
    json!({
        "title": TITLE,
        "uid": "multus-service",
        "tags": ["multus-service"],
        "schemaVersion": 38,
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": [{ "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" }] },
        "panels": panels,
    })
}

fn is_small(panel: &Panel) -> bool {
    matches!(panel.kind, Kind::Stat | Kind::Word { .. })
}

fn render(panel: &Panel, position: &Value) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let target = |(index, (query, legend)): (usize, &(&str, &str))| {
        json!({
            "refId": format!("Q{index}"), "datasource": source, "expr": query, "legendFormat": legend,
            "format": if panel.kind == Kind::Heatmap { "heatmap" } else { "time_series" },
        })
    };
    let targets: Vec<_> = panel.queries.iter().enumerate().map(target).collect();
    json!({
        "type": kind(panel.kind),
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "gridPos": position,
        "targets": targets,
        "fieldConfig": { "defaults": defaults(panel), "overrides": [] },
        "options": options(panel.kind),
    })
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Stat | Kind::Word { .. } => "stat",
        Kind::Lines | Kind::Areas => "timeseries",
        Kind::Heatmap => "heatmap",
    }
}

fn defaults(panel: &Panel) -> Value {
    let mut defaults = json!({ "unit": panel.unit.name() });
    match panel.kind {
        Kind::Areas => {
            defaults["custom"] = json!({ "fillOpacity": 30, "stacking": { "mode": "normal", "group": "A" } });
        }
        Kind::Lines | Kind::Heatmap => {}
        Kind::Stat => {
            let steps = json!([{ "color": "green", "value": null }, { "color": "orange", "value": 1 }]);
            defaults["thresholds"] = json!({ "mode": "absolute", "steps": steps });
        }
        Kind::Word { one, zero, is_good } => {
            let color = |is_good| if is_good { "green" } else { "red" };
            defaults["mappings"] = json!([{ "type": "value", "options": {
                "0": { "text": zero, "color": color(!is_good) },
                "1": { "text": one, "color": color(is_good) },
            } }]);
        }
    }
    defaults
}

fn options(kind: Kind) -> Value {
    match kind {
        Kind::Stat | Kind::Word { .. } => {
            json!({ "colorMode": "background", "graphMode": "none", "reduceOptions": { "calcs": ["lastNotNull"] } })
        }
        Kind::Lines | Kind::Areas => json!({ "tooltip": { "mode": "multi", "sort": "desc" } }),
        // The query yields buckets already.
        Kind::Heatmap => json!({
            "calculate": false, "yAxis": { "unit": "s" }, "cellGap": 1,
            "color": { "mode": "scheme", "scheme": "Oranges", "steps": 64 },
        }),
    }
}

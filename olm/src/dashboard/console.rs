//! The dashboard for OpenShift's console: **Observe > Dashboards**, by a ConfigMap in the namespace that the console reads.
//!
//! Pure.

use super::{Kind, Panel, Row, TITLE};
use serde_json::{Value, json};

/// Columns of a row in the console.
const COLUMNS: usize = 12;

/// Renders the ConfigMap.
pub fn config_map(rows: &[Row]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "multus-service-dashboard",
            "namespace": "openshift-config-managed",
            "labels": {
                "app.kubernetes.io/name": "multus-service",
                "app.kubernetes.io/part-of": "multus-service",
                "console.openshift.io/dashboard": "true",
            },
        },
        "data": { "multus-service.json": format!("{:#}\n", dashboard(rows)) },
    })
}

fn dashboard(rows: &[Row]) -> Value {
    json!({
        "title": TITLE,
        "uid": "multus-service",
        "schemaVersion": 14,
        "tags": ["multus-service"],
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": [{ "name": "datasource", "type": "datasource", "query": "prometheus", "hide": 2 }] },
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(row: &Row) -> Value {
    let panels: Vec<_> = row
        .panels
        .iter()
        .filter(|panel| panel.kind != Kind::Heatmap)
        .collect();
    let span = COLUMNS / panels.len().max(1);
    let panels: Vec<_> = panels.into_iter().map(|panel| render(panel, span)).collect();
    json!({ "title": row.title, "showTitle": true, "collapse": false, "height": "250px", "panels": panels })
}

fn render(panel: &Panel, span: usize) -> Value {
    let target = |(index, (query, legend)): (usize, &(&str, &str))| json!({ "refId": format!("Q{index}"), "expr": query, "legendFormat": legend, "format": "time_series" });
    let targets: Vec<_> = panel.queries.iter().enumerate().map(target).collect();
    let unit = panel.unit.name();
    let mut rendered = json!({
        "title": panel.title, "description": panel.description, "datasource": "$datasource", "span": span, "targets": targets,
    });
    let axes = json!([{ "format": unit, "min": 0, "show": true }, { "format": unit, "show": false }]);
    let more = match panel.kind {
        Kind::Word { one, zero, .. } => json!({
            "type": "singlestat", "format": unit, "valueName": "current",
            "valueMaps": [{ "op": "=", "value": "1", "text": one }, { "op": "=", "value": "0", "text": zero }],
        }),
        Kind::Stat => json!({ "type": "singlestat", "format": unit, "valueName": "current" }),
        Kind::Lines | Kind::Heatmap => {
            json!({ "type": "graph", "lines": true, "stack": false, "yaxes": axes })
        }
        Kind::Areas => json!({ "type": "graph", "lines": true, "stack": true, "yaxes": axes }),
    };
    for (key, value) in more.as_object().into_iter().flatten() {
        rendered[key] = value.clone();
    }
    rendered
}

//! What the dashboard shows.
//!
//! Pure. Names of nodes are the only label without a fixed set of values, so these panels show the first 20.

use super::{Kind, Panel, Row, Unit};

fn panel(
    title: &'static str,
    description: &'static str,
    kind: Kind,
    unit: Unit,
    queries: &[(&'static str, &'static str)],
) -> Panel {
    Panel {
        title,
        description,
        kind,
        unit,
        queries: queries.to_vec(),
    }
}

/// All rows, from top to bottom.
pub fn rows() -> Vec<Row> {
    let row = |title, panels| Row { title, panels };
    vec![
        row("Health", health()),
        row("From a change to the rules", programming()),
        row("Pods and Services", pods_and_services()),
        row("Repairs and failures", repairs()),
        row("Resources", resources()),
    ]
}

fn health() -> Vec<Panel> {
    let yes = |is_good| Kind::Word {
        one: "Yes",
        zero: "No",
        is_good,
    };
    vec![
        panel(
            "Available",
            "The condition of MultusServiceConfig cluster.",
            yes(true),
            Unit::Number,
            &[(
                r#"max(multus_service_condition{type="Available",status="True"})"#,
                "",
            )],
        ),
        panel(
            "Degraded",
            "The condition of MultusServiceConfig cluster. Its message names nodes and causes.",
            yes(false),
            Unit::Number,
            &[(
                r#"max(multus_service_condition{type="Degraded",status="True"})"#,
                "",
            )],
        ),
        panel(
            "Controller leads",
            "Yes while a replica of the endpoint controller holds the Lease.",
            yes(true),
            Unit::Number,
            &[("max(multus_service_controller_leader)", "")],
        ),
        panel(
            "Nodes without a running proxy",
            "Nodes whose proxy could not be scraped.",
            Kind::Stat,
            Unit::Number,
            &[(
                r#"count(up{job="multus-service-proxy-metrics"} == 0) or vector(0)"#,
                "",
            )],
        ),
        panel(
            "Firing alerts",
            "Each has a runbook.",
            Kind::Stat,
            Unit::Number,
            &[(
                r#"count(ALERTS{alertname=~"MultusService.*",alertstate="firing"}) or vector(0)"#,
                "",
            )],
        ),
    ]
}

fn programming() -> Vec<Panel> {
    vec![
        panel(
            "Programming latency",
            "From the change of a pod to the rules of a node, by number of changes.",
            Kind::Heatmap,
            Unit::Seconds,
            &[(
                "sum by (le) (increase(multus_service_proxy_network_programming_duration_seconds_bucket[5m]))",
                "{{le}}",
            )],
        ),
        panel(
            "Programming latency, quantiles",
            "Clients reach endpoints that are gone for so long.",
            Kind::Lines,
            Unit::Seconds,
            &[
                (
                    "histogram_quantile(0.5, sum by (le) (rate(multus_service_proxy_network_programming_duration_seconds_bucket[5m])))",
                    "p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le) (rate(multus_service_proxy_network_programming_duration_seconds_bucket[5m])))",
                    "p99",
                ),
            ],
        ),
        panel(
            "Changes of EndpointSlices",
            "Writes of the controller.",
            Kind::Areas,
            Unit::PerSecond,
            &[(
                "sum by (operation) (rate(multus_service_controller_endpointslice_changes_total[5m]))",
                "{{operation}}",
            )],
        ),
        panel(
            "Services waiting in the controller",
            "A queue that does not fall to 0 between changes is too long.",
            Kind::Lines,
            Unit::Number,
            &[("sum(multus_service_controller_queue_depth)", "waiting")],
        ),
        panel(
            "Duration of a sync of one pod",
            "99 % of the syncs are faster.",
            Kind::Lines,
            Unit::Seconds,
            &[(
                "histogram_quantile(0.99, sum by (le, backend) (rate(multus_service_proxy_sync_proxy_rules_duration_seconds_bucket[5m])))",
                "{{backend}}",
            )],
        ),
    ]
}

fn pods_and_services() -> Vec<Panel> {
    vec![
        panel(
            "Pods by state",
            "Pods with rules, and pods whose rules could not be applied, by cause.",
            Kind::Areas,
            Unit::Number,
            &[
                ("sum(multus_service_proxy_pods_programmed)", "programmed"),
                (
                    "sum by (cause) (multus_service_proxy_pods_failing) > 0",
                    "failing: {{cause}}",
                ),
            ],
        ),
        panel(
            "Services by verdict",
            "Services that ask to be served on a secondary network.",
            Kind::Areas,
            Unit::Number,
            &[(
                "max by (verdict) (multus_service_controller_endpointslice_services)",
                "{{verdict}}",
            )],
        ),
        panel(
            "Endpoints",
            "Endpoints that the controller wants, in all EndpointSlices.",
            Kind::Lines,
            Unit::Number,
            &[(
                "max(multus_service_controller_endpointslice_endpoints_desired)",
                "endpoints",
            )],
        ),
    ]
}

fn repairs() -> Vec<Panel> {
    vec![
        panel(
            "Repairs",
            "Rules and routes in pods that another process changed. It should be 0.",
            Kind::Lines,
            Unit::PerSecond,
            &[
                (
                    "sum(rate(multus_service_proxy_rules_repaired_total[5m]))",
                    "rules",
                ),
                (
                    "sum(rate(multus_service_proxy_routes_repaired_total[5m]))",
                    "routes",
                ),
            ],
        ),
        panel(
            "Failures of proxies",
            "Failed syncs of pods, and errors of the kernel.",
            Kind::Lines,
            Unit::PerSecond,
            &[
                ("sum(rate(multus_service_proxy_sync_failures_total[5m]))", "syncs"),
                (
                    "sum by (errno) (rate(multus_service_proxy_netlink_errors_total[5m]))",
                    "netlink: {{errno}}",
                ),
            ],
        ),
        panel(
            "Requests to the API server",
            "By answer, of all components.",
            Kind::Areas,
            Unit::PerSecond,
            &[(
                "sum by (job, code) (rate(multus_service_api_requests_total[5m]))",
                "{{job}}: {{code}}",
            )],
        ),
    ]
}

fn resources() -> Vec<Panel> {
    vec![
        panel(
            "Memory of proxies",
            "The 20 nodes with the most.",
            Kind::Lines,
            Unit::Bytes,
            &[(
                r#"topk(20, max by (node) (process_resident_memory_bytes{job="multus-service-proxy-metrics"}))"#,
                "{{node}}",
            )],
        ),
        panel(
            "CPU of proxies",
            "The 20 nodes with the most.",
            Kind::Lines,
            Unit::Cores,
            &[(
                r#"topk(20, sum by (node) (rate(process_cpu_seconds_total{job="multus-service-proxy-metrics"}[5m])))"#,
                "{{node}}",
            )],
        ),
        panel(
            "Memory of controller and operator",
            "The largest pod.",
            Kind::Lines,
            Unit::Bytes,
            &[(
                r#"max by (job) (process_resident_memory_bytes{job=~"multus-service-(controller|operator)-metrics"})"#,
                "{{job}}",
            )],
        ),
        panel(
            "CPU of controller and operator",
            "All pods.",
            Kind::Lines,
            Unit::Cores,
            &[(
                r#"sum by (job) (rate(process_cpu_seconds_total{job=~"multus-service-(controller|operator)-metrics"}[5m]))"#,
                "{{job}}",
            )],
        ),
    ]
}

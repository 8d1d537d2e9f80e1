//! Text format 0.0.4 of Prometheus, out of OpenMetrics as `prometheus_client` writes it: a family has the name of its samples, and there are
//! neither infos nor units nor an end mark.
//!
//! Pure.

/// Converts a page.
pub(super) fn from_open_metrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + page.len() / 8);
    // The line of a family's help, which precedes that of its type.
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = type_of(line) {
            let (suffix, kind) = family(kind);
            let help = help.take().unwrap_or_default();
            text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

/// Returns name and type of a family.
fn type_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

/// Returns the suffix of the family's samples, which is part of its name in the text format, and its type there.
fn family(kind: &str) -> (&'static str, &str) {
    match kind {
        "counter" => ("_total", kind),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        _ => ("", kind),
    }
}

#[cfg(test)]
mod tests {
    use crate::exposition::Format;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::{Registry, Unit};

    #[test]
    fn a_family_has_the_name_of_its_samples_and_a_type_of_the_text_format() {
        let mut registry = Registry::default();
        let requests = Family::<[(&str, &str); 1], Counter>::default();
        requests.get_or_create(&[("path", "a \"quoted\"\n# TYPE")]).inc();
        registry.register("requests", "Requests", requests);
        registry.register("build", "Version", Info::new([("version", "1")]));
        let pods = Gauge::<i64>::default();
        pods.set(-3);
        registry.register("pods", "Pods", pods);
        let wait = Histogram::new([0.5]);
        wait.observe(0.25);
        registry.register_with_unit("wait", "Wait", Unit::Seconds, wait);
        let text = Format::Text.encode(&registry).unwrap();
        assert_eq!(
            text,
            r#"# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{path="a \"quoted\"\n# TYPE"} 1
# HELP build_info Version.
# TYPE build_info gauge
build_info{version="1"} 1
# HELP pods Pods.
# TYPE pods gauge
pods -3
# HELP wait_seconds Wait.
# TYPE wait_seconds histogram
wait_seconds_sum 0.25
wait_seconds_count 1
wait_seconds_bucket{le="0.5"} 1
wait_seconds_bucket{le="+Inf"} 1
"#
        );
    }

    #[test]
    fn all_samples_are_the_same_in_both_formats() {
        let mut registry = Registry::default();
        crate::metrics::reference(&mut registry);
        let samples = |format: Format| {
            let page = format.encode(&registry).unwrap();
            let lines = page.lines().filter(|line| !line.starts_with('#'));
            // The names: a process changes the values of its own metrics.
            let names = lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
            names.collect::<Vec<_>>()
        };
        assert!(samples(Format::Text).len() > 5);
        assert_eq!(samples(Format::Text), samples(Format::OpenMetrics));
    }
}

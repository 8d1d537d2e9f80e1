//! A receiver of traces: the OpenTelemetry Collector on a free port.
//!
//! Writes: its configuration, its log and the spans, as lines of OTLP's JSON, in the folder of the caller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::apiserver::process_guard::Process;
use crate::cluster::{self, layout};
use crate::pki::Identity;
use crate::tools::{self, OTELCOL};
use crate::{command, log_file, ports, wait};

const READY: Duration = Duration::from_secs(30);

/// A running collector; it ends with this value, and with this process.
pub struct Receiver {
    process: Option<Process>,
    program: PathBuf,
    place: Place,
    configuration: PathBuf,
    spans: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    scheme: &'static str,
}

/// Network namespace and address of a receiver.
#[derive(Clone, Copy)]
enum Place {
    Loopback,
    Control,
}

/// A span as it was received.
#[derive(Clone, Debug)]
pub struct Span {
    /// Attributes of the process that sent it, such as `service.name`.
    pub resource: BTreeMap<String, String>,
    /// Trace id, 32 hex digits.
    pub trace_id: String,
    /// Id, 16 hex digits.
    pub span_id: String,
    /// Id of the parent; empty for a root.
    pub parent_span_id: String,
    /// Name.
    pub name: String,
    /// Start, in nanoseconds since the epoch.
    pub start: u64,
    /// End, in nanoseconds since the epoch.
    pub end: u64,
    /// Attributes; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Names of events.
    pub events: Vec<String>,
    /// Message of the status of a failed span.
    pub error: Option<String>,
}

impl Receiver {
    /// Starts a receiver without TLS on a loopback address, with its files in `folder`. Builds the collector when it is not cached.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, Place::Loopback, "http", json!({})).await
    }

    /// [`Self::start`] beside the control plane of the two-node cluster, where pods reach it.
    pub async fn start_beside_the_control_plane(folder: &Path) -> Result<Self> {
        Self::start_with(folder, Place::Control, "http", json!({})).await
    }

    /// Starts a receiver that identifies itself by a certificate.
    pub async fn start_with_tls(folder: &Path, identity: &Identity) -> Result<Self> {
        let [certificate, key] = ["otelcol.crt", "otelcol.key"].map(|file| folder.join(file));
        std::fs::write(&certificate, &identity.certificate)?;
        std::fs::write(&key, &identity.key)?;
        Self::start_with(
            folder,
            Place::Loopback,
            "https",
            json!({"tls": {"cert_file": certificate, "key_file": key}}),
        )
        .await
    }

    async fn start_with(folder: &Path, place: Place, scheme: &'static str, mut grpc: Value) -> Result<Self> {
        let tools = tokio::task::spawn_blocking(|| tools::ensure(&[&OTELCOL], &|line| eprintln!("{line}")));
        let program = tools.await??.main(&OTELCOL)?;
        let port = ports::free()?;
        let address: IpAddr = match place {
            Place::Loopback => Ipv4Addr::LOCALHOST.into(),
            Place::Control => layout::CONTROL.parse()?,
        };
        let address = SocketAddr::new(address, port);
        grpc["endpoint"] = json!(address);
        let [configuration, spans, log] =
            ["yaml", "jsonl", "log"].map(|kind| folder.join(format!("otelcol-{port}.{kind}")));
        let content = json!({
            "receivers": {"otlp": {"protocols": {"grpc": grpc}}},
            "exporters": {"file": {"path": spans, "flush_interval": "100ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
            },
        });
        // JSON is YAML.
        std::fs::write(&configuration, content.to_string())?;
        let mut receiver = Self {
            process: None,
            program,
            place,
            configuration,
            spans,
            log,
            address,
            scheme,
        };
        receiver.resume()?;
        Ok(receiver)
    }

    /// Stops the collector: connections are broken, then rejected. What was received stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the collector, also again on the same port. Spans that are received from now on replace those of before.
    pub fn resume(&mut self) -> Result<()> {
        let arguments = ["--config".to_owned(), self.configuration.display().to_string()];
        let (name, log) = (OTELCOL.name, self.log.clone());
        let process = match self.place {
            Place::Loopback => Process::spawn(name.to_owned(), self.program.clone(), arguments.into(), log)?,
            Place::Control => {
                let program = self.program.display().to_string();
                cluster::beside_the_control_plane(
                    name,
                    [program].into_iter().chain(arguments).collect(),
                    log,
                )?
            }
        };
        self.process = Some(process);
        wait::until(READY, "the collector to listen", || {
            Ok(TcpStream::connect(self.address).is_ok())
        })
        .map_err(command::with_tail(&self.log, 15))
    }

    /// URL of the receiver, for OTLP over gRPC.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The spans that were received.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for line in log_file::complete_lines(&self.spans, 0)?.lines() {
            let export: Value = serde_json::from_str(line)?;
            for resource in array(&export["resourceSpans"]) {
                let process = attributes(&resource["resource"]);
                for span in array(&resource["scopeSpans"])
                    .iter()
                    .flat_map(|scope| array(&scope["spans"]))
                {
                    spans.push(Span::read(&process, span)?);
                }
            }
        }
        Ok(spans)
    }

    /// Waits for a span that `is_wanted`.
    pub async fn span(&self, limit: Duration, what: &str, is_wanted: impl Fn(&Span) -> bool) -> Result<Span> {
        wait::eventually(limit, what, async || {
            Ok(self.spans()?.into_iter().find(&is_wanted))
        })
        .await
        .with_context(|| format!("received: {:#?}", self.spans()))
    }
}

impl Span {
    fn read(resource: &BTreeMap<String, String>, span: &Value) -> Result<Self> {
        let text = |field: &str| span[field].as_str().unwrap_or_default().to_owned();
        let time = |field: &str| {
            text(field)
                .parse()
                .with_context(|| format!("no time in {field} of {span}"))
        };
        let names = array(&span["events"])
            .iter()
            .filter_map(|event| event["name"].as_str());
        let status = &span["status"];
        // STATUS_CODE_ERROR.
        let failed = status["code"] == 2;
        Ok(Self {
            resource: resource.clone(),
            trace_id: text("traceId"),
            span_id: text("spanId"),
            parent_span_id: text("parentSpanId"),
            name: text("name"),
            start: time("startTimeUnixNano")?,
            end: time("endTimeUnixNano")?,
            attributes: attributes(span),
            events: names.map(str::to_owned).collect(),
            error: failed.then(|| status["message"].as_str().unwrap_or_default().to_owned()),
        })
    }

    /// An attribute; empty if there is none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Attributes of a span or a resource: `[{"key": "a", "value": {"stringValue": "b"}}]`.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let entry = |attribute: &Value| {
        let value = attribute["value"].as_object()?.values().next()?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((attribute["key"].as_str()?.to_owned(), text))
    };
    array(&of["attributes"]).iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_in_the_json_of_otlp() {
        let span = Span::read(
            &BTreeMap::new(),
            &json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "parentSpanId": "",
                "name": "sync", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
                "attributes": [{"key": "a", "value": {"stringValue": "b"}}, {"key": "n", "value": {"intValue": "3"}}],
                "events": [{"name": "started"}], "status": {"code": 2, "message": "conflict"},
            }),
        )
        .unwrap();
        assert_eq!((span.start, span.end, span.parent_span_id.as_str()), (1, 2, ""));
        assert_eq!(
            (span.attribute("a"), span.attribute("n"), span.attribute("z")),
            ("b", "3", "")
        );
        assert_eq!(
            (span.events, span.error.as_deref()),
            (vec!["started".to_owned()], Some("conflict"))
        );
    }
}

//! Export of spans by OTLP over gRPC.
//!
//! Writes: to the receiver. The connection is set up with the first batch, and again after a failed export, so that a changed certificate
//! authority takes effect.

use super::Endpoint;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// Longest export of a batch, retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Error of an export. The batch is lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The certificate authority cannot be read: the ConfigMap or its key does not exist.
    #[error("failed to read the certificate authority of the OTLP receiver from {}", file.display())]
    Ca {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The certificate authority is invalid.
    #[error("failed to set up the connection to the OTLP receiver {endpoint}")]
    Build {
        endpoint: Endpoint,
        #[source]
        source: ExporterBuildError,
    },
    /// The receiver is unreachable, or rejects the spans.
    #[error("failed to export spans to {endpoint}")]
    Export {
        endpoint: Endpoint,
        #[source]
        source: OTelSdkError,
    },
    /// No response.
    #[error("no response from the OTLP receiver {0} within 10 s")]
    Timeout(Endpoint),
}

/// Exports batches of spans.
pub(super) trait Export: Send {
    fn export(&mut self, batch: Vec<SpanData>) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A connection to an OTLP receiver.
pub(super) struct Otlp {
    endpoint: Endpoint,
    ca_file: Option<PathBuf>,
    resource: Resource,
    connection: Option<SpanExporter>,
}

impl Otlp {
    pub(super) fn new(endpoint: Endpoint, ca_file: Option<PathBuf>, resource: Resource) -> Self {
        Self {
            endpoint,
            ca_file,
            resource,
            connection: None,
        }
    }

    async fn connect(&self) -> Result<SpanExporter, Error> {
        let mut builder = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(self.endpoint.to_string())
            .with_timeout(EXPORT_TIMEOUT);
        if let Some(file) = &self.ca_file {
            let ca = tokio::fs::read(file).await.map_err(|source| Error::Ca {
                file: file.clone(),
                source,
            })?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            builder = builder.with_tls_config(tls);
        }
        let mut exporter = builder.build().map_err(|source| Error::Build {
            endpoint: self.endpoint.clone(),
            source,
        })?;
        exporter.set_resource(&self.resource);
        Ok(exporter)
    }
}

impl Export for Otlp {
    async fn export(&mut self, batch: Vec<SpanData>) -> Result<(), Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        timeout(EXPORT_TIMEOUT, connection.export(batch))
            .await
            .map_err(|_| Error::Timeout(self.endpoint.clone()))?
            .map_err(|source| Error::Export {
                endpoint: self.endpoint.clone(),
                source,
            })?;
        self.connection = Some(connection);
        Ok(())
    }
}

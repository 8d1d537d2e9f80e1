//! Requests to an HTTPS port for metrics, as monitoring sends them. By curl, which limits protocols and shows what a certificate is worth.
//!
//! Writes: nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command;

/// A client and its credentials.
#[derive(Clone, Debug, Default)]
pub struct Scraper {
    args: Vec<String>,
}

impl Scraper {
    /// With a bearer token.
    pub fn with_token(token: &str) -> Self {
        Self::default().arg("--header", &format!("Authorization: Bearer {token}"))
    }

    /// With a client certificate and its key, PEM files.
    pub fn with_certificate(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        Self::default().arg("--cert", &certificate).arg("--key", &key)
    }

    /// As OpenShift's monitoring: with the identity in the folder of an API server.
    pub fn monitoring(folder: &Path) -> Self {
        let [certificate, key]: [PathBuf; 2] =
            ["monitoring.crt", "monitoring.key"].map(|file| folder.join(file));
        Self::with_certificate(&certificate, &key)
    }

    /// With another argument of curl.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Status and body of `https://address/path`. Any certificate of the server is accepted. Fails without an answer, for example where
    /// the handshake fails.
    pub fn get(&self, address: &str, path: &str) -> Result<(u16, String)> {
        self.curl(&["--insecure"], address, path)
    }

    /// [`Self::get`] that accepts only a certificate of the authority in the file `ca`.
    pub fn get_verified(&self, ca: &Path, address: &str, path: &str) -> Result<(u16, String)> {
        self.curl(&["--cacert", &ca.to_string_lossy()], address, path)
    }

    fn curl(&self, more: &[&str], address: &str, path: &str) -> Result<(u16, String)> {
        let mut args = vec![
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ];
        args.extend(more);
        args.extend(self.args.iter().map(String::as_str));
        let url = format!("https://{address}{path}");
        args.push(&url);
        let output = command::run("curl", &args)?;
        let output = output.trim();
        let (body, status) = output.rsplit_once('\n').unwrap_or(("", output));
        let status = status
            .parse()
            .with_context(|| format!("curl printed {output:?}"))?;
        Ok((status, body.to_owned()))
    }
}

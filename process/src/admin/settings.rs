//! Keeps the TLS settings current: certificate, authorities of clients, profile.
//!
//! Reads: certificate and key files, ConfigMap kube-system/extension-apiserver-authentication, `apiservers.config.openshift.io` "cluster".
//! Until the profile of the cluster is known, only TLS 1.3 is served; until the authorities are known, no client certificate is asked for.

use super::certificate::{self, SelfMade};
use super::single::{Single, SingleWatch};
use super::tls::{self, server_config};
use super::tls_profile::{TlsProfile, TlsSpec};
use crate::error_chain;
use crate::watch::{Defined, Freshness, Guarded, follow_defined, follow_optional};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

/// Pause between two looks at the files, and at the age of a self-made certificate.
const PAUSE: Duration = Duration::from_secs(10);

/// Files of a certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The current settings and where they come from.
pub(crate) struct Settings {
    name: &'static str,
    files: Option<Files>,
    /// Content of the files that is in use.
    content: Option<(Vec<u8>, Vec<u8>)>,
    is_failing: bool,
    self_made: SelfMade,
    certified: Arc<CertifiedKey>,
    client_ca: String,
    profile: TlsProfile,
    sender: watch::Sender<Arc<ServerConfig>>,
}

/// Error of [`Settings::new`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate could be made.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    /// TLS rejects the settings.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl Settings {
    /// Settings with a self-made certificate until the files are there. `name` is the DNS name in that certificate.
    pub(crate) fn new(name: &'static str, files: Option<Files>) -> Result<Self, Error> {
        let self_made = SelfMade::new(name, SystemTime::now())?;
        let certified = Arc::clone(&self_made.certified);
        let profile = TlsProfile::strictest();
        let config = server_config(&profile, &certified, "")?;
        Ok(Self {
            name,
            files,
            content: None,
            is_failing: false,
            self_made,
            certified,
            client_ca: String::new(),
            profile,
            sender: watch::Sender::new(config),
        })
    }

    /// Settings of each connection.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.sender.subscribe()
    }

    /// Follows files and cluster until the returned future is dropped.
    pub(crate) async fn follow(mut self, client: Client) -> Infallible {
        let (authorities, profiles) = (client_authorities(&client), profiles(&client));
        tokio::pin!(authorities, profiles);
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look_at_certificate(),
                Some(client_ca) = authorities.next() => self.set_client_ca(client_ca),
                Some(profile) = profiles.next() => self.set_profile(profile),
            }
        }
    }

    /// Reads the files again, and replaces a self-made certificate that is due.
    pub(crate) fn look_at_certificate(&mut self) {
        let result = self.certificate();
        let is_failing = result.is_err();
        match result {
            Ok(Some(certified)) => {
                self.certified = certified;
                self.publish();
                info!(
                    is_self_made = self.content.is_none(),
                    "Changed the certificate of the metrics"
                );
            }
            Err(error) if !self.is_failing => {
                warn!(error = %error_chain(&error), "Failed to change the certificate of the metrics, serving the earlier one");
            }
            Ok(None) | Err(_) => {}
        }
        self.is_failing = is_failing;
    }

    fn certificate(&mut self) -> Result<Option<Arc<CertifiedKey>>, certificate::Error> {
        if let Some(content) = self.read_files() {
            if self.content.as_ref() == Some(&content) {
                return Ok(None);
            }
            let certified = certificate::parse(&content.0, &content.1)?;
            self.content = Some(content);
            return Ok(Some(certified));
        }
        let now = SystemTime::now();
        if self.content.is_some() || !self.self_made.is_due(now) {
            return Ok(None);
        }
        self.self_made = SelfMade::new(self.name, now)?;
        Ok(Some(Arc::clone(&self.self_made.certified)))
    }

    /// None while the Secret does not exist. Its files are small and in memory: a thread for each read would cost more.
    fn read_files(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let files = self.files.as_ref()?;
        let certificate = std::fs::read(&files.certificate).ok()?;
        Some((certificate, std::fs::read(&files.key).ok()?))
    }

    pub(crate) fn set_client_ca(&mut self, client_ca: String) {
        if self.client_ca != client_ca {
            self.client_ca = client_ca;
            self.publish();
            info!(
                is_known = !self.client_ca.is_empty(),
                "Changed the authorities of client certificates"
            );
        }
    }

    pub(crate) fn set_profile(&mut self, profile: TlsProfile) {
        if self.profile != profile {
            self.profile = profile;
            self.publish();
            let (minimum, notes) = (self.profile.minimum.as_str(), self.profile.notes.join(" "));
            info!(minimum, notes, "Changed the TLS profile of the metrics");
        }
    }

    fn publish(&self) {
        match server_config(&self.profile, &self.certified, &self.client_ca) {
            Ok(config) => {
                self.sender.send_replace(config);
            }
            Err(error) => {
                warn!(error = %error_chain(&error), "Failed to change the TLS settings of the metrics, serving with the earlier ones");
            }
        }
    }
}

/// The authorities of client certificates, PEM; empty while there are none.
fn client_authorities(client: &Client) -> impl Stream<Item = String> + Send + use<> {
    let api: Api<Guarded<ConfigMap>> = Api::namespaced(client.clone(), "kube-system");
    let only = Config::default().fields("metadata.name=extension-apiserver-authentication");
    let events = follow_optional(api, only, "client certificates are not accepted");
    let mut watch = SingleWatch::default();
    events.filter_map(move |event| std::future::ready(watch.observe(event).map(client_ca)))
}

fn client_ca(found: Single<ConfigMap>) -> String {
    let Single::Present(map) = found else {
        return String::new();
    };
    let data = map.data.unwrap_or_default();
    data.get("client-ca-file").cloned().unwrap_or_default()
}

/// The TLS profile of the cluster; that of the defaults on a cluster that is not OpenShift.
fn profiles(client: &Client) -> impl Stream<Item = TlsProfile> + Send + use<> {
    let kind = GroupVersionKind::gvk("config.openshift.io", "v1", "APIServer");
    let resource = ApiResource::from_gvk_with_plural(&kind, "apiservers");
    let api: Api<Guarded<DynamicObject>> = Api::all_with(client.clone(), &resource);
    let only = Config::default().fields("metadata.name=cluster");
    let definition = "apiservers.config.openshift.io";
    let events = follow_defined(client, definition, api, only, Freshness::Cached);
    let mut watch = SingleWatch::default();
    events.filter_map(move |event| {
        let found = match event {
            Defined::No => Some(Single::Absent),
            Defined::Yes(event) => watch.observe(event),
        };
        std::future::ready(found.map(profile))
    })
}

fn profile(found: Single<DynamicObject>) -> TlsProfile {
    let spec = match found {
        Single::Absent => return TlsProfile::default(),
        Single::Unreadable(error) => return TlsProfile::unreadable(&error),
        Single::Present(object) => object.data.get("spec").cloned().unwrap_or_default(),
    };
    match serde_json::from_value::<Option<TlsSpec>>(spec) {
        Ok(spec) => TlsProfile::of(&spec.unwrap_or_default()),
        Err(error) => TlsProfile::unreadable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests;

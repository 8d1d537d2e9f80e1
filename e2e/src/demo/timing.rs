//! Duration of an installation, and the operator's part of it: the rest is the scheduling and start of pods.
//!
//! Writes: nothing. Looks at the API server twenty times a second.

use anyhow::{Context as _, Result};
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, CONTROLLER, NAMESPACE, PROXY};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::{Api, Client};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::cluster;

const PAUSE: Duration = Duration::from_millis(50);

/// Time of each step of an installation since the creation of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    controller_written: Option<Duration>,
    controller_rolled_out: Option<Duration>,
    proxy_written: Option<Duration>,
    proxies_ready: Option<Duration>,
    available: Option<Duration>,
}

/// The cluster at one moment.
#[derive(Debug, Default)]
struct Look {
    config: Option<MultusServiceConfig>,
    controller: Option<Deployment>,
    proxy: Option<DaemonSet>,
}

/// Does what installs; `None` when the configuration was there before.
pub fn measure(install: impl FnOnce() -> Result<()>) -> Result<Option<Times>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = runtime.block_on(cluster::client())?;
    if runtime.block_on(look(&client))?.config.is_some() {
        install()?;
        return Ok(None);
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| runtime.block_on(watch(&client, &is_over)));
        let installed = install();
        is_over.store(true, Ordering::Relaxed);
        let times = watching.join().ok().context("the stopwatch broke")?;
        installed?;
        Ok(Some(times))
    })
}

async fn watch(client: &Client, is_over: &AtomicBool) -> Times {
    let mut times = Times::default();
    let mut began = None;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        // A look that fails is one look less.
        let look = look(client).await.unwrap_or_default();
        if look.config.is_some() {
            times.note(&look, began.get_or_insert_with(Instant::now).elapsed());
        }
        if is_last {
            return times;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(client: &Client) -> Result<Look> {
    let controllers: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let proxies: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(Look {
        // Backwards: what is seen first is never older than what follows from it.
        proxy: proxies.get_opt(PROXY).await?,
        controller: controllers.get_opt(CONTROLLER).await?,
        config: Api::<MultusServiceConfig>::all(client.clone())
            .get_opt(CONFIG_NAME)
            .await?,
    })
}

impl Look {
    fn is(&self, type_: &str, status: &str) -> bool {
        let status_of = self.config.as_ref().and_then(|config| config.status.as_ref());
        let mut conditions = status_of.iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.type_ == type_ && condition.status == status)
    }

    fn controller_is_rolled_out(&self) -> bool {
        let status = self
            .controller
            .as_ref()
            .and_then(|controller| controller.status.as_ref());
        let mut conditions = status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"))
    }

    fn proxies_are_ready(&self) -> bool {
        let status = self.proxy.as_ref().and_then(|proxy| proxy.status.as_ref());
        status.is_some_and(|status| {
            status.desired_number_scheduled > 0
                && status.number_available.unwrap_or_default() == status.desired_number_scheduled
        })
    }
}

impl Times {
    fn note(&mut self, look: &Look, now: Duration) {
        let first = |time: &mut Option<Duration>, is_there: bool| {
            if is_there {
                time.get_or_insert(now);
            }
        };
        first(&mut self.controller_written, look.controller.is_some());
        first(&mut self.controller_rolled_out, look.controller_is_rolled_out());
        first(&mut self.proxy_written, look.proxy.is_some());
        first(&mut self.proxies_ready, look.proxies_are_ready());
        first(
            &mut self.available,
            look.is("Available", "True") && look.is("Progressing", "False"),
        );
    }

    /// The operator's parts: to the controller, from it to the proxies, from them to the last word.
    fn ours(&self) -> Option<[Duration; 3]> {
        Some([
            self.controller_written?,
            self.proxy_written?.saturating_sub(self.controller_rolled_out?),
            self.available?.saturating_sub(self.proxies_ready?),
        ])
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(all), Some([controller, proxies, word])) = (self.available, self.ours()) else {
            return write!(f, "Not every step of the installation was seen: {self:?}");
        };
        let ours = controller + proxies + word;
        let [all, ours, controller, proxies, word] =
            [all, ours, controller, proxies, word].map(|time| time.as_secs_f64());
        write!(
            f,
            "From apply to Available: {all:.1} s. Of these the operator took {ours:.2} s: {controller:.2} s to write the controller, {proxies:.2} s to\n\
             write the proxies once the controller ran, {word:.2} s to say so once they ran. In the rest pods were scheduled and started.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_step_is_noted_when_it_is_first_seen() {
        let mut times = Times::default();
        let proxy = |available| {
            let status = json!({ "status": {
                "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberAvailable": available, "numberMisscheduled": 0,
                "numberReady": 2,
            }});
            Look {
                proxy: serde_json::from_value(status).ok(),
                ..Look::default()
            }
        };
        for (now, available) in [(1, 1), (2, 2), (3, 2)] {
            times.note(&proxy(available), Duration::from_secs(now));
        }
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            (times.proxy_written, times.proxies_ready),
            (seconds(1), seconds(2))
        );
    }

    #[test]
    fn what_pods_take_is_not_the_operators() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let times = Times {
            controller_written: seconds(1),
            controller_rolled_out: seconds(5),
            proxy_written: seconds(7),
            proxies_ready: seconds(12),
            available: seconds(15),
        };
        assert_eq!(times.ours(), Some([1, 2, 3].map(Duration::from_secs)));
        assert!(
            times
                .to_string()
                .starts_with("From apply to Available: 15.0 s. Of these the operator took 6.00 s")
        );
    }
}

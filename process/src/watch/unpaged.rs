//! A watch whose list is one request, parsed as it arrives.
//!
//! Reads: one kind. Pages are sequential, and a streaming list (KEP-3157) is encoded object by object as events; one list from the API
//! server's cache costs it least. kube's watcher would hold the whole text twice.

use super::list_splitter::Splitter;
use futures::stream::BoxStream;
use futures::{AsyncBufRead, AsyncBufReadExt, Stream, StreamExt, stream};
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::core::{ListMeta, Request};
use kube::runtime::watcher::{self, Config, Error, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Longer than any watch of the API server lasts: the connection is dead.
const DEAD: Duration = Duration::from_secs(295);

/// A watch that lasts less has failed, as in client-go (`Reflector.handleAnyWatch`). Without a pause a middlebox that closes watches at
/// once would cause an endless loop of requests.
const SHORTEST: Duration = Duration::from_secs(1);

/// Required freshness of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From the API server's cache, which may be a moment old; after the first list, not older than the last seen version.
    Cached,
    /// The latest version: for objects that this process writes.
    Latest,
}

/// The version of the last complete list of a watch, as a number; 0 before the first. Compare it with the version of an object.
#[derive(Clone, Debug, Default)]
pub struct ListVersion(Arc<AtomicU64>);

impl ListVersion {
    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Parses a resourceVersion as a number (KEP-5504); 0 where a server has other versions.
pub fn number(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

pub(super) struct Source<K> {
    pub(super) api: Api<K>,
    pub(super) config: Config,
    pub(super) freshness: Freshness,
    /// Maximum number of objects of a list.
    pub(super) limit: Option<u32>,
    pub(super) listed: ListVersion,
}

impl<K> Source<K> {
    pub(super) fn new(api: Api<K>, config: Config, freshness: Freshness) -> Self {
        Self {
            api,
            config,
            freshness,
            limit: None,
            listed: ListVersion::default(),
        }
    }
}

enum State<K> {
    Begin,
    Request,
    Listing(Box<List<K>>),
    Listed,
    Watching(Box<Watching<K>>),
}

struct Watching<K> {
    events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    since: Instant,
}

struct List<K> {
    body: Pin<Box<dyn AsyncBufRead + Send>>,
    splitter: Splitter,
    ready: VecDeque<K>,
}

/// Yields the events of kube's watcher, in the same order.
pub(super) fn events<K>(source: Source<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = Machine {
        source,
        version: None,
        is_unavailable: false,
        state: State::Begin,
    };
    stream::unfold(begin, async |mut machine| {
        loop {
            if let Some(event) = machine.step().await {
                return Some((event, machine));
            }
        }
    })
}

struct Machine<K> {
    source: Source<K>,
    /// Last seen version.
    version: Option<String>,
    /// The API server cannot list from that version.
    is_unavailable: bool,
    state: State<K>,
}

impl<K> Machine<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn step(&mut self) -> Option<watcher::Result<Event<K>>> {
        match std::mem::replace(&mut self.state, State::Begin) {
            State::Begin => {
                self.state = State::Request;
                Some(Ok(Event::Init))
            }
            State::Request => match self.request().await {
                Ok(list) => {
                    self.state = State::Listing(Box::new(list));
                    None
                }
                Err(error) => Some(Err(self.list_failed(error))),
            },
            State::Listing(list) => self.read(list).await,
            State::Listed => self.begin_watch().await,
            State::Watching(watching) => self.next_event(watching).await,
        }
    }

    async fn request(&mut self) -> kube::Result<List<K>> {
        let config = &self.source.config;
        let version = match self.source.freshness {
            Freshness::Cached if !self.is_unavailable => {
                Some(self.version.clone().unwrap_or_else(|| "0".to_owned()))
            }
            Freshness::Cached | Freshness::Latest => None,
        };
        let parameters = ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            version_match: version.as_ref().map(|_| VersionMatch::NotOlderThan),
            resource_version: version,
            limit: self.source.limit,
            ..ListParams::default()
        };
        let asked = Request::new(self.source.api.resource_url());
        let request = if K::metadata_api() {
            asked.list_metadata(&parameters)
        } else {
            asked.list(&parameters)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let client: Client = self.source.api.clone().into_client();
        Ok(List {
            body: Box::pin(client.request_stream(request).await?),
            splitter: Splitter::default(),
            ready: VecDeque::new(),
        })
    }

    /// A version that the cache has not reached in time (504), or no longer has (410), is not requested again: the next list is of the
    /// latest version, which is not older. After any other error the version is kept, or an API server with an older cache could respond.
    fn list_failed(&mut self, error: kube::Error) -> Error {
        self.is_unavailable |= matches!(&error, kube::Error::Api(status) if matches!(status.code, 410 | 504));
        Error::InitialListFailed(error)
    }

    async fn read(&mut self, mut list: Box<List<K>>) -> Option<watcher::Result<Event<K>>> {
        if let Some(object) = list.ready.pop_front() {
            self.state = State::Listing(list);
            return Some(Ok(Event::InitApply(object)));
        }
        match list.next_piece().await {
            Ok(true) => {
                self.state = State::Listing(list);
                None
            }
            Ok(false) => Some(self.list_ended(*list)),
            Err(error) => Some(Err(self.list_failed(error))),
        }
    }

    fn list_ended(&mut self, list: List<K>) -> watcher::Result<Event<K>> {
        #[derive(Deserialize)]
        struct Envelope {
            metadata: ListMeta,
        }
        let envelope: serde_json::Result<Envelope> = serde_json::from_slice(&list.splitter.into_envelope());
        let envelope = envelope.map_err(|error| self.list_failed(kube::Error::SerdeError(error)))?;
        let version = envelope.metadata.resource_version;
        let version = version
            .filter(|version| !version.is_empty())
            .ok_or(Error::NoResourceVersion)?;
        self.source
            .listed
            .0
            .store(number(Some(&version)), Ordering::Relaxed);
        self.version = Some(version);
        self.is_unavailable = false;
        self.state = State::Listed;
        Ok(Event::InitDone)
    }

    async fn begin_watch(&mut self) -> Option<watcher::Result<Event<K>>> {
        let config = &self.source.config;
        let parameters = WatchParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            timeout: config.timeout,
            bookmarks: config.bookmarks,
            send_initial_events: false,
        };
        let version = self.version.clone().unwrap_or_default();
        match self.source.api.watch(&parameters, &version).await {
            Ok(events) => {
                self.state = State::Watching(Box::new(Watching {
                    events: events.boxed(),
                    since: Instant::now(),
                }));
                None
            }
            Err(error) => {
                // A version that is too old needs a new list.
                if !matches!(&error, kube::Error::Api(status) if status.code == 410) {
                    self.state = State::Listed;
                }
                Some(Err(Error::WatchStartFailed(error)))
            }
        }
    }

    async fn next_event(&mut self, mut watching: Box<Watching<K>>) -> Option<watcher::Result<Event<K>>> {
        let Ok(Some(event)) = tokio::time::timeout(DEAD, watching.events.next()).await else {
            self.state = State::Listed;
            return watching.ended_at_once().map(Err);
        };
        let event = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Event::Apply(object),
            Ok(WatchEvent::Deleted(object)) => Event::Delete(object),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                self.version = Some(bookmark.metadata.resource_version);
                self.state = State::Watching(watching);
                return None;
            }
            Ok(WatchEvent::Error(status)) => {
                if status.code != 410 {
                    self.state = State::Watching(watching);
                }
                return Some(Err(Error::WatchError(status.boxed())));
            }
            Err(error) => {
                self.state = State::Watching(watching);
                return Some(Err(Error::WatchFailed(error)));
            }
        };
        let (Event::Apply(object) | Event::Delete(object)) = &event else {
            return Some(Ok(event));
        };
        let Some(version) = object.resource_version().filter(|version| !version.is_empty()) else {
            return Some(Err(Error::NoResourceVersion));
        };
        self.version = Some(version);
        self.state = State::Watching(watching);
        Some(Ok(event))
    }
}

impl<K> Watching<K> {
    fn ended_at_once(&self) -> Option<Error> {
        (self.since.elapsed() < SHORTEST).then(|| {
            let error = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the watch was closed within a second",
            );
            Error::WatchFailed(kube::Error::ReadEvents(error))
        })
    }
}

impl<K: DeserializeOwned> List<K> {
    /// Parses the next piece; `false` at the end.
    async fn next_piece(&mut self) -> kube::Result<bool> {
        let text = self.body.fill_buf().await.map_err(kube::Error::ReadEvents)?;
        let ready = &mut self.ready;
        self.splitter.feed(text, |item| {
            ready.push_back(serde_json::from_slice(item).map_err(kube::Error::SerdeError)?);
            Ok::<(), kube::Error>(())
        })?;
        let length = text.len();
        self.body.consume_unpin(length);
        Ok(length > 0)
    }
}

#[cfg(test)]
mod tests;

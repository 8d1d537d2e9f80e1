//! A watch whose list is one request, read as it comes.
//!
//! Pages wait for one another, a streamed list (KEP-3157) is encoded object by object as events; one list
//! out of the API server's cache costs it least. kube's watcher would hold the whole text twice.

use super::items::Splitter;
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
use std::pin::Pin;
use std::time::Duration;

/// Longer than the API server lets a watch last: the connection is dead.
const DEAD: Duration = Duration::from_secs(295);

/// How new a list must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the API server has in its cache, which may be a moment old; after the first list no older than what was seen.
    Cached,
    /// As of now: for what this process writes itself.
    Latest,
}

pub(super) struct Source<K> {
    pub(super) api: Api<K>,
    pub(super) config: Config,
    pub(super) freshness: Freshness,
}

enum State<K> {
    Begin,
    Ask,
    Listing(Box<List<K>>),
    Listed,
    Watching(BoxStream<'static, kube::Result<WatchEvent<K>>>),
}

struct List<K> {
    body: Pin<Box<dyn AsyncBufRead + Send>>,
    splitter: Splitter,
    ready: VecDeque<K>,
}

/// What kube's watcher yields, in the same order.
pub(super) fn events<K>(source: Source<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = Machine {
        source,
        version: None,
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
    /// What has been seen.
    version: Option<String>,
    state: State<K>,
}

impl<K> Machine<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn step(&mut self) -> Option<watcher::Result<Event<K>>> {
        match std::mem::replace(&mut self.state, State::Begin) {
            State::Begin => {
                self.state = State::Ask;
                Some(Ok(Event::Init))
            }
            State::Ask => match self.ask().await {
                Ok(list) => {
                    self.state = State::Listing(Box::new(list));
                    None
                }
                Err(error) => Some(Err(self.list_failed(error))),
            },
            State::Listing(list) => self.read(list).await,
            State::Listed => self.begin_watch().await,
            State::Watching(events) => self.next_event(events).await,
        }
    }

    async fn ask(&mut self) -> kube::Result<List<K>> {
        let config = &self.source.config;
        let version = match self.source.freshness {
            Freshness::Cached => Some(self.version.clone().unwrap_or_else(|| "0".to_owned())),
            Freshness::Latest => None,
        };
        let parameters = ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            version_match: version.as_ref().map(|_| VersionMatch::NotOlderThan),
            resource_version: version,
            ..ListParams::default()
        };
        let request = Request::new(self.source.api.resource_url()).list(&parameters);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let client: Client = self.source.api.clone().into_client();
        Ok(List {
            body: Box::pin(client.request_stream(request).await?),
            splitter: Splitter::default(),
            ready: VecDeque::new(),
        })
    }

    /// A version that the cache has not reached in time, or no longer knows, is not asked for again.
    fn list_failed(&mut self, error: kube::Error) -> Error {
        self.version = None;
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
        self.version = Some(
            version
                .filter(|version| !version.is_empty())
                .ok_or(Error::NoResourceVersion)?,
        );
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
                self.state = State::Watching(events.boxed());
                None
            }
            Err(error) => {
                // Too old a version is listed again.
                if !matches!(&error, kube::Error::Api(status) if status.code == 410) {
                    self.state = State::Listed;
                }
                Some(Err(Error::WatchStartFailed(error)))
            }
        }
    }

    async fn next_event(
        &mut self,
        mut events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    ) -> Option<watcher::Result<Event<K>>> {
        let Ok(Some(event)) = tokio::time::timeout(DEAD, events.next()).await else {
            self.state = State::Listed;
            return None;
        };
        let event = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Event::Apply(object),
            Ok(WatchEvent::Deleted(object)) => Event::Delete(object),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                self.version = Some(bookmark.metadata.resource_version);
                self.state = State::Watching(events);
                return None;
            }
            Ok(WatchEvent::Error(status)) => {
                if status.code != 410 {
                    self.state = State::Watching(events);
                }
                return Some(Err(Error::WatchError(status.boxed())));
            }
            Err(error) => {
                self.state = State::Watching(events);
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
        self.state = State::Watching(events);
        Some(Ok(event))
    }
}

impl<K: DeserializeOwned> List<K> {
    /// Whether there was one.
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

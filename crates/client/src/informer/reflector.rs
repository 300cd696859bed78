//! The task that keeps an informer's copy current: a streaming list, then the watch; list and watch where the server has
//! no streaming lists.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Reason;
use base::{Backoff, Random, Shutdown};

use super::Informer;
use crate::kind::Object;
use crate::watch::{Event, WatchStream};
use crate::{Client, Error, ListParams, WatchParams};

/// The delay before the first reconnect. Upstream's informers wait 800 ms; a server in the same process is back sooner.
const RECONNECT_INITIAL: Duration = Duration::from_millis(50);
/// The longest delay before a reconnect. Source: client-go `tools/cache/reflector.go`.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Each delay is shortened by up to this share, so that clients do not come back together.
const RECONNECT_JITTER: f64 = 0.5;

pub(super) struct Reflector<T> {
    client: Client,
    informer: Informer<T>,
    backoff: Backoff,
    shutdown: Shutdown,
    /// Where to resume; `None`: begin with everything.
    revision: Option<String>,
    /// The server refused streaming lists.
    plain_lists: bool,
}

impl<T: Object> Reflector<T> {
    pub(super) fn new(client: Client, informer: Informer<T>, random: Random, shutdown: Shutdown) -> Self {
        let backoff = Backoff::new(RECONNECT_INITIAL, RECONNECT_MAX).with_jitter(RECONNECT_JITTER, random);
        Reflector {
            client,
            informer,
            backoff,
            shutdown,
            revision: None,
            plain_lists: false,
        }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        while !shutdown.is_triggered() {
            let Some(outcome) = shutdown.until(self.follow()).await else {
                break;
            };
            let resource = self.informer.resource();
            match outcome {
                Ok(()) => tracing::debug!(%resource, "the server ended the watch"),
                Err(error) if error.is_expired() => {
                    tracing::debug!(%resource, "the revision is no longer held, listing anew");
                    self.revision = None;
                }
                // One word for an outage: a server that is down fails every attempt of every informer.
                Err(error) if self.backoff.failures() == 0 => {
                    tracing::warn!(%resource, %error, "watch failed, will be tried again");
                }
                Err(error) => tracing::debug!(%resource, %error, "watch failed again"),
            }
            let delay = self.backoff.next_delay();
            if shutdown.until(tokio::time::sleep(delay)).await.is_none() {
                break;
            }
        }
        self.informer.end();
    }

    /// One connection's life.
    async fn follow(&mut self) -> Result<(), Error> {
        let mut stream = match &self.revision {
            Some(revision) => {
                let params = WatchParams {
                    resource_version: revision.clone(),
                    ..self.params()
                };
                self.open(&params).await?
            }
            None => self.begin().await?,
        };
        while let Some(event) = stream.next().await {
            self.apply(event)?;
            while let Some(event) = stream.next_ready() {
                self.apply(event)?;
            }
        }
        Ok(())
    }

    /// Reads everything and returns the watch that goes on from there.
    async fn begin(&mut self) -> Result<WatchStream<T>, Error> {
        if !self.plain_lists {
            match self.streaming_list().await {
                Err(error) if refuses_streaming(&error) => {
                    tracing::debug!(resource = %self.informer.resource(), %error, "no streaming lists here");
                    self.plain_lists = true;
                }
                outcome => return outcome,
            }
        }
        let selection = &self.informer.inner.selection;
        let params = ListParams {
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            ..Default::default()
        };
        let list = self
            .client
            .list_lenient::<T>(self.informer.resource(), &selection.namespace, &params)
            .await?;
        self.informer.replace(list.items, &list.resource_version);
        self.revision = Some(list.resource_version.clone());
        self.backoff.reset();
        self.open(&WatchParams {
            resource_version: list.resource_version,
            ..self.params()
        })
        .await
    }

    async fn streaming_list(&mut self) -> Result<WatchStream<T>, Error> {
        let mut stream = self
            .open(&WatchParams {
                send_initial_events: true,
                ..self.params()
            })
            .await?;
        let mut objects = BTreeMap::new();
        loop {
            let Some(event) = stream.next().await else {
                return Err(crate::TransportError::Lost("the watch ended within its initial events".into()).into());
            };
            match event {
                Ok(Event::Added(object) | Event::Modified(object)) => {
                    let meta = object.meta();
                    objects.insert((meta.namespace().to_string(), meta.name().to_string()), object);
                }
                Ok(Event::Deleted(object)) => {
                    let meta = object.meta();
                    objects.remove(&(meta.namespace().to_string(), meta.name().to_string()));
                }
                Ok(Event::Bookmark {
                    resource_version,
                    initial_events_end: true,
                }) => {
                    self.informer
                        .replace(objects.into_values().collect(), &resource_version);
                    self.revision = Some(resource_version);
                    self.backoff.reset();
                    return Ok(stream);
                }
                Ok(Event::Bookmark { .. }) => {}
                Err(error) => self.tolerate(error)?,
            }
        }
    }

    fn apply(&mut self, event: Result<Event<T>, Error>) -> Result<(), Error> {
        let revision = match event {
            Ok(Event::Added(object) | Event::Modified(object)) => {
                let revision = object.meta().resource_version().to_string();
                self.informer.change(object, false);
                revision
            }
            Ok(Event::Deleted(object)) => {
                let revision = object.meta().resource_version().to_string();
                self.informer.change(object, true);
                revision
            }
            Ok(Event::Bookmark { resource_version, .. }) => {
                self.informer.advance(resource_version.parse().unwrap_or(0));
                resource_version
            }
            Err(error) => return self.tolerate(error),
        };
        self.revision = Some(revision);
        self.backoff.reset();
        Ok(())
    }

    /// One object that cannot be read is left out; it must not take its neighbours along.
    fn tolerate(&self, error: Error) -> Result<(), Error> {
        match error {
            Error::Decode { .. } => {
                tracing::error!(resource = %self.informer.resource(), %error, "an object cannot be read and is left out");
                Ok(())
            }
            error => Err(error),
        }
    }

    async fn open(&self, params: &WatchParams) -> Result<WatchStream<T>, Error> {
        self.client
            .watch_in(
                self.informer.resource(),
                &self.informer.inner.selection.namespace,
                params,
            )
            .await
    }

    fn params(&self) -> WatchParams {
        let selection = &self.informer.inner.selection;
        WatchParams {
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            allow_bookmarks: true,
            ..Default::default()
        }
    }
}

/// Whether the server does not know streaming lists. Upstream answers 422 when they are disabled; servers before them 400.
fn refuses_streaming(error: &Error) -> bool {
    let reasons = [
        Reason::Invalid,
        Reason::BadRequest,
        Reason::MethodNotAllowed,
        Reason::NotAcceptable,
    ];
    error
        .status()
        .is_some_and(|status| reasons.into_iter().any(|reason| status.is(reason)))
}

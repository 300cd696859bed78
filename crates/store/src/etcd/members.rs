//! The members of an etcd: connections, credentials, whom to ask, and what to do about one that does not answer.
//!
//! Requests go round the members that are well. One that fails, or lets a request wait, is left out until a probe (a small
//! quorum read) succeeds on it, so that a paused or cut-off member costs a few requests some seconds and then nobody
//! anything. Invariants: no call is without a deadline; when no member is well, all are tried.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::Backoff;
use bytes::Bytes;
use parking_lot::Mutex;
use rpc::etcd::etcdserverpb::auth_client::AuthClient;
use rpc::etcd::etcdserverpb::kv_client::KvClient;
use rpc::etcd::etcdserverpb::{AuthenticateRequest, RangeRequest, RangeResponse};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

use super::OpenEtcdError;
use super::errors::{Cause, Failure};

/// How long a member may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A request that waits longer has its member probed, and later ones go elsewhere meanwhile.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// How long one member may take to answer a question that others can answer, too.
const QUESTION_ATTEMPT: Duration = Duration::from_secs(2);
/// How long a question is asked around: longer than an election of etcd's defaults (1 s) and a failed attempt or two.
const QUESTION_MAX: Duration = Duration::from_secs(10);
/// Between rounds in which no member could answer.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How long a probe may take, and the waits between probes of a member that is ill.
const PROBE_MAX: Duration = Duration::from_secs(1);
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// HTTP/2 pings on every connection, so that a silent one is noticed. etcd cuts clients that ping more often than each 5 s
/// (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(5);
/// HTTP/2 windows: what may be under way before the reader has taken it.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// The largest answer that is taken: a page of [`super::range`] with values of etcd's largest size.
pub(super) const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Files of a TLS client. They are read again for each connection, so that renewed ones are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may have signed the members' certificates (`--etcd-cafile`).
    pub ca: Option<PathBuf>,
    /// The client's certificate (`--etcd-certfile`).
    pub certificate: Option<PathBuf>,
    /// Its key (`--etcd-keyfile`).
    pub key: Option<PathBuf>,
}

/// A user of etcd's own authentication.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub name: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One member.
pub(super) struct Member {
    name: String,
    endpoint: Endpoint,
    tls: Option<TlsFiles>,
    /// The connection that calls share; absent: the next one makes it.
    channel: Mutex<Option<Channel>>,
    /// Only one connection is made at a time.
    connecting: tokio::sync::Mutex<()>,
    well: AtomicBool,
}

/// All members.
pub(super) struct Members {
    list: Vec<Arc<Member>>,
    turn: AtomicUsize,
    credentials: Option<Credentials>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    /// Only one token is asked for at a time.
    authenticating: tokio::sync::Mutex<()>,
    /// What a probe reads.
    probed: Bytes,
    this: Weak<Members>,
}

// === impl Member ===

impl Member {
    fn new(address: &str, tls: &TlsFiles) -> Result<Self, OpenEtcdError> {
        let bad = |why: String| OpenEtcdError::Endpoint(address.to_owned(), why);
        let uri = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let secure = uri.starts_with("https://");
        if !secure && !uri.starts_with("http://") {
            return Err(bad("neither http nor https".into()));
        }
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| bad(error.to_string()))?
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_MAX)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Self {
            name: address.to_owned(),
            endpoint,
            tls: secure.then(|| tls.clone()),
            channel: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            well: AtomicBool::new(true),
        })
    }

    /// Its address as it was given.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A connection of its own, for a stream that is not to share its window with others.
    pub(super) async fn connect(&self) -> Result<Channel, Failure> {
        let not_sent = |why: String| Failure::not_sent(&self.name, why);
        let mut endpoint = self.endpoint.clone();
        if let Some(tls) = &self.tls {
            let config = tls.read().await.map_err(not_sent)?;
            endpoint = endpoint.tls_config(config).map_err(|error| not_sent(reason(&error)))?;
        }
        match tokio::time::timeout(CONNECT_MAX, endpoint.connect()).await {
            Ok(connected) => connected.map_err(|error| not_sent(reason(&error))),
            Err(_) => Err(not_sent("no connection in time".into())),
        }
    }

    /// The connection that calls share.
    async fn channel(&self) -> Result<Channel, Failure> {
        if let Some(channel) = self.channel.lock().clone() {
            return Ok(channel);
        }
        let _one = self.connecting.lock().await;
        if let Some(channel) = self.channel.lock().clone() {
            return Ok(channel);
        }
        let channel = self.connect().await?;
        *self.channel.lock() = Some(channel.clone());
        Ok(channel)
    }
}

/// An error with what caused it: tonic's own text is only "transport error".
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

impl TlsFiles {
    async fn read(&self) -> Result<ClientTlsConfig, String> {
        let read = async |path: &PathBuf| {
            let content = tokio::fs::read(path).await;
            content.map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut config = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            config = config.ca_certificate(Certificate::from_pem(read(ca).await?));
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            config = config.identity(Identity::from_pem(read(certificate).await?, read(key).await?));
        }
        Ok(config)
    }
}

// === impl Members ===

impl Members {
    pub(super) fn new(
        addresses: &[String],
        tls: &TlsFiles,
        credentials: Option<Credentials>,
        probed: Bytes,
    ) -> Result<Arc<Self>, OpenEtcdError> {
        if addresses.is_empty() {
            return Err(OpenEtcdError::NoEndpoint);
        }
        let list: Result<Vec<_>, _> = addresses
            .iter()
            .map(|address| Member::new(address, tls).map(Arc::new))
            .collect();
        let list = list?;
        Ok(Arc::new_cyclic(|this| Self {
            list,
            turn: AtomicUsize::new(0),
            credentials,
            token: Mutex::new(None),
            authenticating: tokio::sync::Mutex::new(()),
            probed,
            this: this.clone(),
        }))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// The next member in turn that is well and was not tried; else one that was not tried; none when all were.
    pub(super) fn pick(&self, tried: &[Arc<Member>]) -> Option<Arc<Member>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let untried = |member: &&Arc<Member>| !tried.iter().any(|other| Arc::ptr_eq(other, member));
        let in_turn = || {
            self.list
                .iter()
                .cycle()
                .skip(turn % self.list.len())
                .take(self.list.len())
                .filter(untried)
        };
        let well = in_turn().find(|member| member.well.load(Ordering::Relaxed));
        well.or_else(|| in_turn().next()).cloned()
    }

    /// A request with the user's token, which a member without a leader refuses at once.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.token.lock().clone() {
            metadata.insert("token", token);
        }
        request
    }

    /// One call of one member, within `limit`.
    pub(super) async fn attempt<T, F>(
        &self,
        member: &Arc<Member>,
        limit: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let outcome = self.attempt_once(member, limit, call).await;
        if let Err(failure) = &outcome
            && failure.blames_member()
        {
            *member.channel.lock() = None;
            self.suspect(member);
        }
        outcome
    }

    async fn attempt_once<T, F>(
        &self,
        member: &Arc<Member>,
        limit: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if self.credentials.is_some() && self.token.lock().is_none() {
            self.authenticate(member, None).await?;
        }
        let channel = member.channel().await?;
        let answer = call(channel);
        tokio::pin!(answer);
        let until = Instant::now() + limit;
        let early = tokio::time::timeout(SUSPECT_AFTER.min(limit), &mut answer).await;
        let answer = match early {
            Ok(answer) => answer,
            Err(_) => {
                self.suspect(member);
                match tokio::time::timeout_at(until, answer).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(Failure::timed_out(&member.name)),
                }
            }
        };
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(Failure::of(&member.name, &status)),
        }
    }

    /// Asks around until somebody answers. For calls that may happen more than once.
    pub(super) async fn ask<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + QUESTION_MAX;
        let mut tried = Vec::new();
        let mut renewed = false;
        loop {
            let Some(member) = self.pick(&tried) else {
                tried.clear();
                tokio::time::sleep(ROUND_PAUSE).await;
                continue;
            };
            let limit = QUESTION_ATTEMPT.min(until.saturating_duration_since(Instant::now()));
            let failure = match self.attempt(&member, limit, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.cause == Cause::TokenExpired && !renewed && self.renew_token(&member).await? {
                renewed = true;
                continue;
            }
            if !failure.elsewhere() || Instant::now() >= until {
                return Err(failure);
            }
            tried.push(member);
        }
    }

    /// A range, by quorum unless it says otherwise, from whichever member answers.
    pub(super) async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        self.ask(|channel| {
            let request = self.request(range.clone());
            async move { kv(channel).range(request).await }
        })
        .await
    }

    /// Gets a new token when the one that failed is still the one in use. False: there is no user to get one for.
    pub(super) async fn renew_token(&self, member: &Arc<Member>) -> Result<bool, Failure> {
        let failed = self.token.lock().clone();
        match self.credentials {
            Some(_) => self.authenticate(member, failed).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn authenticate(&self, member: &Arc<Member>, failed: Option<MetadataValue<Ascii>>) -> Result<(), Failure> {
        let Some(credentials) = &self.credentials else {
            return Ok(());
        };
        let _one = self.authenticating.lock().await;
        if *self.token.lock() != failed {
            return Ok(());
        }
        let channel = member.channel().await?;
        let message = AuthenticateRequest {
            name: credentials.name.clone(),
            password: credentials.password.clone(),
        };
        let mut client = AuthClient::new(channel);
        let answer = tokio::time::timeout(QUESTION_ATTEMPT, client.authenticate(message)).await;
        let token = match answer {
            Ok(Ok(answer)) => answer.into_inner().token,
            // The cluster asks nobody for a name.
            Ok(Err(status)) if status.message() == "etcdserver: authentication is not enabled" => return Ok(()),
            Ok(Err(status)) => return Err(Failure::of(&member.name, &status)),
            // It changed nothing that matters: another member may be asked.
            Err(_) => return Err(Failure::not_sent(&member.name, "no token in time")),
        };
        let token = token
            .parse()
            .map_err(|_| Failure::not_sent(&member.name, "the token is not text"))?;
        *self.token.lock() = Some(token);
        Ok(())
    }

    /// Leaves a member out until it answers a probe.
    pub(super) fn suspect(&self, member: &Arc<Member>) {
        if !member.well.swap(false, Ordering::Relaxed) {
            return;
        }
        tracing::debug!(member = %member.name, "an etcd member does not answer; it is left out until it does");
        tokio::spawn(probe(self.this.clone(), member.clone()));
    }
}

/// A client for keys and values.
pub(super) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Asks a member that is ill until it answers or all members are gone.
async fn probe(members: Weak<Members>, member: Arc<Member>) {
    let mut backoff = Backoff::new(PROBE_PAUSE.0, PROBE_PAUSE.1);
    let started = Instant::now();
    loop {
        let Some(members) = members.upgrade() else { return };
        let request = RangeRequest {
            key: members.probed.clone(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let asked = async {
            let channel = member.channel().await?;
            let answer = kv(channel).range(members.request(request)).await;
            answer.map_err(|status| Failure::of(&member.name, &status))
        };
        let outcome = match tokio::time::timeout(PROBE_MAX, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) if failure.blames_member() => Err(failure),
            // A refusal is an answer.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(Failure::timed_out(&member.name)),
        };
        drop(members);
        match outcome {
            Ok(()) => {
                member.well.store(true, Ordering::Relaxed);
                if backoff.failures() > 0 {
                    tracing::info!(member = %member.name, after = ?started.elapsed(), "an etcd member answers again");
                }
                return;
            }
            Err(failure) => {
                if backoff.failures() == 0 {
                    tracing::warn!(%failure, "an etcd member does not answer");
                }
                *member.channel.lock() = None;
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

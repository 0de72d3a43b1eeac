//! Calls to one etcd server, each with a deadline. Knows keys as bytes and nothing of what they mean.
//!
//! The client connects at its first call, not before, and would connect again by itself; yet a link is thrown
//! away at the first failed read, because a connection to a server that hangs stays open for ever.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient, ResponseHeader,
    TlsOptions, Txn, TxnOp, TxnOpResponse, WatchClient, WatchOptions, WatchStream,
};

use super::config::EtcdAccess;
use super::words::in_words;
use crate::address::HostPort;
use crate::tls::{TlsFileError, TlsFiles};

/// The largest answer taken; the client's own limit of 4 MiB is too near to what a catalogue may hold.
const LARGEST_ANSWER: usize = 16 << 20;

/// An etcd call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The configuration names no server.
    #[error("no etcd server is configured; give one with --etcd-addr host:port")]
    NoEndpoint,
    /// The client refused the address.
    #[error("{endpoint} can't be used as an etcd server; check --etcd-addr")]
    Endpoint {
        /// The address.
        endpoint: HostPort,
        /// What the client said.
        #[source]
        source: Box<etcd_client::Error>,
    },
    /// A file that makes the connection private can't be read.
    #[error("etcd is not asked: {0}")]
    Tls(#[source] TlsFileError),
    /// The server did not answer in time.
    #[error(
        "etcd at {endpoint} did not answer within {limit:?} ({step}); check that it runs and is not overloaded"
    )]
    Late {
        /// The server.
        endpoint: HostPort,
        /// What was asked of it.
        step: Step,
        /// The limit that ran out.
        limit: Duration,
    },
    /// The server could not be reached, or refused.
    #[error("etcd at {endpoint} failed ({step}): {}; check that it runs and that --etcd-addr is right", in_words(.source))]
    Failed {
        /// The server.
        endpoint: HostPort,
        /// What was asked of it.
        step: Step,
        /// What the client said.
        #[source]
        source: Box<etcd_client::Error>,
    },
    /// The answer was not of the shape that etcd's interface promises.
    #[error(
        "etcd at {endpoint} gave an answer of an unknown shape ({step}); is it an etcd server, version 3?"
    )]
    Odd {
        /// The server.
        endpoint: HostPort,
        /// What was asked of it.
        step: Step,
    },
    /// The server ended a watch; the state is to be read again and watched from there.
    #[error("etcd at {endpoint} ended the watch: {reason}")]
    WatchEnded {
        /// The server.
        endpoint: HostPort,
        /// Why, as far as it said.
        reason: String,
    },
    /// The agent's keys could not be deleted in the time given.
    #[error("this agent's keys could not be deleted from etcd within {limit:?}; they will name a gone agent")]
    Retract {
        /// The time given.
        limit: Duration,
        /// The last failure, if a call came to an end.
        #[source]
        source: Option<Box<ClusterError>>,
    },
}

/// What was asked of a server, for error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Signing in.
    SignIn,
    /// Snapshot the settings and this agent's presence.
    Read,
    /// Starting the watch.
    Watch,
    /// Writing this agent's presence.
    Put,
    /// Deleting this agent's presence.
    Delete,
    /// Snapshot the image catalogue.
    Catalogue,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignIn => "signing in",
            Self::Read => "reading settings",
            Self::Watch => "starting the watch",
            Self::Put => "writing this agent's presence",
            Self::Delete => "deleting this agent's presence",
            Self::Catalogue => "reading the image catalogue",
        })
    }
}

/// The values of some keys at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The id of the etcd cluster: a different one means other data, even at the same address.
    pub cluster: u64,
    /// The store's revision at that moment.
    pub revision: i64,
    /// In the order asked for; `None` where the key is absent.
    pub values: Vec<Option<Vec<u8>>>,
}

/// A client of one server.
pub struct Link {
    /// The server, for error texts.
    endpoint: HostPort,
    /// The time that each call gets.
    limit: Duration,
    /// Gets and puts.
    kv: KvClient,
    /// Watches.
    watch: WatchClient,
}

impl Link {
    /// Prepares a client. Nothing is sent yet, unless there is a user to sign in.
    pub async fn open(
        endpoint: &HostPort,
        limit: Duration,
        access: &EtcdAccess,
    ) -> Result<Self, ClusterError> {
        // Without a leader a member serves nobody: say so rather than hang, so that the next one is tried.
        // No HTTP/2 pings: etcd hangs up on a client that pings more often than every 5 s, and the watcher's
        // regular reads prove more than a ping does.
        let mut options = ConnectOptions::new().with_connect_timeout(limit).with_require_leader(true);
        let mut scheme = "http";
        if let Some(files) = &access.tls {
            scheme = "https";
            options = options.with_tls(tls(files).await?);
        }
        if let Some((name, password)) = &access.user {
            options = options.with_user(name, password.expose());
        }
        let connecting = Client::connect([format!("{scheme}://{endpoint}")], Some(options));
        let client = match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(source)) if access.user.is_none() => {
                return Err(ClusterError::Endpoint { endpoint: endpoint.clone(), source: Box::new(source) });
            }
            Ok(Err(source)) => {
                let (endpoint, source) = (endpoint.clone(), Box::new(source));
                return Err(ClusterError::Failed { endpoint, step: Step::SignIn, source });
            }
            Err(_) => {
                return Err(ClusterError::Late { endpoint: endpoint.clone(), step: Step::SignIn, limit });
            }
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            limit,
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            watch: client.watch_client(),
        })
    }

    /// The values of `keys`, all of one moment.
    pub async fn read(&mut self, keys: &[String]) -> Result<Snapshot, ClusterError> {
        let gets: Vec<_> = keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
        let call = self.kv.txn(Txn::new().and_then(gets));
        let answer = bounded(&self.endpoint, self.limit, Step::Read, call).await?;
        let (cluster, revision) =
            answer.header().map(place).ok_or_else(|| odd(&self.endpoint, Step::Read))?;
        let values: Vec<_> = answer
            .op_responses()
            .into_iter()
            .filter_map(|part| match part {
                TxnOpResponse::Get(mut get) => Some(get.take_kvs().pop().map(|kv| kv.into_key_value().1)),
                _ => None,
            })
            .collect();
        if values.len() != keys.len() {
            return Err(odd(&self.endpoint, Step::Read));
        }
        Ok(Snapshot { cluster, revision, values })
    }

    /// Every key that begins with `prefix`, with its value.
    pub async fn read_prefix(&mut self, prefix: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ClusterError> {
        let call = self.kv.get(prefix, Some(GetOptions::new().with_prefix()));
        let mut answer = bounded(&self.endpoint, self.limit, Step::Catalogue, call).await?;
        Ok(answer.take_kvs().into_iter().map(etcd_client::KeyValue::into_key_value).collect())
    }

    /// Puts all of `entries`, or none.
    pub async fn put_all(&mut self, entries: Vec<(String, String)>) -> Result<(), ClusterError> {
        let puts: Vec<_> = entries.into_iter().map(|(key, value)| TxnOp::put(key, value, None)).collect();
        let call = self.kv.txn(Txn::new().and_then(puts));
        bounded(&self.endpoint, self.limit, Step::Put, call).await.map(drop)
    }

    /// Deletes `key` and every key that begins with `prefix`, at once.
    pub async fn delete(&mut self, key: &str, prefix: &str) -> Result<(), ClusterError> {
        let beneath = DeleteOptions::new().with_prefix();
        let deletes = [TxnOp::delete(key, None), TxnOp::delete(prefix, Some(beneath))];
        let call = self.kv.txn(Txn::new().and_then(deletes));
        bounded(&self.endpoint, self.limit, Step::Delete, call).await.map(drop)
    }

    /// Watches `keys` for everything that happened after `reading`.
    pub async fn watch(&mut self, keys: &[String], reading: &Snapshot) -> Result<Watching, ClusterError> {
        let options = || Some(WatchOptions::new().with_start_revision(reading.revision + 1));
        let Some((first, others)) = keys.split_first() else {
            return Err(odd(&self.endpoint, Step::Watch));
        };
        let client = &mut self.watch;
        let call = async {
            let mut stream = client.watch(first.as_str(), options()).await?;
            for key in others {
                stream.watch(key.as_str(), options()).await?;
            }
            Ok(stream)
        };
        let stream = bounded(&self.endpoint, self.limit, Step::Watch, call).await?;
        Ok(Watching {
            endpoint: self.endpoint.clone(),
            stream,
            cluster: reading.cluster,
            from: reading.revision,
        })
    }
}

/// A running watch. Its events are taken as a hint to read again: the state, not its history, is what counts.
pub struct Watching {
    /// The server, for error texts.
    endpoint: HostPort,
    /// The events of all keys.
    stream: WatchStream,
    /// The etcd cluster in which it was started.
    cluster: u64,
    /// The revision after which it tells of events.
    from: i64,
}

impl Watching {
    /// Whether this watch can tell of what happens after `reading`: not if the server began anew with other
    /// data, or went back in time, as after a restore.
    #[must_use]
    pub fn covers(&self, reading: &Snapshot) -> bool {
        self.cluster == reading.cluster && self.from <= reading.revision
    }

    /// Waits until something happened after `revision`. May be dropped and called again.
    pub async fn changed(&mut self, revision: i64) -> Result<(), ClusterError> {
        loop {
            let answer = match self.stream.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Err(self.ended("the server closed it".to_owned())),
                Err(error) => return Err(self.ended(in_words(&error))),
            };
            if answer.canceled() {
                let compacted = answer.compact_revision();
                let reason = match answer.cancel_reason() {
                    "" if compacted > 0 => format!("history before revision {compacted} was compacted away"),
                    "" => "the server cancelled it".to_owned(),
                    reason => reason.to_owned(),
                };
                return Err(self.ended(reason));
            }
            let newer = answer.header().is_none_or(|header| header.revision() > revision);
            if newer && !answer.events().is_empty() {
                return Ok(());
            }
        }
    }

    fn ended(&self, reason: String) -> ClusterError {
        ClusterError::WatchEnded { endpoint: self.endpoint.clone(), reason }
    }
}

async fn tls(files: &TlsFiles) -> Result<TlsOptions, ClusterError> {
    let pems = files.read().await.map_err(ClusterError::Tls)?;
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(pems.ca));
    Ok(match pems.client {
        Some((cert, key)) => options.identity(Identity::from_pem(cert, key.expose())),
        None => options,
    })
}

fn place(header: &ResponseHeader) -> (u64, i64) {
    (header.cluster_id(), header.revision())
}

fn odd(endpoint: &HostPort, step: Step) -> ClusterError {
    ClusterError::Odd { endpoint: endpoint.clone(), step }
}

async fn bounded<T>(
    endpoint: &HostPort,
    limit: Duration,
    step: Step,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            Err(ClusterError::Failed { endpoint: endpoint.clone(), step, source: Box::new(source) })
        }
        Err(_) => Err(ClusterError::Late { endpoint: endpoint.clone(), step, limit }),
    }
}

//! An etcd of one process: reads, writes and watches. No leases, no users, no conditions in transactions: whoever asks
//! for those is told that they are not here.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvServer, PbKvService,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbResponseHeader,
    PbResponseOp, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
    PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchServer, PbWatchService,
};
use futures_util::Stream;
use futures_util::stream::{self, Empty};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::keyspace::{Change, Keyspace, Span};

/// Answers that may wait for a client that does not read.
const WAITING: usize = 16;

type Answer<T> = Result<Response<T>, Status>;
type WatchAnswers = Pin<Box<dyn Stream<Item = Result<PbWatchResponse, Status>> + Send>>;

/// The store, and who is to know when it changes; clones are the same store.
#[derive(Clone)]
struct Etcd {
    space: Arc<Mutex<Keyspace>>,
    /// The newest revision.
    revision: watch::Sender<i64>,
    /// Ends the streams of watches.
    end: CancellationToken,
    tracker: TaskTracker,
}

/// Serves until `end`, with `keys` in the store from the beginning.
pub(super) async fn serve(
    listener: TcpListener,
    keys: Vec<(String, String)>,
    end: CancellationToken,
    tracker: TaskTracker,
) {
    let etcd = Etcd { space: Arc::default(), revision: watch::Sender::new(1), end: end.clone(), tracker };
    etcd.change(keys.into_iter().map(|(key, value)| Change::Put(key.into(), value.into())).collect());
    let served = Server::builder()
        .add_service(PbKvServer::new(etcd.clone()))
        .add_service(PbWatchServer::new(etcd))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), end.cancelled());
    if let Err(error) = served.await {
        tracing::error!(%error, "the etcd of this process has ended");
    }
}

impl Etcd {
    fn with<T>(&self, work: impl FnOnce(&mut Keyspace) -> T) -> T {
        work(&mut self.space.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives how many keys each change has deleted, and the revision.
    fn change(&self, changes: Vec<Change>) -> (Vec<i64>, PbResponseHeader) {
        let (deleted, revision) = self.with(|space| (space.change(changes), space.revision()));
        self.revision.send_replace(revision);
        (deleted, header(revision))
    }

    fn find(&self, range: PbRangeRequest) -> PbRangeResponse {
        let span = Span::new(range.key, range.range_end);
        let (mut kvs, revision) = self.with(|space| (space.get(&span), space.revision()));
        let count = kvs.len();
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(count);
        kvs.truncate(if range.count_only { 0 } else { limit });
        if range.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
            }
        }
        PbRangeResponse {
            header: Some(header(revision)),
            more: !range.count_only && kvs.len() < count,
            count: i64::try_from(count).unwrap_or(i64::MAX),
            kvs,
        }
    }
}

/// One cluster of one member that has always led it.
fn header(revision: i64) -> PbResponseHeader {
    PbResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 1 }
}

fn is_not_here<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("the etcd of backendai-agent dev knows no {what}")))
}

#[tonic::async_trait]
impl PbKvService for Etcd {
    async fn range(&self, request: Request<PbRangeRequest>) -> Answer<PbRangeResponse> {
        Ok(Response::new(self.find(request.into_inner())))
    }

    type RangeStreamStream = Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Answer<Self::RangeStreamStream> {
        is_not_here("streamed ranges")
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Answer<PbPutResponse> {
        let put = request.into_inner();
        if put.lease != 0 {
            return is_not_here("leases");
        }
        let (_, header) = self.change(vec![Change::Put(put.key, put.value)]);
        Ok(Response::new(PbPutResponse { header: Some(header), prev_kv: None }))
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Answer<PbDeleteResponse> {
        let delete = request.into_inner();
        let (deleted, header) = self.change(vec![Change::Delete(Span::new(delete.key, delete.range_end))]);
        let deleted = deleted.into_iter().sum();
        Ok(Response::new(PbDeleteResponse { header: Some(header), deleted, prev_kvs: Vec::new() }))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Answer<PbTxnResponse> {
        let txn = request.into_inner();
        if !txn.compare.is_empty() {
            return is_not_here("conditions in transactions");
        }
        let (mut changes, mut ranges) = (Vec::new(), Vec::new());
        for PbTxnRequestOp { request } in txn.success {
            match request {
                Some(PbTxnOpRequest::RequestRange(range)) => ranges.push(range),
                Some(PbTxnOpRequest::RequestPut(put)) => changes.push(Change::Put(put.key, put.value)),
                Some(PbTxnOpRequest::RequestDeleteRange(delete)) => {
                    changes.push(Change::Delete(Span::new(delete.key, delete.range_end)));
                }
                Some(PbTxnOpRequest::RequestTxn(_)) | None => {
                    return is_not_here("transactions in transactions");
                }
            }
        }
        if !changes.is_empty() && !ranges.is_empty() {
            return is_not_here("transactions that read and write");
        }
        let kinds: Vec<_> = changes.iter().map(|change| matches!(change, Change::Put(..))).collect();
        let (deleted, header) = self.change(changes);
        let written = kinds.into_iter().zip(deleted).map(|(is_put, deleted)| {
            if is_put {
                PbTxnOpResponse::ResponsePut(PbPutResponse::default())
            } else {
                PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse {
                    deleted,
                    ..PbDeleteResponse::default()
                })
            }
        });
        let read = ranges.into_iter().map(|range| PbTxnOpResponse::ResponseRange(self.find(range)));
        let responses =
            written.chain(read).map(|response| PbResponseOp { response: Some(response) }).collect();
        Ok(Response::new(PbTxnResponse { header: Some(header), succeeded: true, responses }))
    }

    async fn compact(&self, _: Request<PbCompactionRequest>) -> Answer<PbCompactionResponse> {
        is_not_here("compaction")
    }
}

#[tonic::async_trait]
impl PbWatchService for Etcd {
    type WatchStream = WatchAnswers;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Answer<WatchAnswers> {
        let (answers, mut waiting) = mpsc::channel(WAITING);
        let watches = Watches { etcd: self.clone(), answers, open: BTreeMap::new(), last: 0 };
        let work = watches.follow(request.into_inner(), self.revision.subscribe());
        self.tracker.spawn(self.end.clone().run_until_cancelled_owned(work));
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| waiting.poll_recv(context)))))
    }
}

/// The watches of one stream.
struct Watches {
    etcd: Etcd,
    answers: mpsc::Sender<Result<PbWatchResponse, Status>>,
    /// Each with its keys and the next revision that it is to hear of.
    open: BTreeMap<i64, (Span, i64)>,
    /// The last number that was given to a watch.
    last: i64,
}

impl Watches {
    /// Until the client leaves.
    async fn follow(mut self, mut requests: Streaming<PbWatchRequest>, mut revision: watch::Receiver<i64>) {
        loop {
            let answers = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(PbWatchRequest { request_union: Some(request) })) => self.asked(request),
                    Ok(Some(_)) => Vec::new(),
                    Ok(None) | Err(_) => return,
                },
                // The sender lives in `etcd`.
                _ = revision.changed() => {
                    revision.mark_unchanged();
                    self.news()
                }
            };
            for answer in answers {
                if self.answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn asked(&mut self, request: PbWatchRequestUnion) -> Vec<PbWatchResponse> {
        let now = *self.etcd.revision.borrow();
        let about =
            |watch_id| PbWatchResponse { header: Some(header(now)), watch_id, ..PbWatchResponse::default() };
        match request {
            PbWatchRequestUnion::CreateRequest(create) => {
                self.last += 1;
                let from = if create.start_revision > 0 { create.start_revision } else { now + 1 };
                self.open.insert(self.last, (Span::new(create.key, create.range_end), from));
                let mut answers = vec![PbWatchResponse { created: true, ..about(self.last) }];
                answers.extend(self.news());
                answers
            }
            PbWatchRequestUnion::CancelRequest(cancel) => {
                self.open.remove(&cancel.watch_id);
                vec![PbWatchResponse { canceled: true, ..about(cancel.watch_id) }]
            }
            PbWatchRequestUnion::ProgressRequest(_) => vec![about(-1)],
        }
    }

    /// What each watch has not heard of yet.
    fn news(&mut self) -> Vec<PbWatchResponse> {
        let mut answers = Vec::new();
        self.etcd.clone().with(|space| {
            let now = space.revision();
            self.open.retain(|id, (span, next)| {
                let mut answer = PbWatchResponse {
                    header: Some(header(now)),
                    watch_id: *id,
                    ..PbWatchResponse::default()
                };
                match space.since(*next, span) {
                    Ok(events) => answer.events = events,
                    Err(first) => (answer.canceled, answer.compact_revision) = (true, first),
                }
                // A watch may begin in the future.
                *next = (*next).max(now + 1);
                let goes_on = !answer.canceled;
                if !goes_on || !answer.events.is_empty() {
                    answers.push(answer);
                }
                goes_on
            });
        });
        answers
    }
}

//! What any request to the local socket or the port for monitoring must not do, for the fuzzer and for `tests/decoders.rs`: the
//! function panics where it does.
#![allow(clippy::missing_panics_doc, reason = "a panic is what this is for")]

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::{Asked, CONNECTION_LIMIT, Pages, Reply, Site, answer};
use crate::conditions::Conditions;

/// All that somebody says there; the first byte says where.
pub fn request(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: Option<Runtime> = Builder::new_current_thread().enable_all().build().ok();
    }
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    RUNTIME.with(|runtime| {
        let answered = runtime.as_ref().map(|runtime| runtime.block_on(answered(bytes, choice & 1 == 1)));
        assert!(
            answered.as_ref().is_some_and(|answer| answer.is_empty() || answer.starts_with(b"HTTP/1.")),
            "{answered:?}"
        );
    });
}

async fn answered(bytes: &[u8], is_local: bool) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(256);
    let (_conditions, conditions) = watch::channel(Conditions::default());
    let pages = Arc::new(Pages { conditions, site: Arc::new(Told { is_local }) });
    let (mut reading, mut writing) = tokio::io::split(theirs);
    let mut said = Vec::new();
    let saying = async {
        let _ = writing.write_all(bytes).await;
        let _ = writing.shutdown().await;
    };
    let hearing = reading.read_to_end(&mut said);
    let both = async { tokio::join!(answer(Box::new(ours), None, is_local, pages), saying, hearing) };
    let is_over = tokio::time::timeout(CONNECTION_LIMIT, both).await;
    assert!(is_over.is_ok(), "a connection whose other side has closed goes on");
    said
}

/// Holds what is asked against what may be.
struct Told {
    is_local: bool,
}

impl Site for Told {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Option<Reply>> {
        assert_eq!(asked.is_local, self.is_local);
        assert!(self.is_local || !asked.is_wish, "a port took a wish");
        async move { (asked.path != "/none").then_some(Reply::Json(asked.path)) }.boxed()
    }
}

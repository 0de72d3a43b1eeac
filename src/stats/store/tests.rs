//! The store and a server that is no Redis; `tests/rooms/stats.rs` has it with a real one.

use std::net::TcpListener;
use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_server_that_talks_nonsense_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
    });
    let (_address, receiver) = watch::channel(Some(HostPort { host: "localhost".into(), port }));
    let cancel = CancellationToken::new();
    let store = Store::start(receiver, RedisAccess::default(), cancel.clone(), &TaskTracker::new());
    let error = store
        .put(vec![(KernelId::random(), Sample::default())], None, Instant::now() + Duration::from_secs(30))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Write { .. } | StoreError::Connect { .. }), "{error}");
    server.join().unwrap();
    cancel.cancel();
}

//! Errors and panics reported to a Sentry server.
//!
//! The library is used with care: its own panic handler and its own closing wait for the server, for ever when
//! that hangs. Panics come in as ordinary ERROR lines here, and closing happens in a thread that is left behind
//! after the limit. Threads: the library's `sentry-transport`, which sends; `sentry-close`, at the end only.

use std::str::FromStr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use sentry::integrations::backtrace::{AttachStacktraceIntegration, ProcessStacktraceIntegration};
use sentry::integrations::contexts::ContextIntegration;
use sentry::transports::UreqHttpTransportOptions;
use sentry::types::Dsn;
use sentry::{Client, ClientOptions, Hub, Transport, TransportFactory, TransportOptions};

use crate::secret::Secret;

/// One report, from connecting to the answer's end. A server that hangs costs reports, not the sending thread.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Where a Sentry project takes reports: `https://{key}@{host}/{project}`. Holds a key, so it is never shown.
#[derive(Debug, Clone)]
pub struct SentryDsn(Secret<Dsn>);

/// The text is not a DSN. What is wrong is not said in more detail: it would quote the key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Sentry DSN; give https://KEY@HOST/PROJECT as the Sentry project's settings show it")]
pub struct BadSentryDsn;

impl FromStr for SentryDsn {
    type Err = BadSentryDsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The reference's client also names its transport there: `threaded+https://…`.
        let url = match text.split_once("://") {
            Some((scheme, _)) => &text[scheme.rfind('+').map_or(0, |plus| plus + 1)..],
            None => text,
        };
        url.parse::<Dsn>().map(|dsn| Self(Secret::new(dsn))).map_err(|_| BadSentryDsn)
    }
}

/// The running client.
pub(super) struct ErrorReports {
    client: Arc<Client>,
}

impl ErrorReports {
    /// Starts the sending thread; nothing is reported before [`ErrorReports::bind`].
    pub(super) fn start(dsn: &SentryDsn) -> Self {
        let mut options = ClientOptions::new()
            .release(concat!("backendai-agent@", env!("CARGO_PKG_VERSION")))
            .attach_stacktrace(true)
            .send_default_pii(false)
            .default_integrations(false)
            .add_integration(AttachStacktraceIntegration::new())
            .add_integration(ContextIntegration::default())
            .add_integration(ProcessStacktraceIntegration::new())
            .transport(LimitedTransport);
        options.dsn = Some(dsn.0.expose().clone());
        Self { client: Arc::new(Client::from(options)) }
    }

    /// Lets the lines of every thread that logs from now on reach this client.
    pub(super) fn bind(&self, hub: &Hub) {
        hub.bind_client(Some(Arc::clone(&self.client)));
    }

    /// Sends what waits; false if `limit` did not suffice.
    pub(super) fn close(&self, limit: Duration) -> bool {
        let (sender, closed) = mpsc::channel();
        let client = Arc::clone(&self.client);
        let close = move || {
            // Nobody listens any more after the limit.
            let _ = sender.send(client.close(Some(limit)));
        };
        thread::Builder::new().name("sentry-close".to_owned()).spawn(close).is_ok()
            && closed.recv_timeout(limit).unwrap_or(false)
    }
}

/// The library's own transport, which by itself waits for ever.
struct LimitedTransport;

impl TransportFactory for LimitedTransport {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(SEND_LIMIT)).build().new_agent();
        Arc::new(UreqHttpTransportOptions::from(options).with_agent(agent).build())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    use sentry::integrations::tracing::ErrorLayer;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn reports(server: &TcpListener, run: impl FnOnce()) -> ErrorReports {
        let dsn = format!("http://secretkey@{}/42", server.local_addr().unwrap());
        let reports = ErrorReports::start(&dsn.parse().unwrap());
        let hub = Arc::new(Hub::new(None, Arc::default()));
        reports.bind(&hub);
        let layer = ErrorLayer::new().with_filter(LevelFilter::ERROR);
        let subscriber = tracing_subscriber::registry().with(layer);
        Hub::run(hub, || tracing::subscriber::with_default(subscriber, run));
        reports
    }

    #[test]
    fn an_error_line_arrives_and_a_warning_does_not() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let reports = reports(&server, || {
            tracing::warn!("only a warning");
            tracing::error!(step = "etcd", "cannot reach the cluster");
        });
        let taker = thread::spawn(move || {
            let (mut peer, _) = server.accept().unwrap();
            let mut request = String::new();
            let mut part = [0; 4096];
            while !request.contains("cannot reach the cluster") {
                let count = peer.read(&mut part).unwrap();
                assert!(count > 0, "ended early: {request}");
                request.push_str(&String::from_utf8_lossy(&part[..count]));
            }
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").unwrap();
            request
        });
        assert!(reports.close(Duration::from_secs(20)));
        let request = taker.join().unwrap();
        assert!(request.starts_with("POST /api/42/envelope/"), "{request}");
        assert!(!request.contains("only a warning"));
    }

    #[test]
    fn a_server_that_never_answers_does_not_hold_the_end_up() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        // More than the library's queue of 30 takes: its own closing would wait for a free place in it.
        let reports = reports(&server, || (0..50).for_each(|n| tracing::error!(n, "again")));
        let start = Instant::now();
        assert!(!reports.close(Duration::from_millis(200)));
        assert!(start.elapsed() < SEND_LIMIT / 2, "{:?}", start.elapsed());
    }

    #[test]
    fn a_dsn_is_checked_and_never_shown() {
        for good in [
            "https://secretkey@sentry.io/1",
            "https://secretkey:old@sentry.io/path/1",
            "threaded+http://secretkey@h/1",
        ] {
            let dsn: SentryDsn = good.parse().unwrap();
            assert!(!format!("{dsn:?}").contains("secretkey"));
        }
        for bad in [
            "",
            "secretkey",
            "https://sentry.io/1",
            "https://secretkey@sentry.io/",
            "ftp://secretkey@h/1",
            "://",
        ] {
            assert_eq!(bad.parse::<SentryDsn>().unwrap_err(), BadSentryDsn, "{bad:?}");
        }
        assert!(!BadSentryDsn.to_string().contains("secretkey"));
    }
}

//! The operator's side: the manager's part of the RPC, with the same wire types and a connection per call as the manager makes
//! it, and the local socket of a running agent (`local`).

mod local;
mod page;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::local::{Lines, LocalAgent, LocalError};
pub use self::page::serves_page;

use crate::address::HostPort;
use crate::wire::Value;
use crate::wire::answer::{Answer, BadAnswer, RemoteError};
use crate::wire::call::Call;
use crate::wire::header::RequestHeader;
use crate::zmtp::{Caps, Kind, Redial, Trouble};

/// The largest answer, in bytes.
const LARGEST: u64 = 128 * 1024 * 1024;

/// An agent to talk to.
pub struct Client {
    address: HostPort,
    /// The limit that the operator set for every call; else each call has the manager's.
    limit: Option<Duration>,
}

/// A call that did not bring a value.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Something else listens there.
    #[error("{address} is no agent")]
    Nonsense {
        /// Whom was asked.
        address: HostPort,
        /// What it did.
        source: Trouble,
    },
    /// Nobody listens there.
    #[error("nothing listens at {address} ({trouble}); start the agent there, or name another with --agent")]
    NoAgent {
        /// Whom was asked.
        address: HostPort,
        /// What the system said.
        trouble: std::io::Error,
    },
    /// The connection ended after the call was sent: the agent was stopped, or broke.
    #[error(
        "the agent at {address} closed the connection before it answered; what was asked may be done or not"
    )]
    Lost {
        /// Whom was asked.
        address: HostPort,
        /// What happened.
        source: Trouble,
    },
    /// No answer in time.
    #[error("no answer from {address} within {} s; is an agent running there?", .limit.as_secs_f64())]
    NoAnswer {
        /// Whom was asked.
        address: HostPort,
        /// How long was waited.
        limit: Duration,
    },
    /// The answer can't be read.
    #[error("the answer can't be read")]
    Unreadable(#[from] BadAnswer),
    /// The agent answered with an error.
    #[error("{}", shown(.0))]
    Remote(RemoteError),
}

impl CallError {
    /// Whether the agent was not to be had, which may change.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoAgent { .. } | Self::Lost { .. } | Self::NoAnswer { .. })
    }
}

fn shown(error: &RemoteError) -> String {
    let texts: Vec<_> =
        error.args.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect();
    format!("{} ({})", texts.join(", "), error.name)
}

/// The manager's own limits (PROTOCOL section 3); a little longer here, so that the agent's text arrives. A person waits longer
/// for a create, which the agent gives up by itself where it has a manager.
fn usual_limit(method: &str) -> Duration {
    Duration::from_secs(match method {
        "create_kernel" => 60,
        "interrupt_kernel" | "get_completions" | "get_logs" | "ping" => 6,
        "restart_kernel" => 32,
        "execute" => 300,
        "upload_file" => 180,
        _ => 12,
    })
}

impl Client {
    /// Does not connect yet.
    #[must_use]
    pub fn new(address: HostPort, limit: Option<Duration>) -> Self {
        Self { address, limit }
    }

    /// One call.
    pub async fn call(&self, method: &str, args: Vec<Value>) -> Result<Value, CallError> {
        let limit = self.limit.unwrap_or_else(|| usual_limit(method));
        let late = || CallError::NoAnswer { address: self.address.clone(), limit };
        tokio::time::timeout(limit, self.exchange(method, args)).await.map_err(|_| late())?
    }

    async fn exchange(&self, method: &str, args: Vec<Value>) -> Result<Value, CallError> {
        // The socket is this call's alone; a number that differs from the last call's is enough.
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        let sent_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let header = RequestHeader {
            pid: u16::try_from(std::process::id() & 0xffff).unwrap_or(0),
            random: u16::try_from(high & 0xffff).unwrap_or(0),
            request_id: u32::try_from(low & 0xffff_ffff).unwrap_or(0),
            sent_at,
        };
        let call = Call { header, method: method.to_owned(), args, file: None, kwargs: Vec::new() };
        let request = call.encode();
        let mut dealer = Redial::new(self.address.to_string(), Kind::Dealer, Caps::calls(LARGEST));
        // Nothing has been asked yet: a connection that is slow or breaks is tried again until the limit of the call.
        while let Err(trouble) = dealer.send(&request).await {
            self.judge(trouble)?;
        }
        loop {
            let message = match dealer.recv().await {
                Ok(message) => message,
                // The answer would come over the connection that the call went over.
                Err(source) => self
                    .judge(source)
                    .and_then(|source| Err(CallError::Lost { address: self.address.clone(), source }))?,
            };
            let answer = Answer::decode(&message.frames)?;
            if answer.header.request_id == header.request_id {
                return answer.body.map_err(CallError::Remote);
            }
        }
    }

    /// An error where trying again is of no use.
    fn judge(&self, trouble: Trouble) -> Result<Trouble, CallError> {
        let address = || self.address.clone();
        match trouble {
            nonsense if nonsense.is_nonsense() => {
                Err(CallError::Nonsense { address: address(), source: nonsense })
            }
            Trouble::Connect(trouble) => Err(CallError::NoAgent { address: address(), trouble }),
            passing => Ok(passing),
        }
    }
}

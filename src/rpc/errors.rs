//! From this agent's errors to the exception names that the manager's client knows (PROTOCOL section 2).

use crate::kernel::{Failure, Fault};
use crate::wire::answer::{ErrorName, RemoteError};
use crate::wire::call::BadCall;
use crate::wire::request::BadRequest;

/// A call that is no request.
#[must_use]
pub(super) fn of_request(error: &BadRequest) -> RemoteError {
    match error {
        // The class of its own name takes the method's name as its only argument.
        BadRequest::UnknownMethod(name) => RemoteError::new(ErrorName::NotFound, name),
        BadRequest::Parameters(text) => RemoteError::new(ErrorName::Parameters, &text.0),
        refused => RemoteError::new(ErrorName::Assertion, &refused.to_string()),
    }
}

/// A call that says too much.
#[must_use]
pub(super) fn of_call(error: &BadCall) -> RemoteError {
    RemoteError::new(ErrorName::Parameters, &error.to_string())
}

/// A request that failed.
#[must_use]
pub(super) fn of_kernel(error: &Failure) -> RemoteError {
    let name = match error.fault() {
        Fault::Request => ErrorName::Assertion,
        Fault::NoFile => ErrorName::FileNotFound,
        Fault::Agent => ErrorName::Runtime,
        Fault::TimeLimit => ErrorName::Timeout,
    };
    RemoteError::new(name, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KernelId;
    use crate::kernel::KernelError;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn every_error_has_a_name_that_the_manager_knows() {
        let of = |e: KernelError| of_kernel(&Arc::new(e)).name;
        assert_eq!(of(KernelError::NotRunning(KernelId::random())), "builtins.RuntimeError");
        assert_eq!(of(KernelError::GpuRefused("x".into())), "builtins.AssertionError");
        assert_eq!(of(KernelError::Late(Duration::from_secs(3))), "concurrent.futures._base.TimeoutError");
        let unknown = of_request(&BadRequest::UnknownMethod("dance".into()));
        assert_eq!(
            (unknown.name.as_str(), unknown.args),
            ("aiozmq.rpc.base.NotFoundError", vec!["dance".into()])
        );
        assert_eq!(of_request(&BadRequest::ApiVersion(5)).name, "builtins.AssertionError");
    }
}

//! `x-amz-acl: public-read` on the requests that make an object.
//!
//! The store's library has no setting for it, and its default headers are added after signing: Amazon refuses a request
//! with an `x-amz-` header that its signature does not cover. So this stands between the library and the network,
//! adds the header where it belongs and signs anew.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};

use super::config::S3Keys;

/// Makes clients that upload for everybody to read.
#[derive(Debug)]
pub(super) struct PublicReadConnector {
    signing: Arc<Signing>,
}

/// What a signature needs.
#[derive(Debug)]
struct Signing {
    credential: AwsCredential,
    region: String,
    /// The signature leaves the body out, as the library's own does over TLS.
    unsigned_payload: bool,
}

impl PublicReadConnector {
    pub(super) fn new(region: &str, keys: &S3Keys, unsigned_payload: bool) -> Self {
        let credential = AwsCredential {
            key_id: keys.access_key.expose().clone(),
            secret_key: keys.secret_key.expose().clone(),
            token: keys.session_token.as_ref().map(|token| token.expose().clone()),
        };
        Self { signing: Arc::new(Signing { credential, region: region.to_owned(), unsigned_payload }) }
    }
}

impl HttpConnector for PublicReadConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let network = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(PublicRead { network, signing: Arc::clone(&self.signing) }))
    }
}

#[derive(Debug)]
struct PublicRead {
    network: HttpClient,
    signing: Arc<Signing>,
}

impl Signing {
    fn make_public(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        request.headers_mut().insert("x-amz-acl", HeaderValue::from_static("public-read"));
        AwsAuthorizer::new(&self.credential, "s3", &self.region)
            .with_sign_payload(!self.unsigned_payload)
            .try_authorize(request, None)
    }
}

/// Whether the request makes an object: a plain PUT, or the start of an upload in parts. The parts themselves and the
/// end of it know no ACL.
fn makes_object(method: &str, query: Option<&str>) -> bool {
    let has = |name: &str| {
        query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some(name)))
    };
    match method {
        "PUT" => !has("uploadId"),
        "POST" => has("uploads"),
        _ => false,
    }
}

impl HttpService for PublicRead {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        mut request: HttpRequest,
    ) -> BoxFuture<'async_trait, Result<HttpResponse, HttpError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if makes_object(request.method().as_str(), request.uri().query()) {
                self.signing
                    .make_public(&mut request)
                    .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
            }
            self.network.execute(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn only_requests_that_make_objects_are_changed() {
        assert!(makes_object("PUT", None));
        assert!(makes_object("PUT", Some("x-id=PutObject")));
        assert!(makes_object("POST", Some("uploads")));
        assert!(makes_object("POST", Some("uploads=")));
        assert!(!makes_object("PUT", Some("partNumber=1&uploadId=abc")));
        assert!(!makes_object("POST", Some("uploadId=abc")));
        assert!(!makes_object("GET", None));
        assert!(!makes_object("DELETE", Some("uploadId=abc")));
    }

    #[test]
    fn the_signature_covers_the_acl_and_leaves_one_of_everything() {
        let keys = S3Keys {
            access_key: Secret::new("AKIDEXAMPLE"),
            secret_key: Secret::new("hunter2"),
            session_token: Some(Secret::new("token2")),
        };
        let connector = PublicReadConnector::new("ap-northeast-1", &keys, false);
        let mut request = HttpRequest::new(bytes::Bytes::from_static(b"data").into());
        *request.method_mut() = "PUT".parse().unwrap();
        *request.uri_mut() = "http://localhost:9000/bucket/key%20x".parse().unwrap();
        // Signed once by the library, then again here.
        let signing = &connector.signing;
        AwsAuthorizer::new(&signing.credential, "s3", &signing.region)
            .try_authorize(&mut request, None)
            .unwrap();
        signing.make_public(&mut request).unwrap();
        assert_eq!(request.headers()["x-amz-acl"], "public-read");
        let signatures: Vec<_> = request.headers().get_all("authorization").iter().collect();
        assert_eq!(signatures.len(), 1);
        let signed = signatures[0].to_str().unwrap();
        assert!(
            signed.contains(
                "SignedHeaders=host;x-amz-acl;x-amz-content-sha256;x-amz-date;x-amz-security-token,"
            ),
            "{signed}"
        );
        assert!(!format!("{connector:?}").contains("hunter2"));
    }
}

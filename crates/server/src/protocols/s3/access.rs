//! Who may do what: an access key opens the objects of its endpoint, and nothing is done without a signature.

use s3s::{
    S3Request, S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
    s3_error,
};

use crate::{service::objects::Holder, state::AppState};

/// What there is; every other operation of S3 is refused before its body is read.
const OPERATIONS: [&str; 9] = [
    "GetObject",
    "HeadObject",
    "PutObject",
    "DeleteObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "HeadBucket",
];

/// Finds the secret of an access key.
pub struct Keys(pub AppState);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let holder = Holder::parse(access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        let live = match &holder {
            Holder::Own(_) => true,
            Holder::Keyed { endpoint, hash } => self.0.auth.keyring().may_work_with(hash, endpoint),
        };
        match live {
            true => Ok(self.0.service.object_access(&holder).secret_key.into()),
            false => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

/// Lets through what is signed and what there is.
pub struct Allowed;

#[async_trait::async_trait]
impl S3Access for Allowed {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = context.s3_op().name();
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "a signature is needed"));
        }
        match OPERATIONS.contains(&operation) {
            true => Ok(()),
            false => Err(s3_error!(
                NotImplemented,
                "{operation} is not supported: workers put and read single objects here"
            )),
        }
    }
}

/// For whom the key of a request was made.
///
/// # Errors
/// For a request without one.
pub fn holder_of<T>(request: &S3Request<T>) -> S3Result<Holder> {
    request
        .credentials
        .as_ref()
        .and_then(|credentials| Holder::parse(&credentials.access_key))
        .ok_or_else(|| s3_error!(AccessDenied, "a signature is needed"))
}

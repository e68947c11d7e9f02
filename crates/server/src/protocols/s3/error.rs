//! The service's errors in S3's words.

use s3s::{S3Error, s3_error};

use crate::service::{Error, objects::PartError};

/// What S3 calls an error of the service.
pub fn of_service(error: Error) -> S3Error {
    match error {
        Error::NotFound { .. } => s3_error!(NoSuchKey, "{error}"),
        Error::TooLarge { .. } => s3_error!(EntityTooLarge, "{error}"),
        Error::Invalid(_) => s3_error!(IncompleteBody, "{error}"),
        // The SDKs try again.
        Error::Unavailable { .. } => s3_error!(SlowDown, "{error}"),
        Error::InvalidGraph(_)
        | Error::InputUnavailable(_)
        | Error::Duplicate { .. }
        | Error::QueueFull { .. }
        | Error::Internal(_) => {
            tracing::error!(error = ?error, "an object could not be kept or read");
            s3_error!(InternalError)
        }
    }
}

/// What it calls an error of an upload in parts.
pub fn of_parts(error: PartError) -> S3Error {
    match error {
        PartError::NoUpload => s3_error!(NoSuchUpload, "{error}"),
        PartError::Part(_) => s3_error!(InvalidPart, "{error}"),
        PartError::Order => s3_error!(InvalidPartOrder, "{error}"),
        PartError::Service(error) => of_service(error),
    }
}

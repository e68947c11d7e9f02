//! Whether blobs have a place: the bucket, if one is configured.

use darkroom_ambient::SystemIds;
use darkroom_server::{config::BlobLocation, service::bucket_check::check_bucket};

use super::{Check, Verdict};

const NAME: &str = "blobs";

/// Looks at the place that is configured.
pub async fn check(location: &BlobLocation) -> Check {
    let BlobLocation::S3(options) = location else {
        return Check::new(NAME, Verdict::Ok, "files under the data directory");
    };
    let place = format!("s3://{}/{}", options.bucket, options.prefix);
    match check_bucket(options, &SystemIds).await {
        Ok(()) => Check::new(
            NAME,
            Verdict::Ok,
            format!("{place} takes, gives, signs and removes"),
        ),
        Err(trouble) => {
            let found = format!("{place}: cannot {}: {}", trouble.step, trouble.why);
            let found = match trouble.advice() {
                "" => found,
                advice => format!("{found}; {advice}"),
            };
            Check::new(NAME, Verdict::Fail, found)
        }
    }
}

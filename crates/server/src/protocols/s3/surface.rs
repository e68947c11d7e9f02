//! The operations. `s3s` takes the first word of a path for the bucket; ours stands behind [`PATH`], which is part of what
//! clients sign, so that it cannot be cut off: the bucket is the third word here.

use axum::body::Body;
use darkroom_core::EndpointName;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput,
        HeadObjectOutput, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};

use super::{
    access::holder_of,
    digest::Digests,
    error::{of_parts, of_service},
};
use crate::service::{
    Service,
    objects::{Object, ObjectName},
    uploads::Incoming,
};

/// The surface of one server.
pub struct Surface(pub Service);

/// What `s3s` takes for the bucket, and how it takes every key to begin.
const FIRST_WORD: &str = "darkroom";
const SECOND_WORD: &str = "s3/";

/// Whose, in which bucket, under which key.
struct Place {
    endpoint: EndpointName,
    bucket: String,
    key: String,
}

impl Place {
    /// Of a request.
    fn of<T>(request: &S3Request<T>, first: &str, rest: &str) -> S3Result<Place> {
        let place = Place::or_bucket(request, first, rest)?;
        match place.key.is_empty() {
            true => Err(s3_error!(
                NotImplemented,
                "buckets are not made, listed or removed here"
            )),
            false => Ok(place),
        }
    }

    /// The same where the key may be missing: a bucket.
    fn or_bucket<T>(request: &S3Request<T>, first: &str, rest: &str) -> S3Result<Place> {
        let rest = rest
            .strip_prefix(SECOND_WORD)
            .filter(|_| first == FIRST_WORD)
            .ok_or_else(|| s3_error!(InvalidURI))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // `|` separates the bucket from the key where they are kept.
        if !s3s::path::check_bucket_name(bucket) {
            return Err(s3_error!(InvalidBucketName));
        }
        Ok(Place {
            endpoint: holder_of(request)?.endpoint().clone(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    fn name(&self) -> ObjectName<'_> {
        ObjectName {
            endpoint: &self.endpoint,
            bucket: &self.bucket,
            key: &self.key,
        }
    }

    fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }
}

#[async_trait::async_trait]
impl S3 for Surface {
    async fn put_object(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let place = Place::or_bucket(&request, &request.input.bucket, &request.input.key)?;
        if place.key.is_empty() {
            // Every bucket exists; somebody makes sure.
            return Ok(S3Response::new(PutObjectOutput::default()));
        }
        let digests = Digests::of(&request.headers, request.trailing_headers.take());
        let received = self.receive(&place, digests, request.input.body.take()).await?;
        let content_type = request.input.content_type.as_deref();
        let kept = self.0.keep_object(place.name(), content_type, received).await;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(tag(&kept.map_err(of_service)?)),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let place = Place::of(&request, &request.input.bucket, &request.input.key)?;
        let object = self.find(&place).await?;
        let part = match &request.input.range {
            Some(range) => Some(range.check(object.size)?),
            None => None,
        };
        let opened = self.0.open_object(&object, part.clone()).await;
        let reader = opened.map_err(of_service)?.ok_or_else(|| s3_error!(NoSuchKey))?;
        let length = reader.range.end - reader.range.start;
        let content_range = part.map(|part| object.content_range(&part));
        let body = s3s::Body::http_body_unsync(Body::from_stream(reader.stream));
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::from(body)),
            content_length: i64::try_from(length).ok(),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            content_type: Some(object.sent_type().to_owned()),
            content_disposition: Some(object.disposition(place.file_name())),
            e_tag: Some(tag(&object)),
            last_modified: Some(modified(&object)),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let place = Place::or_bucket(&request, &request.input.bucket, &request.input.key)?;
        if place.key.is_empty() {
            return Ok(S3Response::new(HeadObjectOutput::default()));
        }
        let object = self.find(&place).await?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(object.size).ok(),
            accept_ranges: Some("bytes".to_owned()),
            content_type: Some(object.sent_type().to_owned()),
            content_disposition: Some(object.disposition(place.file_name())),
            e_tag: Some(tag(&object)),
            last_modified: Some(modified(&object)),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let place = Place::of(&request, &request.input.bucket, &request.input.key)?;
        self.0.remove_object(place.name()).await.map_err(of_service)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let place = Place::of(&request, &request.input.bucket, &request.input.key)?;
        let upload = self
            .0
            .begin_object(place.name(), request.input.content_type.as_deref());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(upload),
            bucket: Some(place.bucket),
            key: Some(place.key),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let place = Place::of(&request, &request.input.bucket, &request.input.key)?;
        let digests = Digests::of(&request.headers, request.trailing_headers.take());
        let received = self.receive(&place, digests, request.input.body.take()).await?;
        let number = u32::try_from(request.input.part_number).unwrap_or(0);
        let upload = &request.input.upload_id;
        let kept = self.0.keep_part(place.name(), upload, number, received).await;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(kept.map_err(of_parts)?)),
            ..UploadPartOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let place = Place::of(&request, &request.input.bucket, &request.input.key)?;
        let location = request.uri.path().to_owned();
        let named = request.input.multipart_upload.and_then(|named| named.parts);
        let named: Vec<_> = named
            .unwrap_or_default()
            .into_iter()
            .map(|part| {
                let number = part.part_number.and_then(|number| u32::try_from(number).ok());
                let tag = part.e_tag.map(|tag| tag.value().to_owned());
                (number.unwrap_or(0), tag.unwrap_or_default())
            })
            .collect();
        let upload = &request.input.upload_id;
        let joined = self.0.join_parts(place.name(), upload, &named).await;
        let object = joined.map_err(of_parts)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            e_tag: Some(tag(&object)),
            location: Some(location),
            bucket: Some(place.bucket),
            key: Some(place.key),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let place = Place::of(&request, &request.input.bucket, &request.input.key)?;
        let upload = &request.input.upload_id;
        let forgotten = self.0.forget_parts(place.name(), upload).await;
        forgotten.map_err(of_parts)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

impl Surface {
    /// The bytes of an object or a part, kept for now; nothing of them stays where a digest does not fit.
    async fn receive(
        &self,
        place: &Place,
        digests: Digests,
        body: Option<StreamingBlob>,
    ) -> S3Result<Incoming> {
        let body = body.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()));
        let received = self.0.receive_object(place.name(), digests.watch(body)).await;
        let received = received.map_err(of_service)?;
        if let Err(refusal) = digests.check() {
            self.0.forget_incoming(received).await;
            return Err(refusal);
        }
        Ok(received)
    }

    async fn find(&self, place: &Place) -> S3Result<Object> {
        let found = self.0.object(place.name()).await.map_err(of_service)?;
        found.ok_or_else(|| s3_error!(NoSuchKey, "there is no such object"))
    }
}

fn tag(object: &Object) -> ETag {
    ETag::Strong(object.tag())
}

fn modified(object: &Object) -> Timestamp {
    let since_epoch = object.created_at.since(darkroom_core::Timestamp::ZERO);
    Timestamp::from(std::time::SystemTime::UNIX_EPOCH + since_epoch)
}

//! The way in of a job for a worker: its input placed, its wishes beside it, its secrets sealed, one transaction.

use bytes::Bytes;
use darkroom_core::{
    BlobKey, EndpointName, JobId, TenantId, endpoint, payload::INLINE_MAX_BYTES, worker::Wishes,
};
use darkroom_store::jobs::{JobMeta, NewJob, Submitted};
use serde_json::{Map, Value, json};

use crate::service::{Error, Service, follow::Ending};

/// The name under which a job's `s3Config` lies among its credentials; it goes to the worker under the same key.
pub const S3_CONFIG: &str = "s3Config";

/// An input that somebody wants handled.
#[derive(Debug)]
pub struct WorkerSubmit {
    /// Whose job it will be.
    pub tenant: TenantId,
    /// Whose workers take it.
    pub endpoint: EndpointName,
    /// The JSON text of the input.
    pub input: Bytes,
    /// What else was wished for.
    pub wishes: Wishes,
    /// Where to tell of its end.
    pub webhook: Option<String>,
    /// The base of addresses in what is told there, as the caller reached us; no slash at its end.
    pub base_url: String,
    /// A bucket for the worker's files: secret, for the worker alone.
    pub s3_config: Option<Map<String, Value>>,
    /// The protocol (`runpod`, `ppio`).
    pub dialect: &'static str,
    /// The id of the HTTP request.
    pub request_id: String,
}

/// The wishes that a job was submitted with.
pub fn wishes_of(meta: &JobMeta) -> Wishes {
    serde_json::from_value(meta.options.clone()).unwrap_or_default()
}

impl Service {
    /// Accepts an input as a job: durable when this returns.
    ///
    /// # Errors
    /// Every refusal of [`Error`]; nothing is half-accepted then.
    pub async fn submit_worker(&self, submit: WorkerSubmit) -> Result<JobId, Error> {
        Ok(self.submit_worker_awaited(submit).await?.job())
    }

    /// The same for who waits for the job's end.
    ///
    /// # Errors
    /// As [`Service::submit_worker`].
    pub async fn submit_worker_awaited(&self, submit: WorkerSubmit) -> Result<Ending, Error> {
        let endpoint = submit.endpoint.clone();
        let (job, key) = self.prepare_worker(submit).await?;
        let ending = self.ending_of_new(job.id);
        let submitted = self.store.submit(job).await;
        if !matches!(submitted, Ok(Submitted::Accepted { .. })) {
            self.discard(vec![key]).await;
        }
        match submitted? {
            Submitted::Accepted { .. } | Submitted::Existing(_) | Submitted::Duplicate(_) => {
                self.metrics.job_submitted(&endpoint);
                Ok(ending)
            }
            Submitted::QueueFull { queued } => Err(Error::QueueFull {
                endpoint: endpoint.to_string(),
                queued,
            }),
        }
    }

    /// The job that an input becomes, and where its input lies if it is large: to be discarded if the job is not accepted.
    ///
    /// # Errors
    /// As [`Service::submit_worker`].
    pub(in crate::service) async fn prepare_worker(
        &self,
        submit: WorkerSubmit,
    ) -> Result<(NewJob, BlobKey), Error> {
        let endpoint = self.endpoint(&submit.endpoint)?;
        if endpoint.kind != endpoint::Kind::Worker {
            return Err(Error::Invalid(format!(
                "endpoint '{}' has no workers",
                endpoint.name
            )));
        }
        if endpoint.is_http_worker() {
            return Err(Error::Invalid(format!(
                "the instances of endpoint '{0}' answer HTTP: post to /api/predict/{0}/ and one of their own paths",
                endpoint.name
            )));
        }
        submit.wishes.check().map_err(|e| Error::Invalid(e.to_string()))?;
        let mut meta = JobMeta {
            dialect: submit.dialect.to_owned(),
            request_id: submit.request_id,
            options: json!(submit.wishes),
            summary: format!("{} bytes of input", submit.input.len()),
            has_credentials: submit.s3_config.is_some(),
            ..JobMeta::default()
        };
        if let Some(address) = &submit.webhook {
            self.set_webhook(&mut meta, address, &submit.base_url)?;
        }
        let max_queued = endpoint.limits.max_queued;
        if submit.input.len() > INLINE_MAX_BYTES {
            // Before its bytes are written; the transaction decides.
            self.check_room(&submit.endpoint, max_queued).await?;
        }
        let id = JobId::new(&*self.ids);
        let mut credentials = Map::new();
        if let Some(bucket) = submit.s3_config {
            credentials.insert(S3_CONFIG.to_owned(), Value::Object(bucket));
        }
        let sealed = self.seal_credentials(id, &credentials)?;
        let key = BlobKey::job_input(id);
        let input = self.place_input(key.clone(), submit.input).await?;
        let job = NewJob {
            id,
            tenant: submit.tenant,
            endpoint: submit.endpoint.clone(),
            priority: submit.wishes.priority(),
            input,
            sealed,
            input_files: vec![],
            queue_ttl: submit.wishes.queue_ttl(&endpoint.limits),
            meta,
            external_id: None,
            max_attempts: endpoint.limits.max_attempts,
            max_queued,
            entry: Default::default(),
            keep: submit.wishes.keep(&endpoint.limits),
        };
        Ok((job, key))
    }

    pub(in crate::service) async fn check_room(
        &self,
        endpoint: &EndpointName,
        max_queued: u64,
    ) -> Result<(), Error> {
        let queued = self.store.queued(endpoint).await?;
        match queued >= max_queued {
            true => Err(Error::QueueFull {
                endpoint: endpoint.to_string(),
                queued,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use darkroom_core::{InstanceId, Payload};
    use darkroom_store::jobs::Claim;

    use super::*;
    use crate::service::testing::Bench;

    const WORKERS: &str = "[endpoints.w]\nkind = \"worker\"\n[endpoints.w.limits]\nmax_queued = 2\n";

    fn submit(input: impl Into<Bytes>) -> WorkerSubmit {
        WorkerSubmit {
            tenant: "t".parse().unwrap(),
            endpoint: "w".parse().unwrap(),
            input: input.into(),
            wishes: Wishes::default(),
            webhook: None,
            base_url: "http://us".into(),
            s3_config: None,
            dialect: "runpod",
            request_id: "r".into(),
        }
    }

    async fn claim(bench: &Bench) -> darkroom_store::jobs::Claimed {
        let claim = Claim {
            endpoint: "w".parse().unwrap(),
            instance: InstanceId::new(&*bench.service.ids),
            owner: bench.service.node.clone(),
            loaded_models: vec![],
            offers: None,
            lease: Duration::from_secs(30),
            except: vec![],
            max_running_per_tenant: 0,
        };
        bench.service.store.claim(claim).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_worker_that_claims_gets_the_input_verbatim_with_wishes_and_secrets() {
        let bench = Bench::configured(WORKERS);
        let text = "{\"prompt\": \"a red \\u82f9\\u679c\", \"n\": 1.50}";
        let wishes = Wishes {
            execution_timeout_ms: Some(60_000),
            ..Wishes::default()
        };
        let Value::Object(bucket) = json!({"accessId": "id", "accessSecret": "s3cret-s3cret"}) else {
            unreachable!()
        };
        let id = bench
            .service
            .submit_worker(WorkerSubmit {
                wishes: wishes.clone(),
                webhook: Some("https://example.com/hook".into()),
                s3_config: Some(bucket.clone()),
                ..submit(text)
            })
            .await
            .unwrap();
        let claimed = claim(&bench).await;
        assert_eq!(claimed.job.id, id);
        assert_eq!(claimed.job.input, Payload::Inline(text.as_bytes().to_vec()));
        assert_eq!(wishes_of(&claimed.job.meta), wishes);
        assert_eq!(
            claimed.job.meta.webhook.as_deref(),
            Some("https://example.com/hook")
        );
        let credentials = bench.service.credentials_of(&claimed.job).await.unwrap();
        assert_eq!(credentials.get(S3_CONFIG), Some(&Value::Object(bucket)));
        let stored = format!("{:?}", claimed.job.meta);
        assert!(!stored.contains("s3cret"), "{stored}");
    }

    #[tokio::test]
    async fn large_inputs_are_blobs_and_leave_nothing_when_they_are_refused() {
        let bench = Bench::configured(WORKERS);
        let large = format!("\"{}\"", "x".repeat(INLINE_MAX_BYTES));
        bench.service.submit_worker(submit(large.clone())).await.unwrap();
        let Payload::Blob { size, .. } = claim(&bench).await.job.input else {
            panic!("it is too large for a row");
        };
        assert_eq!(size, large.len() as u64);
        for _ in 0..2 {
            bench.service.submit_worker(submit("1")).await.unwrap();
        }
        let before = bench.blob_keys().await;
        let full = bench.service.submit_worker(submit(large)).await;
        assert!(
            matches!(full, Err(Error::QueueFull { queued: 2, .. })),
            "{full:?}"
        );
        assert_eq!(bench.blob_keys().await, before);
    }

    #[tokio::test]
    async fn a_job_for_a_worker_has_no_graph() {
        let bench = Bench::configured(WORKERS);
        let id = bench.service.submit_worker(submit("[1]")).await.unwrap();
        let job = bench.service.job(None, id).await.unwrap();
        let graph = bench.service.graph_of(&job).await;
        assert!(matches!(graph, Err(Error::NotFound { .. })), "{graph:?}");
    }

    #[tokio::test]
    async fn low_priority_jobs_come_last_and_bad_wishes_are_refused() {
        let bench = Bench::configured(WORKERS);
        let low = WorkerSubmit {
            wishes: Wishes {
                low_priority: true,
                ..Wishes::default()
            },
            ..submit("\"low\"")
        };
        bench.service.submit_worker(low).await.unwrap();
        bench.service.submit_worker(submit("\"normal\"")).await.unwrap();
        assert_eq!(
            claim(&bench).await.job.input,
            Payload::Inline(b"\"normal\"".to_vec())
        );
        for bad in [
            WorkerSubmit {
                wishes: Wishes {
                    ttl_ms: Some(1),
                    ..Wishes::default()
                },
                ..submit("1")
            },
            WorkerSubmit {
                webhook: Some("file:///etc/passwd".into()),
                ..submit("1")
            },
            WorkerSubmit {
                endpoint: "nobody".parse().unwrap(),
                ..submit("1")
            },
        ] {
            assert!(bench.service.submit_worker(bad).await.is_err());
        }
    }
}

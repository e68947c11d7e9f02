//! One folder per wire protocol: DTOs, routes, error mapping, and no behaviour of its own.

use std::sync::Arc;

use crate::service::webhooks::StatusBodies;

pub mod async_endpoints;
pub mod comfy_v2;
pub mod darkroom;
pub mod eas;
pub mod fc;
pub mod home;
pub mod kubeai;
pub mod native;
pub mod s3;
pub mod speedpix;

/// How each dialect shows a job to whoever is told of its end. A protocol that takes webhooks adds a line: the function
/// that makes the body of its status route.
pub fn status_bodies() -> StatusBodies {
    let mut bodies = StatusBodies::new(Arc::new(|service, job| {
        Box::pin(darkroom::status_body(service, job))
    }));
    for dialect in async_endpoints::DIALECTS {
        let body = Arc::new(|service, job| Box::pin(async_endpoints::status_body(service, job)) as _);
        bodies = bodies.with(dialect, body);
    }
    bodies
}

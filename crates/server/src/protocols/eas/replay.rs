//! `POST /api/predict/{service}/{path}` of a service whose instances answer HTTP: the request is replayed on one of them,
//! and its answer comes to the sink (`protocols/eas-queue.md` §2, §5). Without a path it is replayed at `/`.

use axum::{extract::Request, response::Response};
use http::HeaderMap;

use super::{
    call::EasCall,
    error::EasError,
    posted::{Posted, max_payload},
    put::answer,
    query::Query,
};
use crate::{
    service::{
        queues::{OpenQueue, RequestItem},
        replay::HEADERS,
    },
    state::AppState,
};

/// Segments of an address before the program's own path: none, `api`, `predict`, and the service.
const SEGMENTS_BEFORE: usize = 4;

/// Accepts a request.
pub async fn replay(
    state: &AppState,
    queue: &OpenQueue,
    call: &EasCall,
    request: Request,
) -> Result<Response, EasError> {
    let posted = Posted::read(state, call, request, max_payload(queue)).await?;
    let item = RequestItem {
        tags: call.query.tags.clone(),
        priority: posted.priority,
        path: path_of(posted.parts.uri.path()),
        query: Query::for_the_program(posted.parts.uri.query().unwrap_or_default()),
        headers: kept(&posted.parts.headers),
        body: posted.body,
        base_url: call.base_url.clone(),
        request_id: call.caller.request_id.to_string(),
    };
    let done = state.service.put_request(queue, item).await?;
    drop(posted.memory);
    Ok(answer(&done))
}

/// The program's own path, as it is written.
fn path_of(path: &str) -> String {
    let own = path.splitn(SEGMENTS_BEFORE + 1, '/').nth(SEGMENTS_BEFORE);
    format!("/{}", own.unwrap_or_default())
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let pairs = HEADERS.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_path_and_query_stay_as_they_are_written() {
        for (path, own) in [
            ("/api/predict/s", "/"),
            ("/api/predict/s/", "/"),
            ("/api/predict/g.s/a/b%2Fc/", "/a/b%2Fc/"),
            ("/api/predict/s//a", "//a"),
        ] {
            assert_eq!(path_of(path), own);
        }
        for (query, own) in [
            ("", ""),
            (
                "task_id=%E5%9B%BE&_priority_=1&x=a+b&flag",
                "task_id=%E5%9B%BE&x=a+b&flag",
            ),
            ("%5Fpriority_=1&&a=1", "a=1"),
        ] {
            assert_eq!(Query::for_the_program(query), own);
        }
    }

    #[test]
    fn credentials_are_not_kept() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "content-type", "x-key", "accept"] {
            headers.insert(name, "value".parse().unwrap());
        }
        let kept: Vec<String> = kept(&headers).into_iter().map(|(name, _)| name).collect();
        assert_eq!(kept, ["content-type", "accept"]);
    }
}

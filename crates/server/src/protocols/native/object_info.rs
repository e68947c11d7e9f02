//! `GET /object_info[/{class}]`: what the endpoint's boxes can do together, known with zero instances, with the caller's
//! uploads among the choices of file pickers.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use darkroom_core::TenantId;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::{
    call::NativeCall,
    error::{NativeError, Refused},
};
use crate::{
    service::{Error, pickers::InfoText},
    state::AppState,
};

/// `GET /object_info`: compressed for who takes it, and not again for who has it.
///
/// # Errors
/// 503 while no instance of the endpoint has told what it can do.
pub async fn all(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let text = state
        .service
        .object_info_text(lister(&call), &call.endpoint.name)
        .await
        .map_err(|e| call.refuse(e))?;
    match text {
        Some(text) => Ok(answer(&text, &headers)),
        None => Err(call.refuse(unknown(&call))),
    }
}

/// `GET /object_info/{class}`: an empty object for an unknown class.
///
/// # Errors
/// When the store fails.
pub async fn one(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
) -> Result<Json<Value>, Refused> {
    let class = super::call::param(&params, "class");
    let info = state
        .service
        .class_info(lister(&call), &call.endpoint.name, class)
        .await
        .map_err(|e| call.refuse(e))?;
    let mut answer = Map::new();
    if let Some(info) = info {
        let info = serde_json::to_value(info).map_err(|e| call.refuse(Error::Internal(e.into())))?;
        answer.insert(class.to_owned(), info);
    }
    Ok(Json(Value::Object(answer)))
}

/// Whose uploads the pickers offer: those without credentials share a tenant, and must not see each other's names.
fn lister(call: &NativeCall) -> Option<&TenantId> {
    let may = call.caller.may_list(&call.endpoint.name).is_ok();
    may.then_some(&call.caller.tenant)
}

fn unknown(call: &NativeCall) -> NativeError {
    Error::Unavailable {
        reason: format!(
            "no instance of the endpoint '{}' has told yet what it can do; it does when the first one starts",
            call.endpoint.name
        ),
        retry_after: std::time::Duration::from_secs(2),
    }
    .into()
}

fn answer(text: &InfoText, request: &HeaderMap) -> Response {
    let gzip = takes_gzip(request);
    // Two forms of one text are two entities.
    let etag = match gzip {
        true => format!("{}-gz\"", text.etag.trim_end_matches('"')),
        false => text.etag.clone(),
    };
    let mut response = match has(request, &etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false if gzip => {
            let mut response = text.gzip.clone().into_response();
            set(&mut response, header::CONTENT_ENCODING, "gzip");
            response
        }
        false => text.json.clone().into_response(),
    };
    set(
        &mut response,
        header::CONTENT_TYPE,
        "application/json; charset=utf-8",
    );
    set(&mut response, header::ETAG, &etag);
    set(&mut response, header::CACHE_CONTROL, "private, no-cache");
    set(&mut response, header::VARY, "accept-encoding");
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// `gzip` or `*`, unless its weight is zero.
fn takes_gzip(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|one| {
            let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
            let refused = weight
                .trim()
                .strip_prefix("q=")
                .and_then(|q| q.parse::<f32>().ok())
                .is_some_and(|q| q <= 0.0);
            ["gzip", "*"].contains(&coding.trim()) && !refused
        })
}

fn has(request: &HeaderMap, etag: &str) -> bool {
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|one| matches!(one.trim().trim_start_matches("W/"), one if one == etag || one == "*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_given_to_who_takes_it() {
        for (accepts, gzip) in [
            ("gzip, deflate, br", true),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepts.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), gzip, "{accepts}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        let text = InfoText {
            json: "{}".into(),
            gzip: "zipped".into(),
            etag: "\"abc\"".to_owned(),
        };
        let ask = |known: &str| {
            let headers = HeaderMap::from_iter([
                (header::IF_NONE_MATCH, known.parse().unwrap()),
                (header::ACCEPT_ENCODING, "gzip".parse().unwrap()),
            ]);
            answer(&text, &headers).status()
        };
        assert_eq!(ask("\"abc-gz\""), StatusCode::NOT_MODIFIED);
        assert_eq!(ask("W/\"x\", W/\"abc-gz\""), StatusCode::NOT_MODIFIED);
        assert_eq!(ask("\"abc\""), StatusCode::OK);
    }
}

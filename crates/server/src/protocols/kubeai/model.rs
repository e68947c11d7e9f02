//! Where a request says which endpoint it is for: a header, the query, the form field or the JSON body, also that of a GET.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::error::Refused;
use crate::{
    beside::beside,
    http::read_body,
    memory::{BodyMemory, Held},
    service::uploads::MAX_UPLOAD_BYTES,
};

/// Largest body that is looked into: an upload with the fields beside it.
const MAX_BYTES: usize = MAX_UPLOAD_BYTES as usize + (1 << 20);
/// Longest name in a form, in bytes.
const MAX_NAME_BYTES: usize = 400;

/// `X-Model`.
pub fn of_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-model")?.to_str().ok()?;
    Some(value.to_owned())
}

/// `?model=`.
pub fn of_query(query: Option<&str>) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query?.as_bytes());
    pairs
        .find(|(key, _)| key == "model")
        .map(|(_, value)| value.into_owned())
}

/// Reads the body for it; with it come the body as it was, and its memory. Whatever is no form is read as JSON, whatever
/// its type says.
///
/// # Errors
/// When it cannot be read, or names none.
pub async fn of_body(
    headers: &HeaderMap,
    body: Body,
    memory: &BodyMemory,
) -> Result<(String, Body, Held), Refused> {
    let (bytes, held) = read_body(headers, body, MAX_BYTES, memory).await?;
    let content_type = headers.get(header::CONTENT_TYPE);
    let boundary = content_type.and_then(|value| multer::parse_boundary(value.to_str().ok()?).ok());
    let model = match boundary {
        Some(boundary) => of_form(bytes.clone(), boundary).await?,
        None => {
            let json = bytes.clone();
            beside(json.len(), move || of_json(&json)).await?
        }
    };
    Ok((model, Body::from(bytes), held))
}

#[derive(Deserialize)]
struct Named {
    model: Option<Value>,
}

fn of_json(body: &[u8]) -> Result<String, Refused> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(none());
    }
    let named: Named = serde_json::from_slice(body)
        .map_err(|error| refused(format!("the body is not JSON with a `model`: {error}")))?;
    match named.model {
        Some(Value::String(model)) => Ok(model),
        None | Some(Value::Null) => Err(none()),
        Some(_) => Err(refused("`model` in the body is no text".to_owned())),
    }
}

async fn of_form(body: Bytes, boundary: String) -> Result<String, Refused> {
    let broken = |error: multer::Error| refused(format!("the form cannot be read: {error}"));
    let stream = futures::stream::iter([Ok::<_, std::io::Error>(body)]);
    let mut form = multer::Multipart::new(stream, boundary);
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("model") {
            continue;
        }
        let text = field.text().await.map_err(broken)?;
        return match text.len() <= MAX_NAME_BYTES {
            true => Ok(text),
            false => Err(refused("the form's field `model` is too long".to_owned())),
        };
    }
    Err(none())
}

fn none() -> Refused {
    refused(
        "the request names no model: give `model` in the JSON body, as a field of the form, as the header X-Model, or in \
         the query"
            .to_owned(),
    )
}

fn refused(text: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    async fn named(content_type: &'static str, body: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let memory = BodyMemory::new(1 << 24);
        let (model, after, _held) = of_body(&headers, Body::from(body), &memory).await.ok()?;
        let after = axum::body::to_bytes(after, usize::MAX).await.unwrap();
        assert_eq!(after, body.as_bytes(), "it goes on as it came");
        Some(model)
    }

    #[tokio::test]
    async fn a_body_of_any_type_names_its_model() {
        let json = r#"{"prompt": {"3": {"inputs": {"seed": 18446744073709551615}}}, "model": "sdxl"}"#;
        for content_type in [
            "application/json",
            "application/x-www-form-urlencoded",
            "text/plain",
        ] {
            assert_eq!(named(content_type, json).await.as_deref(), Some("sdxl"));
        }
        let form = "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n{\"model\":\"no\"}\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nsdxl\r\n--b--\r\n";
        assert_eq!(
            named("multipart/form-data; boundary=b", form).await.as_deref(),
            Some("sdxl")
        );
        for body in [
            "",
            " ",
            "{}",
            "[]",
            "{",
            "{\"model\": 3}",
            "{\"model\": null}",
            "model=sdxl",
        ] {
            assert_eq!(named("application/json", body).await, None, "{body}");
        }
        let without = "--b\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nx\r\n--b--\r\n";
        for body in [without, "--b\r\nbroken", ""] {
            assert_eq!(
                named("multipart/form-data; boundary=b", body).await,
                None,
                "{body}"
            );
        }
        assert_eq!(of_query(Some("a=1&model=my%20one")).as_deref(), Some("my one"));
        assert_eq!(of_query(Some("models=x")), None);
    }
}

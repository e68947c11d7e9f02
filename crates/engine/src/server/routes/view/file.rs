//! A file over HTTP: ranges, and answers that spare the bytes.

use std::{fs::Metadata, io::SeekFrom, path::Path};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// Bytes read from the file at a time.
const CHUNK: usize = 64 << 10;

/// Serves the file, or the part of it that `Range` asks for, or 304 where the client has it.
pub async fn serve(path: &Path, disposition: HeaderValue, request: &HeaderMap) -> Response {
    let Ok(mut file) = tokio::fs::File::open(path).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(meta) = file.metadata().await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let modified = modified(&meta);
    let etag = format!("\"{:x}-{:x}\"", modified.as_nanosecond(), meta.len());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, value);
    }
    if let Ok(date) = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&modified)
        && let Ok(value) = HeaderValue::from_str(&date)
    {
        headers.insert(header::LAST_MODIFIED, value);
    }
    if is_fresh(request, &etag, modified) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let (status, start, length) = match range(request, &etag, meta.len()) {
        Range::Whole => (StatusCode::OK, 0, meta.len()),
        Range::Part(start, end) => {
            content_range(&mut headers, &format!("bytes {start}-{}/{}", end - 1, meta.len()));
            (StatusCode::PARTIAL_CONTENT, start, end - start)
        }
        Range::Outside => {
            content_range(&mut headers, &format!("bytes */{}", meta.len()));
            return (StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response();
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if start > 0 && file.seek(SeekFrom::Start(start)).await.is_err() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK));
    (status, headers, body).into_response()
}

fn content_range(headers: &mut HeaderMap, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(header::CONTENT_RANGE, value);
    }
}

fn modified(meta: &Metadata) -> Timestamp {
    meta.modified()
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok())
        .unwrap_or_default()
}

fn is_fresh(request: &HeaderMap, etag: &str, modified: Timestamp) -> bool {
    let text = |name| {
        request
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if let Some(known) = text(header::IF_NONE_MATCH) {
        return known
            .split(',')
            .any(|tag| matches!(tag.trim().trim_start_matches("W/"), tag if tag == etag || tag == "*"));
    }
    let since = text(header::IF_MODIFIED_SINCE).and_then(|date| rfc2822::parse(date).ok());
    since.is_some_and(|since| modified.as_second() <= since.timestamp().as_second())
}

#[derive(Debug, PartialEq)]
enum Range {
    Whole,
    /// From, and up to but not including.
    Part(u64, u64),
    Outside,
}

/// One range of bytes; several, or one that is not understood, give the whole file.
fn range(request: &HeaderMap, etag: &str, length: u64) -> Range {
    let text = |name| {
        request
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if text(header::IF_RANGE).is_some_and(|known| known != etag) {
        return Range::Whole;
    }
    let Some(spec) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Range::Whole;
    };
    let Some((from, to)) = spec.split_once('-') else {
        return Range::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => (from, to.saturating_add(1).min(length)),
        (Some(from), None) if to.trim().is_empty() => (from, length),
        (None, Some(last)) if from.trim().is_empty() => (length.saturating_sub(last), length),
        _ => return Range::Whole,
    };
    if start < end {
        Range::Part(start, end)
    } else {
        Range::Outside
    }
}

/// By the name's ending. What a browser would run is not named for what it is.
fn content_type(path: &Path) -> &'static str {
    let extension = path
        .extension()
        .map(|e| e.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    match extension.as_str() {
        "png" | "apng" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        "avif" => "image/avif",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        "mp3" => "audio/mpeg",
        "wav" => "audio/x-wav",
        "flac" => "audio/flac",
        "ogg" => "audio/ogg",
        "opus" => "audio/opus",
        "glb" => "model/gltf-binary",
        "txt" => "text/plain",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (spec, range_is) in [
            ("bytes=0-9", Range::Part(0, 10)),
            ("bytes=90-", Range::Part(90, 100)),
            ("bytes=-5", Range::Part(95, 100)),
            ("bytes=0-999", Range::Part(0, 100)),
            ("bytes=100-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-1", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("bytes=0-18446744073709551615", Range::Part(0, 100)),
        ] {
            let headers = HeaderMap::from_iter([(header::RANGE, spec.parse().unwrap())]);
            assert_eq!(range(&headers, "\"x\"", 100), range_is, "{spec}");
        }
    }

    #[test]
    fn pages_and_scripts_are_not_served_as_such() {
        for name in ["x.html", "x.js", "x.css", "x.svg", "x.xhtml", "x"] {
            assert_eq!(content_type(Path::new(name)), "application/octet-stream");
        }
    }
}

//! What kind of file a blob is, and whether a browser may show it. Pure.
//!
//! Outputs come from whatever nodes a user installed, and are served from our own origin, where a page could use the
//! operator's cookie: so a file is shown only as what its bytes are, and what can run scripts is always downloaded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// For everything we do not know.
pub const UNKNOWN: &str = "application/octet-stream";

/// How many first bytes [`of`] looks at.
pub const HEAD_BYTES: usize = 64;

/// The media type of a file, from its name and its first [`HEAD_BYTES`] (fewer if it is shorter, none if they are not
/// at hand: then the name alone decides). A name that promises a format which the bytes are not gives [`UNKNOWN`].
pub fn of(file_name: &str, head: &[u8]) -> &'static str {
    let extension = extension(file_name);
    let by_name = by_extension(&extension);
    if head.is_empty() {
        return by_name.unwrap_or(UNKNOWN);
    }
    match by_magic(&extension, head) {
        Some(by_magic) => by_magic,
        None => by_name.filter(|name| !has_magic(name)).unwrap_or(UNKNOWN),
    }
}

/// Whether a browser could run scripts found in a file of this type, when shown from our origin.
pub fn is_active(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    ["html", "xml", "javascript", "ecmascript", "svg", "pdf"]
        .iter()
        .any(|part| essence.contains(part))
}

/// The media type that a file is sent with: pages, scripts and style sheets are bytes to a browser, since a page of our
/// own origin could otherwise load them as its own (`comfyui/behaviour.md` §10 does the same).
pub fn as_sent(content_type: &str) -> &str {
    let loadable = ["html", "javascript", "ecmascript", "css"];
    match loadable.iter().any(|part| content_type.contains(part)) {
        true => UNKNOWN,
        false => content_type,
    }
}

/// The `Content-Disposition` for a file: shown in the browser, unless [`is_active`].
pub fn disposition(content_type: &str, file_name: &str) -> String {
    let kind = if is_active(content_type) {
        "attachment"
    } else {
        "inline"
    };
    // RFC 6266: the plain form for old programs, the extended one (RFC 8187) with the true name.
    let plain: String = file_name
        .chars()
        .map(|c| match c {
            '"' | '\\' | '%' => '_',
            c if c.is_ascii_graphic() || c == ' ' => c,
            _ => '_',
        })
        .collect();
    if plain == file_name {
        return format!("{kind}; filename=\"{plain}\"");
    }
    let extended = utf8_percent_encode(file_name, NOT_ATTR_CHAR);
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{extended}")
}

/// All but `attr-char` of RFC 8187.
const NOT_ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

fn extension(file_name: &str) -> String {
    match file_name.rsplit_once('.') {
        Some((_, extension)) if extension.len() <= 12 => extension.to_ascii_lowercase(),
        _ => String::new(),
    }
}

fn by_extension(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "png" | "apng" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        "svg" => "image/svg+xml",
        "mp4" | "m4v" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "flac" => "audio/flac",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "ogv" => "video/ogg",
        "glb" => "model/gltf-binary",
        "gltf" => "model/gltf+json",
        "json" => "application/json",
        "txt" | "log" | "md" | "csv" | "srt" | "yaml" | "yml" => "text/plain; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "xhtml" => "application/xhtml+xml",
        "xml" => "application/xml",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        _ => return None,
    })
}

/// Whether files of a type always begin with bytes that [`by_magic`] knows.
fn has_magic(content_type: &str) -> bool {
    let binary = ["image/", "video/", "audio/"]
        .iter()
        .any(|family| content_type.starts_with(family));
    (binary && content_type != "image/svg+xml")
        || matches!(
            content_type,
            "model/gltf-binary" | "application/pdf" | "application/zip"
        )
}

fn by_magic(extension: &str, head: &[u8]) -> Option<&'static str> {
    let at = |from: usize, magic: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(magic));
    if at(0, b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if at(0, b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if at(0, b"GIF87a") || at(0, b"GIF89a") {
        Some("image/gif")
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        Some("image/webp")
    } else if at(0, b"RIFF") && at(8, b"WAVE") {
        Some("audio/wav")
    } else if at(4, b"ftyp") {
        Some(by_brand(extension, head.get(8..12).unwrap_or_default()))
    } else if at(0, b"\x1a\x45\xdf\xa3") {
        // Matroska and WebM differ only in the name of the document type.
        let webm = head.windows(4).take(HEAD_BYTES).any(|window| window == b"webm");
        Some(if webm { "video/webm" } else { "video/x-matroska" })
    } else if at(0, b"OggS") {
        Some(if extension == "ogv" {
            "video/ogg"
        } else {
            "audio/ogg"
        })
    } else if at(0, b"fLaC") {
        Some("audio/flac")
    } else if at(0, b"ID3")
        || (extension == "mp3" && head[0] == 0xff && head.get(1).is_some_and(|b| b & 0xe0 == 0xe0))
    {
        Some("audio/mpeg")
    } else if at(0, b"glTF") {
        Some("model/gltf-binary")
    } else if at(0, b"II*\0") || at(0, b"MM\0*") {
        Some("image/tiff")
    } else if at(0, b"BM") && extension == "bmp" {
        Some("image/bmp")
    } else if at(0, b"%PDF-") {
        Some("application/pdf")
    } else if at(0, b"PK\x03\x04") {
        Some("application/zip")
    } else {
        None
    }
}

/// What an ISO base media file is, by its major brand.
fn by_brand(extension: &str, brand: &[u8]) -> &'static str {
    match brand {
        b"avif" | b"avis" => "image/avif",
        b"heic" | b"heix" | b"mif1" => "image/heic",
        b"qt  " => "video/quicktime",
        b"M4A " => "audio/mp4",
        _ if extension == "m4a" => "audio/mp4",
        _ => "video/mp4",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    #[test]
    fn the_bytes_decide() {
        for (name, head, want) in [
            ("a.png", PNG, "image/png"),
            ("a.jpg", PNG, "image/png"),
            ("a", PNG, "image/png"),
            ("a.html", PNG, "image/png"),
            ("A.JPG", b"\xff\xd8\xff\xe0", "image/jpeg"),
            ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
            ("a.gif", b"GIF89a", "image/gif"),
            ("a.wav", b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav"),
            ("a.mp4", b"\0\0\0\x20ftypisom", "video/mp4"),
            ("a.mov", b"\0\0\0\x14ftypqt  ", "video/quicktime"),
            ("a.avif", b"\0\0\0\x1cftypavif", "image/avif"),
            (
                "a.webm",
                b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm",
                "video/webm",
            ),
            (
                "a.mkv",
                b"\x1a\x45\xdf\xa3\x9f\x42\x82\x88matroska",
                "video/x-matroska",
            ),
            ("a.mp3", b"ID3\x04", "audio/mpeg"),
            ("a.mp3", b"\xff\xfb\x90", "audio/mpeg"),
            ("a.flac", b"fLaC\0", "audio/flac"),
            ("a.ogg", b"OggS\0", "audio/ogg"),
            ("a.glb", b"glTF\x02", "model/gltf-binary"),
            ("a.json", b"{\"a\":1}", "application/json"),
            ("图.txt", "图像".as_bytes(), "text/plain; charset=utf-8"),
            ("a.html", b"<!doctype html>", "text/html; charset=utf-8"),
            ("a.svg", b"<svg xmlns", "image/svg+xml"),
            ("ComfyUI_00001_.latent", b"\x40\0\0\0\0\0\0\0{\"", UNKNOWN),
            ("a.safetensors", b"\x40\0\0\0\0\0\0\0{\"", UNKNOWN),
            ("a", b"hello", UNKNOWN),
            (".png", b"x", UNKNOWN),
        ] {
            assert_eq!(of(name, head), want, "{name} {head:?}");
        }
    }

    #[test]
    fn a_page_that_is_called_a_picture_is_not_shown_as_one() {
        for name in ["a.png", "a.mp4", "a.glb", "a.mp3", "a.pdf"] {
            assert_eq!(of(name, b"<script>alert(1)</script>"), UNKNOWN, "{name}");
        }
    }

    #[test]
    fn without_bytes_the_name_decides() {
        assert_eq!(of("a.PNG", b""), "image/png");
        assert_eq!(of("a.b.webm", b""), "video/webm");
        assert_eq!(of("a", b""), UNKNOWN);
    }

    #[test]
    fn what_can_run_scripts_is_downloaded() {
        for name in [
            "a.html", "a.htm", "a.svg", "a.js", "a.mjs", "a.xml", "a.xhtml", "a.pdf",
        ] {
            let disposition = disposition(of(name, b""), name);
            assert_eq!(disposition, format!("attachment; filename=\"{name}\""));
        }
        assert!(is_active("TEXT/HTML ;charset=utf-8"));
        for name in ["a.png", "a.mp4", "a.txt", "a.json", "a.latent"] {
            assert!(disposition(of(name, b""), name).starts_with("inline; "), "{name}");
        }
    }

    #[test]
    fn what_a_page_could_load_as_its_own_is_sent_as_bytes() {
        for name in ["a.html", "a.xhtml", "a.js", "a.mjs", "a.css"] {
            assert_eq!(as_sent(of(name, b"")), UNKNOWN, "{name}");
        }
        for name in ["a.png", "a.svg", "a.txt", "a.json", "a.mp4"] {
            assert_eq!(as_sent(of(name, b"")), of(name, b""), "{name}");
        }
    }

    #[test]
    fn names_in_any_language_are_kept() {
        assert_eq!(
            disposition("image/png", "图 \"1\".png"),
            "inline; filename=\"_ _1_.png\"; filename*=UTF-8''%E5%9B%BE%20%221%22.png"
        );
    }

    proptest! {
        #[test]
        fn a_disposition_is_one_safe_header(name in "(.|\r|\n|\"|\\\\){0,60}") {
            let header = disposition("image/png", &name);
            prop_assert!(header.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
            prop_assert_eq!(header.matches('"').count(), 2);
            prop_assert!(!header.contains('\\'));
        }

        #[test]
        fn no_bytes_upset_it(name in ".{0,20}", head in proptest::collection::vec(any::<u8>(), 0..70)) {
            of(&name, &head);
        }
    }
}

//! The form that takes a key.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::header;

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    next: &'a str,
    problem: &'a str,
}

/// The form; `next` is where a good key leads, `problem` is shown when not empty.
pub fn render(next: &str, problem: &str) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    (
        [(header::CONTENT_SECURITY_POLICY, policy)],
        Html(html(next, problem)),
    )
        .into_response()
}

fn html(next: &str, problem: &str) -> String {
    let page = Login { next, problem };
    page.render().expect("rendering into a text cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_visitor_sent_is_escaped() {
        let page = html("/\"><script>", "");
        assert!(!page.contains("<script>"), "{page}");
    }
}

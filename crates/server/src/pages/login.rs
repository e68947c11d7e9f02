//! The form that takes a key.

use askama::Template;
use axum::response::Html;

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    next: &'a str,
    problem: &'a str,
}

/// The form; `next` is where a good key leads, `problem` is shown when not empty.
pub fn render(next: &str, problem: &str) -> Html<String> {
    Html(
        Login { next, problem }
            .render()
            .expect("rendering into a text cannot fail"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_visitor_sent_is_escaped() {
        let page = render("/\"><script>", "").0;
        assert!(!page.contains("<script>"), "{page}");
    }
}

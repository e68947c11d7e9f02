//! Lists that are told page by page.

use serde::Deserialize;

/// Entries of a page that does not say how many.
const USUAL: u32 = 100;
/// Entries of the largest page.
const MOST: u32 = 1000;

/// The part of a query that says which page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PageParams {
    limit: Option<u32>,
    after: Option<String>,
}

impl PageParams {
    /// How many entries.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }

    /// The `next` of the page before.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref().filter(|after| !after.is_empty())
    }

    /// What the page after this one is asked for with; `None` where this is the last.
    pub fn next<T, N>(&self, page: &[T], name: impl Fn(&T) -> N) -> Option<N> {
        page.last()
            .filter(|_| page.len() >= self.limit() as usize)
            .map(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_has_a_next_one() {
        let page = |limit| PageParams { limit, after: None };
        assert_eq!(
            (
                page(None).limit(),
                page(Some(0)).limit(),
                page(Some(9999)).limit()
            ),
            (100, 1, 1000)
        );
        assert_eq!(page(Some(2)).next(&[1, 2], |n| *n), Some(2));
        assert_eq!(page(Some(3)).next(&[1, 2], |n| *n), None);
        assert_eq!(page(Some(1)).next(&[] as &[u8], |n| *n), None);
    }
}

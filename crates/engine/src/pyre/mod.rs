//! Python's `re`: its syntax, its Unicode classes, its way of finding match after match, its replacement templates.
//!
//! A pattern is read by Python 3.11's rules ([`parse`]), so what Python refuses is refused here, and is then written for
//! the `fancy-regex` crate ([`emit`]), which does the matching. What differs from Python, all of it on purpose:
//!
//! - a match that takes more than [`BACKTRACK_LIMIT`] steps back, or a pattern that grows too large, is an error
//!   instead of hours of work;
//! - `\N{name}` and `(?L)` are not supported and say so;
//! - `(?a)` together with `(?i)` still folds letters outside ASCII;
//! - what a look-behind with a back reference in it accepts is up to the crate.

mod ast;
mod emit;
mod escape;
mod parse;
mod set;
mod template;

use fancy_regex::{Regex as Engine, RegexBuilder};

pub use template::Template;

/// Steps back in one search before it is given up.
pub const BACKTRACK_LIMIT: usize = 1_000_000;
/// Bytes that a compiled part of a pattern may take, and instructions of the rest.
const SIZE_LIMIT: usize = 10 << 20;
const PROGRAM_LIMIT: usize = 200_000;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Python raises `re.error` too.
    #[error("{message} at position {position}")]
    Syntax {
        /// Python's words.
        message: String,
        /// Code points before the place.
        position: usize,
    },
    /// Python raises `re.error` too, and says no place.
    #[error("look-behind requires fixed-width pattern")]
    LookBehind,
    /// A template names a group that does not exist; Python raises `IndexError`.
    #[error("unknown group name {0:?}")]
    UnknownGroup(String),
    /// Python would go on here.
    #[error("{0}")]
    Limit(String),
}

/// `re.IGNORECASE`, `re.MULTILINE`, `re.DOTALL`, and those that only a pattern sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Letters match in either case.
    pub ignore_case: bool,
    /// `^` and `$` match at every line.
    pub multiline: bool,
    /// `.` matches a line feed too.
    pub dot_all: bool,
    /// White space and comments in the pattern mean nothing.
    pub verbose: bool,
    /// `\w`, `\d`, `\s` and `\b` know only ASCII.
    pub ascii: bool,
}

/// A compiled pattern.
pub struct Regex {
    engine: Engine,
    /// The same pattern, but its end is not where the search began: Python looks again where an empty match was.
    advancing: Engine,
    /// Names of groups and their numbers.
    names: Vec<(String, usize)>,
}

/// Where the groups of one match are: byte ranges; the first is the whole match.
pub type Groups = Vec<Option<std::ops::Range<usize>>>;

impl Error {
    /// Whether Python raises `re.error` for it.
    pub fn is_python_s(&self) -> bool {
        matches!(self, Error::Syntax { .. } | Error::LookBehind)
    }
}

impl Regex {
    /// `re.compile`
    pub fn new(pattern: &str, flags: Flags) -> Result<Regex, Error> {
        let parsed = parse::parse(pattern, flags)?;
        let text = emit::pattern(&parsed.root)?;
        let build = |text: &str| {
            RegexBuilder::new(text)
                .backtrack_limit(BACKTRACK_LIMIT)
                .delegate_size_limit(SIZE_LIMIT)
                .max_prog_size(PROGRAM_LIMIT)
                .build()
                .map_err(|error| Error::Limit(format!("the pattern is not supported: {error}")))
        };
        Ok(Regex {
            engine: build(&text)?,
            advancing: build(&format!(r"(?:{text})(?!\G)"))?,
            names: parsed.names,
        })
    }

    /// How many groups the pattern has, without the whole match.
    pub fn groups(&self) -> usize {
        self.engine.captures_len() - 1
    }

    /// `re.search`
    pub fn search(&self, text: &str) -> Result<Option<Groups>, Error> {
        find(&self.engine, text, 0)
    }

    /// `re.finditer`: empty matches too, also right behind another match.
    pub fn find_all(&self, text: &str, limit: usize) -> Result<Vec<Groups>, Error> {
        let (mut found, mut at, mut empty) = (Vec::new(), 0, false);
        while found.len() < limit {
            let engine = if empty { &self.advancing } else { &self.engine };
            let Some(groups) = find(engine, text, at)? else {
                break;
            };
            let whole = groups[0].clone().expect("a match has a whole");
            empty = whole.is_empty();
            at = whole.end;
            found.push(groups);
        }
        Ok(found)
    }

    /// `re.sub`; a `count` of 0 replaces all. `None` when the result would be longer than `max` bytes.
    pub fn replace(
        &self,
        template: &Template,
        text: &str,
        count: usize,
        max: usize,
    ) -> Result<Option<String>, Error> {
        let limit = if count == 0 { usize::MAX } else { count };
        let (mut out, mut at) = (String::new(), 0);
        for groups in self.find_all(text, limit)? {
            let whole = groups[0].clone().expect("a match has a whole");
            out.push_str(&text[at..whole.start]);
            template.expand(&groups, text, &mut out);
            at = whole.end;
            if out.len() > max {
                return Ok(None);
            }
        }
        out.push_str(&text[at..]);
        Ok((out.len() <= max).then_some(out))
    }
}

fn find(engine: &Engine, text: &str, at: usize) -> Result<Option<Groups>, Error> {
    let captures = engine
        .captures_from_pos(text, at)
        .map_err(|error| Error::Limit(format!("the search was given up: {error}")))?;
    Ok(captures.map(|captures| captures.iter().map(|group| group.map(|m| m.range())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pattern: &str, text: &str) -> Vec<String> {
        let regex = Regex::new(pattern, Flags::default()).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        let found = regex.find_all(text, usize::MAX).unwrap();
        found
            .iter()
            .map(|groups| text[groups[0].clone().unwrap()].to_owned())
            .collect()
    }

    fn sub(pattern: &str, template: &str, text: &str) -> String {
        let regex = Regex::new(pattern, Flags::default()).unwrap();
        let template = Template::new(template, &regex).unwrap();
        regex.replace(&template, text, 0, usize::MAX).unwrap().unwrap()
    }

    /// Each line is what Python 3.11.7 gives.
    #[test]
    fn matches_are_python_s() {
        for (pattern, text, wanted) in [
            (r"\d+", "a1 ٣٤", vec!["1", "٣٤"]),
            (r"\w+", "naïve_e\u{301} ½", vec!["naïve_e", "½"]),
            (r"a$", "a\n", vec!["a"]),
            (r"a\Z", "a\n", vec![]),
            (r"(?m)^.$", "a\nb\n", vec!["a", "b"]),
            (r"(?s)a.b", "a\nb", vec!["a\nb"]),
            (r"a.b", "a\nb", vec![]),
            (r"(?<=a)b(?!c)", "ab abc", vec!["b"]),
            (r"(?i)straße", "STRAẞE", vec!["STRAẞE"]),
            (r"(?i)i", "İı", vec!["İ", "ı"]),
            (r"(\w)\1", "aabbc", vec!["aa", "bb"]),
            (r"(?P<q>['x]).*?(?P=q)", "'a' xbx", vec!["'a'", "xbx"]),
            (r"(a)?b(?(1)c|d)", "abc bd abd", vec!["abc", "bd", "bd"]),
            (r"a{,2}", "aaa", vec!["aa", "a", ""]),
            (r"a{2", "a{2", vec!["a{2"]),
            (r"x{,}", "xx", vec!["xx", ""]),
            (r"a*+a", "aaa", vec![]),
            (r"(?>a+)b", "aab", vec!["aab"]),
            (r"[]a]", "]a", vec!["]", "a"]),
            (r"[[a]+", "[a", vec!["[a"]),
            (r"[a&&b]", "&", vec!["&"]),
            (r"[\]\-x]", "]-x", vec!["]", "-", "x"]),
            (r"[^\W\d]", "a1_", vec!["a", "_"]),
            (r"\bword\b", "a word.", vec!["word"]),
            (r"\B", "", vec![]),
            (r"\B", "ab", vec![""]),
            (r"|a", "aa", vec!["", "a", "", "a", ""]),
            (r"a|", "ba", vec!["", "a", ""]),
            (r"(?x) a  b # comment", "ab", vec!["ab"]),
            (r"(?i:a)b", "Ab AB", vec!["Ab"]),
            ("(?i)a(?-i:b)", "Ab AB", vec!["Ab"]),
            (r"\x41\u0042\103", "ABC", vec!["ABC"]),
            (r"(?a)\w+", "naïve", vec!["na", "ve"]),
            (r"\s", "\u{1c} ", vec!["\u{1c}", " "]),
            (r"a(?#note)b", "ab", vec!["ab"]),
            (r".", "😀é", vec!["😀", "é"]),
            (r"$", "a\n", vec!["", ""]),
        ] {
            assert_eq!(all(pattern, text), wanted, "{pattern} in {text:?}");
        }
    }

    #[test]
    fn replacements_are_python_s() {
        for (pattern, template, text, wanted) in [
            ("x*", "-", "abxd", "-a-b--d-"),
            (r"(\w+) (\w+)", r"\2 \g<1>", "hello world", "world hello"),
            (r"(?P<n>a)", r"[\g<n>]", "aa", "[a][a]"),
            ("b", "$1", "abc", "a$1c"),
            ("b", r"\n", "abc", "a\nc"),
            (r"(a)|(b)", r"<\1\2>", "ab", "<a><b>"),
            ("b", r"\g<0>\g<0>", "abc", "abbc"),
            ("", "-", "ab", "-a-b-"),
            ("b", r"\101", "abc", "aAc"),
        ] {
            assert_eq!(sub(pattern, template, text), wanted, "{pattern} {template}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused_in_its_words() {
        for (pattern, wanted) in [
            ("(", "missing ), unterminated subpattern at position 0"),
            (")", "unbalanced parenthesis at position 0"),
            ("[a", "unterminated character set at position 0"),
            ("*a", "nothing to repeat at position 0"),
            ("a**", "multiple repeat at position 2"),
            ("^*", "nothing to repeat at position 1"),
            ("a{3,2}", "min repeat greater than max repeat at position 2"),
            (r"\q", r"bad escape \q at position 0"),
            ("\\", "bad escape (end of pattern) at position 0"),
            (r"\1", "invalid group reference 1 at position 1"),
            (r"(a\1)", "cannot refer to an open group at position 2"),
            ("(?P=x)", "unknown group name 'x' at position 4"),
            ("(?<n>a)", "unknown extension ?<n at position 1"),
            ("(?<=a+)b", "look-behind requires fixed-width pattern"),
            ("[z-a]", "bad character range z-a at position 1"),
            (r"[\d-z]", r"bad character range \d-z at position 1"),
            (
                "a(?i)b",
                "global flags not at the start of the expression at position 1",
            ),
            (r"\p{L}", r"bad escape \p at position 0"),
            ("(?P<1>a)", "bad character in group name '1' at position 4"),
            (
                "(?P<a>x)(?P<a>y)",
                "redefinition of group name 'a' as group 2; was group 1 at position 12",
            ),
        ] {
            let error = Regex::new(pattern, Flags::default()).err().map(|e| e.to_string());
            assert_eq!(error.as_deref(), Some(wanted), "{pattern}");
        }
    }

    #[test]
    fn endless_backtracking_is_an_error_and_not_a_hang() {
        let regex = Regex::new(r"(?=(a+)+$)(a|aa)+\1b", Flags::default()).unwrap();
        let text = "a".repeat(40) + "c";
        assert!(matches!(regex.search(&text), Err(Error::Limit(_)) | Ok(None)));
        let large = Regex::new("((a{1,1000}){1,1000}){1,1000}", Flags::default());
        assert!(matches!(large.err(), Some(Error::Limit(_))));
        let deep = "(".repeat(100_000);
        assert!(Regex::new(&deep, Flags::default()).is_err());
    }
}

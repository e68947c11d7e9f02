//! Every path that a source file mentions, resolved: `super::super::control::wake` in `protocols/fc/run.rs` is
//! `crate::control::wake`. Reads Rust as far as that takes: comments, literals, `use` trees, and inline modules.

/// A mentioned path and the line it begins on, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// `crate::…` for what is inside the crate as far as the path says so, else as written.
    pub path: String,
    /// Where.
    pub line: usize,
}

/// All paths of a file. `file` is relative to the crate's `src`, with `/`.
pub fn mentions(file: &str, source: &str) -> Vec<Mention> {
    let mut reader = Reader {
        tokens: tokens(source),
        module: module_of(file),
        inner: Vec::new(),
        depth: 0,
        found: Vec::new(),
    };
    reader.read();
    reader.found
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    Joint,
    Mark(char),
}

type Token = (Kind, usize);

struct Reader {
    tokens: Vec<Token>,
    /// The file's module.
    module: Vec<String>,
    /// Modules inside the file that are open here, and the depth of braces they were opened at.
    inner: Vec<(String, usize)>,
    depth: usize,
    found: Vec<Mention>,
}

impl Reader {
    fn read(&mut self) {
        let mut at = 0;
        while let Some((kind, _)) = self.tokens.get(at) {
            at = match kind {
                Kind::Word(word) if word == "mod" && self.opens_module(at) => {
                    self.inner.push((self.word(at + 1), self.depth));
                    self.depth += 1;
                    at + 3
                }
                Kind::Word(word) if word == "use" => self.tree(at + 1, &[], true),
                // What follows a dot is a method's name.
                Kind::Word(_) if at == 0 || !self.is_mark(at - 1, '.') => self.tree(at, &[], false),
                Kind::Mark('{') => {
                    self.depth += 1;
                    at + 1
                }
                Kind::Mark('}') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inner.pop_if(|(_, opened)| *opened == self.depth);
                    at + 1
                }
                Kind::Word(_) | Kind::Joint | Kind::Mark(_) => at + 1,
            };
        }
    }

    /// Reads one path or `use` tree; returns where to go on. Outside of `use` a single word is a variable.
    fn tree(&mut self, start: usize, prefix: &[String], is_use: bool) -> usize {
        let line = self.tokens.get(start).map_or(0, |(_, line)| *line);
        let mut path = prefix.to_vec();
        let mut at = start;
        loop {
            match self.tokens.get(at).map(|(kind, _)| kind) {
                Some(Kind::Joint) => at += 1,
                Some(Kind::Word(word)) => {
                    path.push(word.clone());
                    at += 1;
                    if !self.is_joint(at) {
                        break;
                    }
                }
                Some(Kind::Mark('*')) if is_use || at > start => {
                    path.push("*".to_owned());
                    at += 1;
                    break;
                }
                Some(Kind::Mark('{')) if is_use => {
                    at += 1;
                    while at < self.tokens.len() && !self.is_mark(at, '}') {
                        let next = self.tree(at, &path, true);
                        // A comma, or something this does not know.
                        at = if self.is_mark(next, '}') {
                            next
                        } else {
                            next.max(at) + 1
                        };
                    }
                    return at + 1;
                }
                _ => break,
            }
        }
        if is_use
            && self
                .tokens
                .get(at)
                .is_some_and(|(kind, _)| *kind == Kind::Word("as".to_owned()))
        {
            at += 2;
        }
        if is_use || path.len() > 1 {
            let path = self.resolve(path).join("::");
            self.found.push(Mention { path, line });
        }
        at.max(start + 1)
    }

    fn resolve(&self, mut path: Vec<String>) -> Vec<String> {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let inner = self.inner.iter().map(|(name, _)| name.clone());
        let mut module: Vec<String> = self.module.iter().cloned().chain(inner).collect();
        let mut rest = path.as_slice();
        match rest.first().map(String::as_str) {
            Some("self" | "super") => {
                while let [first, tail @ ..] = rest {
                    match first.as_str() {
                        "self" => {}
                        "super" => drop(module.pop()),
                        _ => break,
                    }
                    rest = tail;
                }
            }
            Some("crate") => {
                module.clear();
                rest = &rest[1..];
            }
            _ => return path,
        }
        let mut resolved = vec!["crate".to_owned()];
        resolved.extend(module);
        resolved.extend_from_slice(rest);
        resolved
    }

    fn opens_module(&self, at: usize) -> bool {
        matches!(self.tokens.get(at + 1), Some((Kind::Word(_), _))) && self.is_mark(at + 2, '{')
    }

    fn word(&self, at: usize) -> String {
        match self.tokens.get(at) {
            Some((Kind::Word(word), _)) => word.clone(),
            _ => String::new(),
        }
    }

    fn is_mark(&self, at: usize, mark: char) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|(kind, _)| *kind == Kind::Mark(mark))
    }

    fn is_joint(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|(kind, _)| *kind == Kind::Joint)
    }
}

/// `protocols/fc/run.rs` is `protocols::fc::run`, `protocols/fc/mod.rs` is `protocols::fc`, `lib.rs` the root.
fn module_of(file: &str) -> Vec<String> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || module.len() == 1 && last == "lib")
    {
        module.pop();
    }
    module
}

/// Words, `::`, and other marks; comments and literals are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let from = at;
        match (chars[at], chars.get(at + 1).copied()) {
            ('/', Some('/')) => at = skip_until(&chars, at, |rest| rest[0] == '\n'),
            ('/', Some('*')) => at = after_block_comment(&chars, at),
            ('"', _) => at = after_string(&chars, at),
            ('\'', Some('\\')) => at = 1 + skip_until(&chars, at + 3, |rest| rest[0] == '\''),
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at += 3,
            (':', Some(':')) => {
                tokens.push((Kind::Joint, line));
                at += 2;
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                at = skip_until(&chars, at, |rest| !(rest[0].is_alphanumeric() || rest[0] == '_'));
                let word: String = chars[from..at].iter().collect();
                let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
                if word.ends_with('r') && word.len() <= 2 && chars.get(at + hashes) == Some(&'"') {
                    at = after_raw_string(&chars, at + hashes + 1, hashes);
                } else if !c.is_numeric() {
                    tokens.push((Kind::Word(word), line));
                }
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push((Kind::Mark(c), line));
                }
                at += 1;
            }
        }
        at = at.min(chars.len());
        line += chars[from..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn skip_until(chars: &[char], mut at: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    while at < chars.len() && !stop(&chars[at..]) {
        at += 1;
    }
    at
}

fn after_string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn after_raw_string(chars: &[char], at: usize, hashes: usize) -> usize {
    let ends =
        |rest: &[char]| rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|c| *c == '#');
    skip_until(chars, at, ends) + 1 + hashes
}

fn after_block_comment(chars: &[char], mut at: usize) -> usize {
    let mut open = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (open, at) = (open + 1, at + 2),
            ('*', Some('/')) => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    at
}

#[test]
fn paths_are_resolved_wherever_they_stand() {
    let paths = |file: &str, source: &str| -> Vec<String> {
        mentions(file, source).into_iter().map(|m| m.path).collect()
    };
    for (file, source, expected) in [
        (
            "protocols/home.rs",
            "use super::fc::call;",
            "crate::protocols::fc::call",
        ),
        (
            "protocols/fc/mod.rs",
            "use super::home;",
            "crate::protocols::home",
        ),
        (
            "protocols/fc/run.rs",
            "super::super::super::control::wake()",
            "crate::control::wake",
        ),
        (
            "protocols/fc/run.rs",
            "use self::super::super::home as h;",
            "crate::protocols::home",
        ),
        (
            "a.rs",
            "mod tests { mod deep { use super::super::super::b; } }",
            "crate::b",
        ),
        ("a.rs", "use ::axum;", "axum"),
        ("a.rs", "let r#type = axum::Json(1).b::<u8>();", "axum::Json"),
    ] {
        assert_eq!(paths(file, source), [expected], "{file}: {source}");
    }
    assert_eq!(
        paths(
            "a/b.rs",
            "use crate::{\n  x::{self, Y as Z},\n  super_like,\n};\nuse super::*;"
        ),
        ["crate::x", "crate::x::Y", "crate::super_like", "crate::a::*"]
    );
    assert_eq!(
        paths("a.rs", "mod t { fn f() {} }\nfn g() { self::b::c() }"),
        ["crate::a::b::c"],
        "a module inside the file ends where it ends"
    );
    let hidden = "// axum::a\n/* axum::b /* x */ axum::c */ \"axum::d\\\"axum::e\" r#\"axum::\"f\"# 'a' '\\'' b\"x::y\"";
    assert_eq!(paths("a.rs", hidden), Vec::<String>::new());
    let lines: Vec<usize> = mentions("a.rs", "\"\n\"\n/*\n*/ a::b\nc::d")
        .iter()
        .map(|m| m.line)
        .collect();
    assert_eq!(lines, [4, 5]);
}

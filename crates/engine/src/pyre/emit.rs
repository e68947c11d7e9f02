//! A pattern written for `fancy-regex`, in a form that leaves nothing to that crate's own syntax rules.

use std::fmt::Write;

use super::{
    Error, Flags,
    ast::{At, Greed, Item, Node, Set},
};

/// What `\w`, `\s` and `\d` mean to Python, inside a set.
const WORD: &str = r"\p{L}\p{N}_";
const SPACE: &str = r"\s\x{1c}-\x{1f}";
const DIGIT: &str = r"\p{Nd}";
const ASCII_WORD: &str = "a-zA-Z0-9_";
const ASCII_SPACE: &str = r"\x{20}\x{9}-\x{d}";
const ASCII_DIGIT: &str = "0-9";

/// Patterns are nested at most this deep, so that neither this nor the crate runs out of stack.
const MAX_DEPTH: usize = 100;

/// The whole pattern.
pub fn pattern(root: &Node) -> Result<String, Error> {
    let mut out = String::new();
    write(root, 0, &mut out)?;
    Ok(out)
}

fn write(node: &Node, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Limit("the pattern is nested too deep".into()));
    }
    let inside = |open: &str, node: &Node, out: &mut String| {
        out.push_str(open);
        write(node, depth + 1, out)?;
        out.push(')');
        Ok(())
    };
    match node {
        Node::Empty => {}
        Node::Literal { c, ignore_case } => literal(*c, *ignore_case, out),
        Node::Any { dot_all: true } => out.push_str("(?s:.)"),
        Node::Any { dot_all: false } => out.push_str(r"[^\x{a}]"),
        Node::Set(set) => write_set(set, out),
        Node::At(at) => place(*at, out),
        Node::Sequence(nodes) => {
            for node in nodes {
                match node {
                    Node::Either(_) => inside("(?:", node, out)?,
                    _ => write(node, depth + 1, out)?,
                }
            }
        }
        Node::Either(nodes) => {
            for (at, node) in nodes.iter().enumerate() {
                out.push_str(if at > 0 { "|" } else { "" });
                write(node, depth + 1, out)?;
            }
        }
        Node::Repeat {
            node,
            min,
            max,
            greed,
        } => {
            inside("(?:", node, out)?;
            let _ = match (min, max) {
                (0, None) => write!(out, "*"),
                (1, None) => write!(out, "+"),
                (0, Some(1)) => write!(out, "?"),
                (min, None) => write!(out, "{{{min},}}"),
                (min, Some(max)) if min == max => write!(out, "{{{min}}}"),
                (min, Some(max)) => write!(out, "{{{min},{max}}}"),
            };
            out.push_str(match greed {
                Greed::Greedy => "",
                Greed::Lazy => "?",
                Greed::Possessive => "+",
            });
        }
        Node::Group(node) => inside("(", node, out)?,
        Node::Atomic(node) => inside("(?>", node, out)?,
        Node::Look {
            node,
            behind,
            negative,
        } => {
            let open = match (behind, negative) {
                (false, false) => "(?=",
                (false, true) => "(?!",
                (true, false) => "(?<=",
                (true, true) => "(?<!",
            };
            inside(open, node, out)?;
        }
        Node::Reference { group, ignore_case } => {
            let open = if *ignore_case { "(?i:" } else { "(?:" };
            let _ = write!(out, r"{open}\{group})");
        }
        Node::Condition { group, yes, no } => {
            let _ = write!(out, "(?({group})(?:");
            write(yes, depth + 1, out)?;
            out.push_str(")|(?:");
            write(no, depth + 1, out)?;
            out.push_str("))");
        }
    }
    Ok(())
}

/// `i` has two relatives that Python folds to it and others do not.
fn is_i(c: char) -> bool {
    matches!(c, 'i' | 'I' | '\u{130}' | '\u{131}')
}

fn literal(c: char, ignore_case: bool, out: &mut String) {
    if ignore_case && is_i(c) {
        out.push_str(r"[iI\x{130}\x{131}]");
    } else if ignore_case && c.is_alphabetic() {
        let _ = write!(out, r"(?i:\x{{{:x}}})", u32::from(c));
    } else {
        let _ = write!(out, r"\x{{{:x}}}", u32::from(c));
    }
}

fn place(at: At, out: &mut String) {
    match at {
        At::TextStart => out.push_str(r"\A"),
        At::TextEnd => out.push_str(r"\z"),
        At::Start(flags) => out.push_str(if flags.multiline { "(?m:^)" } else { r"\A" }),
        At::End(flags) => out.push_str(if flags.multiline { "(?m:$)" } else { r"(?=\n?\z)" }),
        At::Boundary(flags) => boundary(flags, ["(?<=", "(?!", "(?<!", "(?="], out),
        At::NoBoundary(flags) => {
            // In Python 3.11 an empty text has no such place.
            out.push_str(r"(?!\A\z)");
            boundary(flags, ["(?<=", "(?=", "(?<!", "(?!"], out);
        }
    }
}

/// Either the first two looks at a word character hold or the last two.
fn boundary(flags: Flags, looks: [&str; 4], out: &mut String) {
    let word = if flags.ascii { ASCII_WORD } else { WORD };
    let [a, b, c, d] = looks;
    let _ = write!(out, "(?:{a}[{word}]){b}[{word}])|{c}[{word}]){d}[{word}]))");
}

fn write_set(set: &Set, out: &mut String) {
    out.push_str(match (set.ignore_case, set.negative) {
        (true, true) => "(?i:[^",
        (true, false) => "(?i:[",
        (false, true) => "[^",
        (false, false) => "[",
    });
    let mut has_i = false;
    for item in &set.items {
        match *item {
            Item::Range(from, to) => {
                has_i |= ['i', 'I', '\u{130}', '\u{131}']
                    .iter()
                    .any(|i| (from..=to).contains(i));
                let _ = write!(out, r"\x{{{:x}}}-\x{{{:x}}}", u32::from(from), u32::from(to));
            }
            Item::Class {
                letter,
                negative,
                ascii,
            } => {
                let inside = match (letter, ascii) {
                    ('d', false) => DIGIT,
                    ('d', true) => ASCII_DIGIT,
                    ('s', false) => SPACE,
                    ('s', true) => ASCII_SPACE,
                    (_, false) => WORD,
                    (_, true) => ASCII_WORD,
                };
                let _ = write!(out, "[{}{inside}]", if negative { "^" } else { "" });
            }
        }
    }
    if set.ignore_case && has_i {
        out.push_str(r"iI\x{130}\x{131}");
    }
    out.push_str(if set.ignore_case { "])" } else { "]" });
}

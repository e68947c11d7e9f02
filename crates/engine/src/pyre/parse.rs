//! Python 3.11's syntax of patterns. Positions are counted in code points, as Python's messages do.

use super::{
    Error, Flags,
    ast::{At, Greed, Node, Set},
    escape::{self, Escape},
    set,
};

/// Groups are nested at most this deep; Python's own limit is its stack.
const MAX_DEPTH: usize = 90;
const MAX_REPEAT: u64 = 4_294_967_294;

/// A pattern that was read.
pub struct Parsed {
    /// What it says.
    pub root: Node,
    /// Names of groups and their numbers.
    pub names: Vec<(String, usize)>,
}

/// Reads a pattern.
pub fn parse(pattern: &str, flags: Flags) -> Result<Parsed, Error> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut parser = Parser {
        chars: &chars,
        at: 0,
        flags,
        depth: 0,
        names: Vec::new(),
        widths: Vec::new(),
    };
    let root = parser.alternatives()?;
    match parser.peek() {
        None => Ok(Parsed {
            root,
            names: parser.names,
        }),
        Some(_) => Err(Parser::error("unbalanced parenthesis", parser.at)),
    }
}

/// The pattern, and how far it is read.
pub struct Parser<'p> {
    chars: &'p [char],
    at: usize,
    /// Those of this place.
    pub flags: Flags,
    depth: usize,
    names: Vec<(String, usize)>,
    /// Of every group; `None` as long as it is open.
    widths: Vec<Option<(u64, u64)>>,
}

impl Parser<'_> {
    /// A complaint in Python's words.
    pub fn error(message: impl Into<String>, position: usize) -> Error {
        Error::Syntax {
            message: message.into(),
            position,
        }
    }

    /// How many characters are read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What was read since a place.
    pub fn since(&self, place: usize) -> String {
        self.chars[place..self.at].iter().collect()
    }

    /// The next character, if there is one.
    pub fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Reads a character.
    pub fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads this character if it is the next.
    pub fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Reads up to `most` characters of a kind.
    pub fn take_while(&mut self, most: usize, kind: impl Fn(char) -> bool) -> String {
        let end = (self.at + most).min(self.chars.len());
        let taken: String = self.chars[self.at..end]
            .iter()
            .take_while(|c| kind(**c))
            .collect();
        self.at += taken.chars().count();
        taken
    }

    fn alternatives(&mut self) -> Result<Node, Error> {
        let first = self.depth == 0;
        let mut branches = vec![self.sequence(first)?];
        while self.take('|') {
            branches.push(self.sequence(false)?);
        }
        Ok(match branches.len() {
            1 => branches.swap_remove(0),
            _ => Node::Either(branches),
        })
    }

    fn sequence(&mut self, first_branch: bool) -> Result<Node, Error> {
        let mut nodes: Vec<Node> = Vec::new();
        loop {
            let place = self.at;
            let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) else {
                break;
            };
            self.at += 1;
            if self.flags.verbose {
                if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}') {
                    continue;
                }
                if c == '#' {
                    while self.next().is_some_and(|c| c != '\n') {}
                    continue;
                }
            }
            match c {
                '*' | '+' | '?' | '{' => {
                    let Some((min, max)) = self.counts(c, place)? else {
                        nodes.push(self.literal(c));
                        continue;
                    };
                    self.repeat(&mut nodes, min, max, place)?;
                }
                '(' => {
                    let start_of_all = first_branch && nodes.is_empty() && self.only_blank_before(place);
                    nodes.extend(self.group(place, start_of_all)?);
                }
                _ => nodes.push(self.single(c, place)?),
            }
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            1 => nodes.swap_remove(0),
            _ => Node::Sequence(nodes),
        })
    }

    /// Flags for everything must be the very first; in verbose mode white space may precede them.
    fn only_blank_before(&self, place: usize) -> bool {
        let before = &self.chars[..place];
        before.is_empty() || self.flags.verbose && before.iter().all(|c| c.is_whitespace())
    }

    fn single(&mut self, c: char, place: usize) -> Result<Node, Error> {
        Ok(match c {
            '.' => Node::Any {
                dot_all: self.flags.dot_all,
            },
            '^' => Node::At(At::Start(self.flags)),
            '$' => Node::At(At::End(self.flags)),
            '[' => set::parse(self, place)?,
            '\\' => match escape::outside(self, place)? {
                Escape::Char(c) => self.literal(c),
                Escape::At(at) => Node::At(at),
                Escape::Class(item) => Node::Set(Set {
                    negative: false,
                    ignore_case: false,
                    items: vec![item],
                }),
                Escape::Group(group) => self.reference(group, place, place + 1)?,
            },
            c => self.literal(c),
        })
    }

    fn literal(&self, c: char) -> Node {
        Node::Literal {
            c,
            ignore_case: self.flags.ignore_case,
        }
    }

    fn reference(&self, group: usize, place: usize, number_place: usize) -> Result<Node, Error> {
        match group.checked_sub(1).and_then(|at| self.widths.get(at)) {
            None => Err(Self::error(
                format!("invalid group reference {group}"),
                number_place,
            )),
            Some(None) => Err(Self::error("cannot refer to an open group", place)),
            Some(Some(_)) => Ok(Node::Reference {
                group,
                ignore_case: self.flags.ignore_case,
            }),
        }
    }

    /// `*`, `+`, `?` or `{m,n}`; `None` where a brace is only a brace.
    fn counts(&mut self, c: char, place: usize) -> Result<Option<(u32, Option<u32>)>, Error> {
        match c {
            '*' => return Ok(Some((0, None))),
            '+' => return Ok(Some((1, None))),
            '?' => return Ok(Some((0, Some(1)))),
            _ => {}
        }
        let back = self.at;
        if self.peek() == Some('}') {
            return Ok(None);
        }
        let low = self.take_while(usize::MAX - self.at, |c| c.is_ascii_digit());
        let high = if self.take(',') {
            self.take_while(usize::MAX - self.at, |c| c.is_ascii_digit())
        } else {
            low.clone()
        };
        if !self.take('}') {
            self.at = back;
            return Ok(None);
        }
        let number = |digits: &str| match digits.parse::<u64>() {
            Ok(number) if number <= MAX_REPEAT => Ok(number as u32),
            _ => Err(Error::Limit("the repetition number is too large".into())),
        };
        let min = if low.is_empty() { 0 } else { number(&low)? };
        let max = if high.is_empty() {
            None
        } else {
            Some(number(&high)?)
        };
        if max.is_some_and(|max| max < min) {
            return Err(Self::error("min repeat greater than max repeat", place + 1));
        }
        Ok(Some((min, max)))
    }

    fn repeat(
        &mut self,
        nodes: &mut Vec<Node>,
        min: u32,
        max: Option<u32>,
        place: usize,
    ) -> Result<(), Error> {
        let node = match nodes.pop() {
            None | Some(Node::At(_) | Node::Empty) => return Err(Self::error("nothing to repeat", place)),
            Some(Node::Repeat { .. }) => return Err(Self::error("multiple repeat", place)),
            Some(node) => node,
        };
        let greed = if self.take('?') {
            Greed::Lazy
        } else if self.take('+') {
            Greed::Possessive
        } else {
            Greed::Greedy
        };
        nodes.push(Node::Repeat {
            node: Box::new(node),
            min,
            max,
            greed,
        });
        Ok(())
    }

    /// What follows `(`; `None` for what is no part of the pattern.
    fn group(&mut self, place: usize, start_of_all: bool) -> Result<Option<Node>, Error> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::Limit("the pattern is nested too deep".into()));
        }
        if !self.take('?') {
            return self.capture(None, place).map(Some);
        }
        let Some(c) = self.next() else {
            return Err(Self::error("unexpected end of pattern", self.at));
        };
        match c {
            'P' => self.named(place).map(Some),
            ':' => self.body(place).map(Some),
            '>' => Ok(Some(Node::Atomic(Box::new(self.body(place)?)))),
            '#' => loop {
                match self.next() {
                    None => return Err(Self::error("missing ), unterminated comment", place)),
                    Some(')') => return Ok(None),
                    Some(_) => {}
                }
            },
            '=' | '!' => Ok(Some(Node::Look {
                node: Box::new(self.body(place)?),
                behind: false,
                negative: c == '!',
            })),
            '<' => self.look_behind(place).map(Some),
            '(' => self.condition(place).map(Some),
            '-' | 'i' | 'm' | 's' | 'x' | 'a' | 'L' | 'u' => self.inline_flags(c, place, start_of_all),
            c => Err(Self::error(format!("unknown extension ?{c}"), place + 1)),
        }
    }

    /// A group's content and its closing parenthesis.
    fn body(&mut self, place: usize) -> Result<Node, Error> {
        let flags = self.flags;
        self.depth += 1;
        let node = self.alternatives()?;
        self.depth -= 1;
        self.flags = flags;
        if !self.take(')') {
            return Err(Self::error("missing ), unterminated subpattern", place));
        }
        // A part of its own, so that a repetition inside it does not count as one outside.
        Ok(match node {
            Node::Repeat { .. } | Node::At(_) | Node::Empty => Node::Sequence(vec![node, Node::Empty]),
            node => node,
        })
    }

    fn capture(&mut self, name: Option<(String, usize)>, place: usize) -> Result<Node, Error> {
        let number = self.widths.len() + 1;
        if let Some((name, name_place)) = name {
            if let Some((_, known)) = self.names.iter().find(|(known, _)| *known == name) {
                let message =
                    format!("redefinition of group name '{name}' as group {number}; was group {known}");
                return Err(Self::error(message, name_place));
            }
            self.names.push((name, number));
        }
        self.widths.push(None);
        let node = self.body(place)?;
        let width = node.width(&self.known_widths());
        self.widths[number - 1] = Some(width);
        Ok(Node::Group(Box::new(node)))
    }

    fn known_widths(&self) -> Vec<(u64, u64)> {
        self.widths
            .iter()
            .map(|width| width.unwrap_or((0, u64::MAX)))
            .collect()
    }

    /// `(?P<name>...)` or `(?P=name)`
    fn named(&mut self, place: usize) -> Result<Node, Error> {
        if self.take('<') {
            let name_place = self.at;
            let name = self.name('>', name_place)?;
            return self.capture(Some((name, name_place)), place);
        }
        if self.take('=') {
            let name_place = self.at;
            let name = self.name(')', name_place)?;
            let known = self.names.iter().find(|(known, _)| *known == name);
            let Some((_, number)) = known else {
                return Err(Self::error(format!("unknown group name '{name}'"), name_place));
            };
            return self.reference(*number, name_place, name_place);
        }
        match self.next() {
            None => Err(Self::error("unexpected end of pattern", self.at)),
            Some(c) => Err(Self::error(format!("unknown extension ?P{c}"), place + 1)),
        }
    }

    fn name(&mut self, end: char, place: usize) -> Result<String, Error> {
        let name = self.take_while(self.chars.len(), |c| c != end);
        if !self.take(end) {
            let message = if name.is_empty() {
                "missing group name".to_owned()
            } else {
                format!("missing {end}, unterminated name")
            };
            return Err(Self::error(message, place));
        }
        if name.is_empty() {
            return Err(Self::error("missing group name", place));
        }
        if !is_identifier(&name) {
            return Err(Self::error(
                format!("bad character in group name '{name}'"),
                place,
            ));
        }
        Ok(name)
    }

    fn look_behind(&mut self, place: usize) -> Result<Node, Error> {
        let negative = match self.next() {
            Some('=') => false,
            Some('!') => true,
            Some(c) => return Err(Self::error(format!("unknown extension ?<{c}"), place + 1)),
            None => return Err(Self::error("unexpected end of pattern", self.at)),
        };
        let node = self.body(place)?;
        let (min, max) = node.width(&self.known_widths());
        if min != max {
            return Err(Error::LookBehind);
        }
        Ok(Node::Look {
            node: Box::new(node),
            behind: true,
            negative,
        })
    }

    /// `(?(1)yes|no)`
    fn condition(&mut self, place: usize) -> Result<Node, Error> {
        let name_place = self.at;
        let digits = self.take_while(9, |c| c.is_ascii_digit());
        let group = if digits.is_empty() {
            let name = self.name(')', name_place)?;
            let known = self.names.iter().find(|(known, _)| *known == name);
            known
                .map(|(_, number)| *number)
                .ok_or_else(|| Self::error(format!("unknown group name '{name}'"), name_place))?
        } else {
            if !self.take(')') {
                return Err(Self::error("missing ), unterminated name", name_place));
            }
            digits.parse().expect("at most nine digits")
        };
        if group == 0 {
            return Err(Self::error("bad group number", name_place));
        }
        if group > self.widths.len() {
            return Err(Self::error(
                format!("invalid group reference {group}"),
                name_place,
            ));
        }
        let flags = self.flags;
        self.depth += 1;
        let yes = self.sequence(false)?;
        let no = if self.take('|') {
            self.sequence(false)?
        } else {
            Node::Empty
        };
        self.depth -= 1;
        self.flags = flags;
        if self.peek() == Some('|') {
            return Err(Self::error(
                "conditional backref with more than two branches",
                self.at,
            ));
        }
        if !self.take(')') {
            return Err(Self::error("missing ), unterminated subpattern", place));
        }
        Ok(Node::Condition {
            group,
            yes: Box::new(yes),
            no: Box::new(no),
        })
    }

    /// `(?i)` for everything, at the start; `(?i:...)` and `(?i-s:...)` for a part.
    fn inline_flags(&mut self, first: char, place: usize, start_of_all: bool) -> Result<Option<Node>, Error> {
        let mut flags = self.flags;
        let (mut c, mut on) = (first, true);
        loop {
            match c {
                'i' => flags.ignore_case = on,
                'm' => flags.multiline = on,
                's' => flags.dot_all = on,
                'x' => flags.verbose = on,
                'a' if on => flags.ascii = true,
                'u' if on => flags.ascii = false,
                'L' if on => {
                    return Err(Self::error(
                        "bad inline flags: cannot use 'L' flag with a str pattern",
                        self.at,
                    ));
                }
                '-' if on => on = false,
                ')' if on => {
                    if !start_of_all {
                        return Err(Self::error(
                            "global flags not at the start of the expression",
                            place,
                        ));
                    }
                    self.flags = flags;
                    return Ok(None);
                }
                ':' => {
                    let before = std::mem::replace(&mut self.flags, flags);
                    let node = self.body(place);
                    self.flags = before;
                    return node.map(Some);
                }
                c if c.is_alphabetic() => return Err(Self::error("unknown flag", self.at - 1)),
                _ => return Err(Self::error("missing -, : or )", self.at - 1)),
            }
            c = self
                .next()
                .ok_or_else(|| Self::error("missing -, : or )", self.at))?;
        }
    }
}

/// `str.isidentifier`
pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && chars.all(|c| c == '_' || c.is_alphanumeric())
}

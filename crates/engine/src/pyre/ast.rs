//! What a pattern says.

use super::Flags;

/// A part of a pattern.
#[derive(Debug, Clone)]
pub enum Node {
    /// Nothing.
    Empty,
    /// A character.
    Literal {
        /// The character.
        c: char,
        /// In either case.
        ignore_case: bool,
    },
    /// `.`
    Any {
        /// Also a line feed.
        dot_all: bool,
    },
    /// One of many characters.
    Set(Set),
    /// A place.
    At(At),
    /// One after the other.
    Sequence(Vec<Node>),
    /// One of several.
    Either(Vec<Node>),
    /// Several times.
    Repeat {
        /// What.
        node: Box<Node>,
        /// At least.
        min: u32,
        /// At most; `None` has no end.
        max: Option<u32>,
        /// Which number of times is tried first, and whether others are.
        greed: Greed,
    },
    /// `(...)`
    Group(Box<Node>),
    /// `(?>...)`
    Atomic(Box<Node>),
    /// `(?=...)` and its relatives.
    Look {
        /// What.
        node: Box<Node>,
        /// Before the place instead of after it.
        behind: bool,
        /// Must not be there.
        negative: bool,
    },
    /// `\1`
    Reference {
        /// The group.
        group: usize,
        /// In either case.
        ignore_case: bool,
    },
    /// `(?(1)yes|no)`
    Condition {
        /// The group.
        group: usize,
        /// If it took part.
        yes: Box<Node>,
        /// If not.
        no: Box<Node>,
    },
}

/// How often first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greed {
    /// Often.
    Greedy,
    /// Seldom.
    Lazy,
    /// As often as possible, and never less.
    Possessive,
}

/// A place without length.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// `^`
    Start(Flags),
    /// `$`
    End(Flags),
    /// `\A`
    TextStart,
    /// `\Z`
    TextEnd,
    /// `\b`
    Boundary(Flags),
    /// `\B`
    NoBoundary(Flags),
}

/// `[...]`, `\d` and the like.
#[derive(Debug, Clone)]
pub struct Set {
    /// Everything else.
    pub negative: bool,
    /// In either case.
    pub ignore_case: bool,
    /// What is in it.
    pub items: Vec<Item>,
}

/// A part of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// From one character to another, both included.
    Range(char, char),
    /// `\d`, `\s` or `\w`.
    Class {
        /// The small letter.
        letter: char,
        /// The capital letter was written.
        negative: bool,
        /// Only ASCII counts.
        ascii: bool,
    },
}

impl Node {
    /// The fewest and the most characters it takes; `groups` are those of the groups so far.
    pub fn width(&self, groups: &[(u64, u64)]) -> (u64, u64) {
        let either = |a: (u64, u64), b: (u64, u64)| (a.0.min(b.0), a.1.max(b.1));
        match self {
            Node::Empty | Node::At(_) | Node::Look { .. } => (0, 0),
            Node::Literal { .. } | Node::Any { .. } | Node::Set(_) => (1, 1),
            Node::Sequence(nodes) => nodes.iter().fold((0, 0), |(min, max), node| {
                let (a, b) = node.width(groups);
                (min.saturating_add(a), max.saturating_add(b))
            }),
            Node::Either(nodes) => {
                let widths = nodes.iter().map(|node| node.width(groups));
                widths.reduce(either).unwrap_or((0, 0))
            }
            Node::Repeat { node, min, max, .. } => {
                let (a, b) = node.width(groups);
                let most = max.map_or(u64::MAX, u64::from);
                (a.saturating_mul(u64::from(*min)), b.saturating_mul(most))
            }
            Node::Group(node) | Node::Atomic(node) => node.width(groups),
            Node::Reference { group, .. } => groups.get(group - 1).copied().unwrap_or((0, u64::MAX)),
            Node::Condition { yes, no, .. } => either(yes.width(groups), no.width(groups)),
        }
    }
}

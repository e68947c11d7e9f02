//! `[...]`

use super::{
    Error,
    ast::{Item, Node, Set},
    escape::{self, Escape},
    parse::Parser,
};

/// Reads what follows `[` up to its `]`.
pub fn parse(parser: &mut Parser<'_>, start: usize) -> Result<Node, Error> {
    let unterminated = || Parser::error("unterminated character set", start);
    let negative = parser.take('^');
    let mut items = Vec::new();
    let mut first = true;
    loop {
        let place = parser.at();
        let c = parser.next().ok_or_else(unterminated)?;
        if c == ']' && !first {
            break;
        }
        first = false;
        let from = member(parser, c, place)?;
        if !parser.take('-') {
            items.push(from);
            continue;
        }
        let to_place = parser.at();
        let c = parser.next().ok_or_else(unterminated)?;
        if c == ']' {
            items.extend([from, Item::Range('-', '-')]);
            break;
        }
        let to = member(parser, c, to_place)?;
        let (Item::Range(low, _), Item::Range(high, _)) = (from, to) else {
            return Err(bad_range(parser, place));
        };
        if high < low {
            return Err(bad_range(parser, place));
        }
        items.push(Item::Range(low, high));
    }
    Ok(Node::Set(Set {
        negative,
        ignore_case: parser.flags.ignore_case,
        items,
    }))
}

fn member(parser: &mut Parser<'_>, c: char, place: usize) -> Result<Item, Error> {
    if c != '\\' {
        return Ok(Item::Range(c, c));
    }
    Ok(match escape::in_set(parser, place)? {
        Escape::Char(c) => Item::Range(c, c),
        Escape::Class(item) => item,
        Escape::At(_) | Escape::Group(_) => unreachable!("sets have neither places nor groups"),
    })
}

fn bad_range(parser: &Parser<'_>, place: usize) -> Error {
    Parser::error(format!("bad character range {}", parser.since(place)), place)
}

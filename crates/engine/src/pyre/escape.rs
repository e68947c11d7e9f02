//! What follows a backslash.

use super::{
    Error,
    ast::{At, Item},
    parse::Parser,
};

/// What it means.
pub enum Escape {
    /// A character.
    Char(char),
    /// A class such as `\d`.
    Class(Item),
    /// A place such as `\b`.
    At(At),
    /// A group.
    Group(usize),
}

/// In a set; the backslash at `place` is read.
pub fn in_set(parser: &mut Parser<'_>, place: usize) -> Result<Escape, Error> {
    let c = parser.next().ok_or_else(|| end(place))?;
    match c {
        'b' => Ok(Escape::Char('\u{8}')),
        '0'..='7' => {
            let digits = c.to_string() + &parser.take_while(2, |c| ('0'..='7').contains(&c));
            octal(parser, &digits, place).map(Escape::Char)
        }
        '8' | '9' => Err(bad(parser, place)),
        _ => common(parser, c, place),
    }
}

/// Outside sets; the backslash at `place` is read.
pub fn outside(parser: &mut Parser<'_>, place: usize) -> Result<Escape, Error> {
    let c = parser.next().ok_or_else(|| end(place))?;
    let flags = parser.flags;
    match c {
        'A' => Ok(Escape::At(At::TextStart)),
        'Z' => Ok(Escape::At(At::TextEnd)),
        'b' => Ok(Escape::At(At::Boundary(flags))),
        'B' => Ok(Escape::At(At::NoBoundary(flags))),
        '0' => {
            let digits = parser.take_while(2, |c| ('0'..='7').contains(&c));
            octal(parser, &format!("0{digits}"), place).map(Escape::Char)
        }
        '1'..='9' => {
            let mut digits = c.to_string();
            if parser.peek().is_some_and(|c| c.is_ascii_digit()) {
                digits.extend(parser.next());
                let octal_so_far = digits.chars().all(|c| ('0'..='7').contains(&c));
                if octal_so_far && parser.peek().is_some_and(|c| ('0'..='7').contains(&c)) {
                    digits.extend(parser.next());
                    return octal(parser, &digits, place).map(Escape::Char);
                }
            }
            Ok(Escape::Group(digits.parse().expect("one or two digits")))
        }
        _ => common(parser, c, place),
    }
}

fn common(parser: &mut Parser<'_>, c: char, place: usize) -> Result<Escape, Error> {
    let class = |letter: char, negative| {
        Escape::Class(Item::Class {
            letter,
            negative,
            ascii: parser.flags.ascii,
        })
    };
    Ok(match c {
        'd' | 's' | 'w' => class(c, false),
        'D' | 'S' | 'W' => class(c.to_ascii_lowercase(), true),
        'a' => Escape::Char('\u{7}'),
        'f' => Escape::Char('\u{c}'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        't' => Escape::Char('\t'),
        'v' => Escape::Char('\u{b}'),
        'x' => Escape::Char(hex(parser, 2, place)?),
        'u' => Escape::Char(hex(parser, 4, place)?),
        'U' => Escape::Char(hex(parser, 8, place)?),
        'N' => return Err(Error::Limit(r"\N{name} is not supported".into())),
        c if c.is_ascii_alphabetic() => return Err(bad(parser, place)),
        c => Escape::Char(c),
    })
}

fn hex(parser: &mut Parser<'_>, digits: usize, place: usize) -> Result<char, Error> {
    let found = parser.take_while(digits, |c| c.is_ascii_hexdigit());
    if found.chars().count() < digits {
        return Err(Parser::error(
            format!("incomplete escape {}", parser.since(place)),
            place,
        ));
    }
    let number = u32::from_str_radix(&found, 16).ok();
    // Python's texts can hold halves of surrogate pairs; ours cannot, so nothing would match one.
    number.and_then(char::from_u32).ok_or_else(|| bad(parser, place))
}

fn octal(parser: &Parser<'_>, digits: &str, place: usize) -> Result<char, Error> {
    let number = u32::from_str_radix(digits, 8).unwrap_or(u32::MAX);
    if number > 0o377 {
        return Err(Parser::error(
            format!(
                "octal escape value {} outside of range 0-0o377",
                parser.since(place)
            ),
            place,
        ));
    }
    Ok(char::from_u32(number).expect("at most 255"))
}

fn bad(parser: &Parser<'_>, place: usize) -> Error {
    Parser::error(format!("bad escape {}", parser.since(place)), place)
}

fn end(place: usize) -> Error {
    Parser::error("bad escape (end of pattern)", place)
}

//! What `re.sub` puts in the place of a match.

use super::{Error, Groups, Regex, parse::is_identifier};

/// A replacement: texts and groups.
#[derive(Debug)]
pub struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(char),
    Group(usize),
}

impl Template {
    /// Reads a template for a pattern.
    pub fn new(text: &str, regex: &Regex) -> Result<Template, Error> {
        let chars: Vec<char> = text.chars().collect();
        let mut reader = Reader {
            chars: &chars,
            at: 0,
            regex,
        };
        let mut parts = Vec::new();
        while let Some(c) = reader.next() {
            parts.push(match c {
                '\\' => reader.escape()?,
                c => Part::Text(c),
            });
        }
        Ok(Template(parts))
    }

    /// Writes the replacement of one match; a group that took no part is empty.
    pub fn expand(&self, groups: &Groups, text: &str, out: &mut String) {
        for part in &self.0 {
            match part {
                Part::Text(c) => out.push(*c),
                Part::Group(number) => {
                    if let Some(range) = groups.get(*number).cloned().flatten() {
                        out.push_str(&text[range]);
                    }
                }
            }
        }
    }
}

struct Reader<'a> {
    chars: &'a [char],
    at: usize,
    regex: &'a Regex,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied()?;
        self.at += 1;
        Some(c)
    }

    fn peek_if(&self, kind: impl Fn(char) -> bool) -> Option<char> {
        self.chars.get(self.at).copied().filter(|c| kind(*c))
    }

    fn error(message: impl Into<String>, position: usize) -> Error {
        Error::Syntax {
            message: message.into(),
            position,
        }
    }

    fn escape(&mut self) -> Result<Part, Error> {
        let place = self.at - 1;
        let octal = |c: char| ('0'..='7').contains(&c);
        let Some(c) = self.next() else {
            return Err(Self::error("bad escape (end of pattern)", place));
        };
        Ok(match c {
            'g' => self.named()?,
            '0' => {
                let mut number = 0;
                for _ in 0..2 {
                    if let Some(c) = self.peek_if(octal) {
                        self.at += 1;
                        number = number * 8 + c.to_digit(8).unwrap_or(0);
                    }
                }
                Part::Text(char::from_u32(number).expect("at most 63"))
            }
            '1'..='9' => {
                let mut digits = c.to_string();
                if let Some(second) = self.peek_if(|c| c.is_ascii_digit()) {
                    self.at += 1;
                    digits.push(second);
                    if let Some(third) = self.peek_if(octal).filter(|_| digits.chars().all(octal)) {
                        self.at += 1;
                        digits.push(third);
                        let number = u32::from_str_radix(&digits, 8).unwrap_or(u32::MAX);
                        if number > 0o377 {
                            let message = format!("octal escape value \\{digits} outside of range 0-0o377");
                            return Err(Self::error(message, place));
                        }
                        return Ok(Part::Text(char::from_u32(number).expect("at most 255")));
                    }
                }
                self.group(digits.parse().expect("one or two digits"), place + 1)?
            }
            'a' => Part::Text('\u{7}'),
            'b' => Part::Text('\u{8}'),
            'f' => Part::Text('\u{c}'),
            'n' => Part::Text('\n'),
            'r' => Part::Text('\r'),
            't' => Part::Text('\t'),
            'v' => Part::Text('\u{b}'),
            '\\' => Part::Text('\\'),
            c if c.is_ascii_alphabetic() => return Err(Self::error(format!("bad escape \\{c}"), place)),
            _ => {
                // Before anything else the backslash is kept, and the character is read again as text.
                self.at -= 1;
                Part::Text('\\')
            }
        })
    }

    /// `\g<name>` or `\g<1>`
    fn named(&mut self) -> Result<Part, Error> {
        let place = self.at;
        if self.next() != Some('<') {
            return Err(Self::error("missing <", place));
        }
        let start = self.at;
        let Some(length) = self.chars[start..].iter().position(|c| *c == '>') else {
            let message = if start == self.chars.len() {
                "missing group name"
            } else {
                "missing >, unterminated name"
            };
            return Err(Self::error(message, start));
        };
        let name: String = self.chars[start..start + length].iter().collect();
        self.at = start + length + 1;
        if name.is_empty() {
            return Err(Self::error("missing group name", start));
        }
        if name.chars().all(|c| c.is_ascii_digit()) {
            return self.group(name.parse().unwrap_or(usize::MAX), start);
        }
        if !is_identifier(&name) {
            return Err(Self::error(
                format!("bad character in group name '{name}'"),
                start,
            ));
        }
        match self.regex.names.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => Ok(Part::Group(*number)),
            None => Err(Error::UnknownGroup(name)),
        }
    }

    fn group(&self, number: usize, place: usize) -> Result<Part, Error> {
        if number > self.regex.groups() {
            return Err(Self::error(format!("invalid group reference {number}"), place));
        }
        Ok(Part::Group(number))
    }
}

//! Reads one table of the file key by key: takes what is known, notes what is wrong, names what is left over.

use std::time::Duration;

use toml::{Table, Value};

use super::{
    problem::{Problems, did_you_mean},
    secret::Secret,
    units::{parse_duration, parse_size},
};

/// A table being read. Every reader method takes its key out and returns `None` when it is absent *or* wrong
/// (then the problem is noted), so that callers apply their default and go on to find the next problem.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    pub(super) problems: &'a Problems,
}

impl<'a> Section<'a> {
    pub(super) fn new(path: impl Into<String>, table: Table, problems: &'a Problems) -> Self {
        Section {
            path: path.into(),
            table,
            known: Vec::new(),
            problems,
        }
    }

    /// The full path of a key.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a problem with a key.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems.add(&self.path_of(key), message);
    }

    /// Whether the key was written, right or wrong. Ask before reading it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong_type(&self, key: &str, wanted: &str, got: &Value) {
        self.problem(key, format!("expected {wanted}, got {}", describe(got)));
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, "a text", &other);
                None
            }
        }
    }

    /// A text that must not be shown, also not in a problem.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        match self.take(key)? {
            Value::String(text) => Some(Secret::new(text)),
            other => {
                self.problem(key, format!("expected a text, got {}", other.type_str()));
                None
            }
        }
    }

    /// A text that `parse` understands; `wanted` says what that is.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(&text);
        if value.is_none() {
            self.problem(key, format!("expected {wanted}, got \"{}\"", shorten(&text)));
        }
        value
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.problem(
                key,
                format!(
                    "'{}' is not one of {}{}",
                    shorten(&text),
                    list.join(", "),
                    did_you_mean(&text, list.iter().copied())
                ),
            );
        }
        found
    }

    /// A duration.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration like \"300s\", \"15m\" or \"2h\"", parse_duration)
    }

    /// A duration of more than nothing.
    pub(super) fn positive_duration(&mut self, key: &'static str) -> Option<Duration> {
        let duration = self.duration(key)?;
        if duration.is_zero() {
            self.problem(key, "must be longer than zero");
            return None;
        }
        Some(duration)
    }

    /// A duration, or `"none"`.
    pub(super) fn duration_or_none(&mut self, key: &'static str) -> Option<Option<Duration>> {
        self.parsed(key, "a duration like \"300s\" or \"2h\", or \"none\"", |text| {
            if text == "none" {
                Some(None)
            } else {
                parse_duration(text).map(Some)
            }
        })
    }

    /// A size in bytes: a text like `"256MB"`, or a number of bytes.
    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        match self.take(key)? {
            Value::Integer(bytes) if bytes >= 0 => u64::try_from(bytes).ok(),
            Value::String(text) if parse_size(&text).is_some() => parse_size(&text),
            other => {
                self.wrong_type(key, "a size like \"256MB\" or \"0\"", &other);
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let value = self.take(key)?;
        let number = match &value {
            Value::Integer(number) => Some(*number),
            Value::String(text) if self.is_overridden(key) => text.trim().parse().ok(),
            _ => None,
        };
        match number.map(u64::try_from) {
            Some(Ok(number)) if (least..=most).contains(&number) => Some(number),
            _ => {
                let wanted = if most == u64::from(u32::MAX) || most == u64::MAX {
                    format!("a whole number of at least {least}")
                } else {
                    format!("a whole number from {least} to {most}")
                };
                self.wrong_type(key, &wanted, &value);
                None
            }
        }
    }

    /// Like [`Self::number`], for 32 bits.
    pub(super) fn small_number(&mut self, key: &'static str, least: u32) -> Option<u32> {
        self.number(key, least.into(), u32::MAX.into())
            .and_then(|n| u32::try_from(n).ok())
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        match &value {
            Value::Boolean(flag) => Some(*flag),
            Value::String(text) if self.is_overridden(key) && text == "true" => Some(true),
            Value::String(text) if self.is_overridden(key) && text == "false" => Some(false),
            _ => {
                self.wrong_type(key, "true or false", &value);
                None
            }
        }
    }

    /// A list of texts; from the environment, separated by commas.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        if let Value::String(text) = &value
            && self.is_overridden(key)
        {
            return Some(
                text.split(',')
                    .map(|entry| entry.trim().to_owned())
                    .filter(|entry| !entry.is_empty())
                    .collect(),
            );
        }
        let Value::Array(entries) = value else {
            self.wrong_type(key, "a list of texts", &value);
            return None;
        };
        let mut texts = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            match entry {
                Value::String(text) => texts.push(text),
                other => self.wrong_type(&format!("{key}[{index}]"), "a text", &other),
            }
        }
        Some(texts)
    }

    /// A list of texts, each of which `parse` understands.
    pub(super) fn parsed_list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let texts = self.list(key)?;
        let mut values = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Some(value) => values.push(value),
                None => self.problem(
                    &format!("{key}[{index}]"),
                    format!("expected {wanted}, got \"{}\"", shorten(text)),
                ),
            }
        }
        Some(values)
    }

    /// A table of its own; an empty one when absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong_type(key, &format!("a section [{}]", self.path_of(key)), &other);
                Table::new()
            }
        };
        Section::new(self.path_of(key), table, self.problems)
    }

    /// A list of tables (`[[keys]]`).
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let entries = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(entries)) => entries,
            Some(other) => {
                self.wrong_type(key, &format!("sections [[{}]]", self.path_of(key)), &other);
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let name = format!("{key}[{index}]");
            match entry {
                Value::Table(table) => sections.push(Section::new(self.path_of(&name), table, self.problems)),
                other => self.wrong_type(&name, "a section", &other),
            }
        }
        sections
    }

    /// Any value, as it is.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value> {
        self.take(key)
    }

    /// The entries of a table whose keys are names that the user chose.
    pub(super) fn into_entries(self) -> Table {
        self.table
    }

    /// A key of the contract that this version cannot honour yet: an error is better than silence.
    pub(super) fn not_yet(&mut self, key: &'static str) {
        if self.take(key).is_some() {
            self.problem(key, "is not supported by this version");
        }
    }

    /// Names every key that nobody read.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.problem(
                key,
                format!("unknown key{}", did_you_mean(key, self.known.iter().copied())),
            );
        }
    }

    fn is_overridden(&self, key: &str) -> bool {
        self.problems.is_overridden(&self.path_of(key))
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", shorten(text)),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a section".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(60).chain("…".chars()).collect()
    }
}

//! `RegexMatch`, `RegexExtract` and `RegexReplace`.

use serde_json::Value as Json;

use super::{MAX_TEXT_BYTES, fits, text};
use crate::{
    exec::Raised,
    nodes::call::{Call, Output},
    pyre::{self, Flags, Groups, Regex, Template},
};

/// `RegexMatch`: a pattern that Python refuses matches nothing.
pub fn matches(call: &Call<'_>) -> Result<Output, Raised> {
    let found = match compile(call)? {
        Ok(regex) => regex.search(call.text("string")?).map_err(raised)?.is_some(),
        Err(_) => false,
    };
    Ok(Output::one(Json::from(found)))
}

/// `RegexExtract`: a pattern that Python refuses finds nothing.
pub fn extract(call: &Call<'_>) -> Result<Output, Raised> {
    let Ok(regex) = compile(call)? else {
        return text(String::new());
    };
    let whole = call.text("string")?;
    let index = call.size("group_index")?;
    let part = |groups: &Groups, group: usize| {
        let range = groups.get(group).cloned().flatten();
        range.map(|range| whole[range].to_owned())
    };
    let all = || regex.find_all(whole, usize::MAX).map_err(raised);
    match call.text("mode")? {
        "First Match" => {
            let found = regex.search(whole).map_err(raised)?;
            text(found.and_then(|groups| part(&groups, 0)).unwrap_or_default())
        }
        // `re.findall`: with groups in the pattern the first of them is what counts.
        "All Matches" => {
            let group = usize::from(regex.groups() > 0);
            let parts = all()?
                .iter()
                .map(|groups| part(groups, group).unwrap_or_default())
                .collect();
            lines(parts)
        }
        "First Group" => match regex.search(whole).map_err(raised)? {
            Some(groups) if regex.groups() >= index => match part(&groups, index) {
                Some(found) => text(found),
                None => Ok(Output::one(Json::Null)),
            },
            _ => text(String::new()),
        },
        "All Groups" => {
            if regex.groups() == 0 || regex.groups() < index {
                return text(String::new());
            }
            let parts = all()?
                .iter()
                .map(|groups| part(groups, index))
                .collect::<Option<Vec<_>>>();
            lines(parts.ok_or_else(|| {
                Raised::new(
                    "TypeError",
                    "sequence item: expected str instance, NoneType found",
                )
            })?)
        }
        _ => text(String::new()),
    }
}

/// `RegexReplace`: here a pattern that Python refuses is an error.
pub fn replace(call: &Call<'_>) -> Result<Output, Raised> {
    let regex = compile(call)?.map_err(raised)?;
    let template = Template::new(call.text("replace")?, &regex).map_err(raised)?;
    let count = call.any("count").map_or(Ok(0), |_| call.size("count"))?;
    let replaced = regex
        .replace(&template, call.text("string")?, count, MAX_TEXT_BYTES)
        .map_err(raised)?;
    fits(replaced.as_ref().map_or(usize::MAX, String::len))?;
    text(replaced.unwrap_or_default())
}

/// The pattern with its flags; the inner error is Python's `re.error`.
fn compile(call: &Call<'_>) -> Result<Result<Regex, pyre::Error>, Raised> {
    let flag = |name, default| call.any(name).map_or(Ok(default), |_| call.flag(name));
    let flags = Flags {
        ignore_case: flag("case_insensitive", true)?,
        multiline: flag("multiline", false)?,
        dot_all: flag("dotall", false)?,
        ..Flags::default()
    };
    match Regex::new(call.text("regex_pattern")?, flags) {
        Err(error) if !error.is_python_s() => Err(raised(error)),
        compiled => Ok(compiled),
    }
}

fn lines(parts: Vec<String>) -> Result<Output, Raised> {
    fits(parts.iter().map(|part| part.len() + 1).sum())?;
    text(parts.join("\n"))
}

fn raised(error: pyre::Error) -> Raised {
    let kind = match &error {
        pyre::Error::Syntax { .. } | pyre::Error::LookBehind => "re.error",
        pyre::Error::UnknownGroup(_) => "IndexError",
        pyre::Error::Limit(_) => "RuntimeError",
    };
    Raised::new(kind, error.to_string())
}

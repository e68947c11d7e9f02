//! Texts, as Python's `str` and `re` treat them: positions are code points, letters are Unicode's.

mod case;
mod regex;

use serde_json::Value as Json;

use super::call::{Call, Output};
use crate::{exec::Raised, registry::NodeKind, value::tensor::slice};

/// The longest text a node makes. Texts can grow by doubling from node to node, so without a bound a small graph takes
/// the machine down.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// The classes of this family.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("StringConcatenate", concatenate),
    NodeKind::new("StringSubstring", substring),
    NodeKind::new("StringLength", length),
    NodeKind::new("CaseConverter", convert_case),
    NodeKind::new("StringTrim", trim),
    NodeKind::new("StringReplace", replace),
    NodeKind::new("StringContains", contains),
    NodeKind::new("StringCompare", compare),
    NodeKind::new("RegexMatch", regex::matches),
    NodeKind::new("RegexExtract", regex::extract),
    NodeKind::new("RegexReplace", regex::replace),
];

/// `StringConcatenate`
fn concatenate(call: &Call<'_>) -> Result<Output, Raised> {
    let (a, b) = (call.text("string_a")?, call.text("string_b")?);
    let delimiter = call.text("delimiter")?;
    fits(a.len() + b.len() + delimiter.len())?;
    text([a, delimiter, b].concat())
}

/// `StringSubstring`: negative positions count from the end, and those outside are moved inside.
fn substring(call: &Call<'_>) -> Result<Output, Raised> {
    let whole = call.text("string")?;
    let range = slice(whole.chars().count(), call.int("start")?, call.int("end")?);
    text(whole.chars().skip(range.start).take(range.len()).collect())
}

/// `StringLength`
fn length(call: &Call<'_>) -> Result<Output, Raised> {
    Ok(Output::one(Json::from(call.text("string")?.chars().count())))
}

/// `CaseConverter`
fn convert_case(call: &Call<'_>) -> Result<Output, Raised> {
    let whole = call.text("string")?;
    text(match call.text("mode")? {
        "UPPERCASE" => whole.to_uppercase(),
        "lowercase" => whole.to_lowercase(),
        "Capitalize" => case::capitalize(whole),
        "Title Case" => case::title(whole),
        _ => whole.to_owned(),
    })
}

/// `StringTrim`
fn trim(call: &Call<'_>) -> Result<Output, Raised> {
    // Python counts four separators as white space that Unicode does not.
    let space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let whole = call.text("string")?;
    let trimmed = match call.text("mode")? {
        "Both" => whole.trim_matches(space),
        "Left" => whole.trim_start_matches(space),
        "Right" => whole.trim_end_matches(space),
        _ => whole,
    };
    text(trimmed.to_owned())
}

/// `StringReplace`: an empty text is found before and behind every character.
fn replace(call: &Call<'_>) -> Result<Output, Raised> {
    let whole = call.text("string")?;
    let (find, replace) = (call.text("find")?, call.text("replace")?);
    fits(
        whole
            .len()
            .saturating_add(whole.matches(find).count().saturating_mul(replace.len())),
    )?;
    text(whole.replace(find, replace))
}

/// `StringContains`
fn contains(call: &Call<'_>) -> Result<Output, Raised> {
    let (whole, part) = (call.text("string")?, call.text("substring")?);
    let contains = if call.flag("case_sensitive")? {
        whole.contains(part)
    } else {
        whole.to_lowercase().contains(&part.to_lowercase())
    };
    Ok(Output::one(Json::from(contains)))
}

/// `StringCompare`
fn compare(call: &Call<'_>) -> Result<Output, Raised> {
    let (mut a, mut b) = (
        call.text("string_a")?.to_owned(),
        call.text("string_b")?.to_owned(),
    );
    if !call.flag("case_sensitive")? {
        (a, b) = (a.to_lowercase(), b.to_lowercase());
    }
    let result = match call.text("mode")? {
        "Starts With" => a.starts_with(&b),
        "Ends With" => a.ends_with(&b),
        _ => a == b,
    };
    Ok(Output::one(Json::from(result)))
}

fn text(text: String) -> Result<Output, Raised> {
    fits(text.len())?;
    Ok(Output::one(Json::from(text)))
}

fn fits(bytes: usize) -> Result<(), Raised> {
    if bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(Raised::new(
        "MemoryError",
        format!("the text would be longer than the limit of {MAX_TEXT_BYTES} bytes"),
    ))
}

//! Widgets as nodes.

use super::call::{Call, Output};
use crate::exec::Raised;

/// Every `Primitive...`: its widget's value.
pub fn value(call: &Call<'_>) -> Result<Output, Raised> {
    let value = call
        .any("value")
        .ok_or_else(|| Raised::new("TypeError", "missing required input 'value'"))?;
    Ok(Output::one(value.clone()))
}

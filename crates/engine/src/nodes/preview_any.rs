//! `PreviewAny`: any value as text.

use serde_json::Value as Json;

use super::call::{Call, Output};
use crate::{
    exec::Raised,
    value::{Value, python},
};

/// Texts and numbers as Python's `str`, lists and objects as JSON, tensors as torch prints them.
pub fn show(call: &Call<'_>) -> Result<Output, Raised> {
    let text = match call.any("source") {
        None | Some(Value::Json(Json::Null)) => "None".to_owned(),
        Some(Value::Json(json @ (Json::Array(_) | Json::Object(_)))) => python::dumps(json),
        Some(value) => value.to_python_text(),
    };
    Ok(Output::ui("text", vec![text.into()]))
}

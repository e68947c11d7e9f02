//! `GET /workflows/{workflow}/snippets`: a call of the workflow to paste, for Python, JavaScript, curl, and the SpeedPix SDK.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use darkroom_comfy::published::{Input, Kind};
use serde_json::{Map, Value, json};

use super::{
    super::{call::Call, error::ApiError},
    show::{Which, load},
};
use crate::state::{AppState, BaseUrl};

/// The handler.
///
/// # Errors
/// 404.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(which): Query<Which>,
    BaseUrl(base): BaseUrl,
) -> Result<Json<Value>, ApiError> {
    let loaded = load(&state, &call, &workflow, &which).await?;
    let inputs: Map<String, Value> = loaded
        .definition
        .published
        .inputs
        .iter()
        .map(|input| (input.name.clone(), example(input)))
        .collect();
    let mut body = json!({ "inputs": inputs });
    for (field, given) in [("version", &which.version), ("alias", &which.alias)] {
        if let Some(given) = given {
            body[field] = json!(given);
        }
    }
    Ok(Json(snippets(&base, &workflow, &body)))
}

/// A value that a call may have.
fn example(input: &Input) -> Value {
    if let Some(default) = &input.default {
        return default.clone();
    }
    match input.kind {
        Kind::String => json!("..."),
        Kind::Integer | Kind::Number => input.min.clone().unwrap_or(json!(1)),
        Kind::Boolean => json!(true),
        Kind::Choice => input
            .choices
            .as_ref()
            .and_then(|choices| choices.first().cloned())
            .unwrap_or(Value::Null),
        Kind::Image => json!("https://example.com/input.png"),
        Kind::Audio => json!("https://example.com/input.wav"),
        Kind::Video => json!("https://example.com/input.mp4"),
        Kind::File => json!("https://example.com/input.bin"),
        Kind::Any => Value::Null,
    }
}

fn snippets(base: &str, workflow: &str, body: &Value) -> Value {
    let url = format!("{base}/darkroom/v1/workflows/{}/run", segment(workflow));
    let pretty = serde_json::to_string_pretty(body).unwrap_or_default();
    let python = format!(
        "import json, os, urllib.request\n\n\
         body = json.loads({literal})\n\
         request = urllib.request.Request(\n    {url:?},\n    data=json.dumps(body).encode(),\n    headers={{\n        \
         \"Content-Type\": \"application/json\",\n        \"Authorization\": \"Bearer \" + os.environ.get(\"DARKROOM_KEY\", \"\"),\n    }},\n)\n\
         run = json.load(urllib.request.urlopen(request))\n\
         for name, items in run[\"outputs\"].items():\n    for item in items:\n        print(name, item.get(\"url\") or item.get(\"text\"))\n",
        literal = python_text(&pretty),
    );
    let javascript = format!(
        "const response = await fetch({url}, {{\n  method: \"POST\",\n  headers: {{\n    \"Content-Type\": \"application/json\",\n    \
         Authorization: `Bearer ${{process.env.DARKROOM_KEY ?? \"\"}}`,\n  }},\n  body: {literal},\n}});\n\
         const run = await response.json();\n\
         if (!response.ok) throw new Error(run.error.message);\n\
         for (const [name, items] of Object.entries(run.outputs))\n  for (const item of items) console.log(name, item.url ?? item.text);\n",
        url = json!(url),
        literal = javascript_body(body, &pretty),
    );
    let curl = format!(
        "curl -sS {} -H 'Content-Type: application/json' -H \"Authorization: Bearer $DARKROOM_KEY\" -d {}\n",
        shell_text(&url),
        shell_text(&body.to_string()),
    );
    let speedpix = format!(
        "# pip install speedpix; keys from `darkroom keys create --app`\nimport json\nfrom speedpix import Client\n\n\
         client = Client(endpoint={base:?})  # SPEEDPIX_APP_KEY and SPEEDPIX_APP_SECRET from the environment\n\
         output = client.run(workflow_id={workflow}, input=json.loads({inputs}))\nprint(output)\n",
        workflow = python_text(workflow),
        inputs = python_text(&body["inputs"].to_string()),
    );
    json!({ "python": python, "javascript": javascript, "curl": curl, "speedpix": speedpix })
}

/// The body of a call in JavaScript. Its numbers are exact up to 2^53 only: a body with larger ones is a text.
fn javascript_body(body: &Value, pretty: &str) -> String {
    match has_large_number(body) {
        true => Value::from(pretty).to_string(),
        false => format!("JSON.stringify({pretty})"),
    }
}

fn has_large_number(value: &Value) -> bool {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let whole = number.as_u64().or(number.as_i64().map(i64::unsigned_abs));
            whole.is_some_and(|whole| whole > EXACT)
        }
        Value::Array(items) => items.iter().any(has_large_number),
        Value::Object(fields) => fields.values().any(has_large_number),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// A text as a Python literal: JSON's escapes are Python's as well, but for U+2028, which JSON leaves alone and so may Python.
fn python_text(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text as one word of a shell.
fn shell_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_scripts_of_any_kind_stay_texts() {
        let body = json!({ "inputs": { "text": "it's \"一\" $(x)\n`y`" } });
        let made = snippets("http://h:1", "海报", &body);
        let text = |which: &str| made[which].as_str().unwrap().to_owned();
        assert!(text("curl").contains("/workflows/%E6%B5%B7%E6%8A%A5/run'"));
        assert!(text("curl").contains(r"it'\''s"));
        assert!(text("python").contains(r#"json.loads("{\n"#));
        assert!(text("javascript").contains(r#"await fetch("http://h:1/"#));
        assert!(text("speedpix").contains("workflow_id=\"海报\""));
        assert!(text("javascript").contains("body: JSON.stringify({\n"));
        let large = json!({ "inputs": { "seed": (1_u64 << 53) + 1 } });
        let made = snippets("http://h:1", "w", &large);
        let javascript = made["javascript"].as_str().unwrap();
        assert!(
            javascript.contains(r#"\"seed\": 9007199254740993"#),
            "{javascript}"
        );
        assert_eq!(shell_text("a'b"), r"'a'\''b'");
    }
}

//! A workflow's inputs as JSON Schema (draft 2020-12, which OpenAPI 3.1 uses as well).

use serde_json::{Map, Value, json};

use super::{Input, Kind, Published};

impl Published {
    /// The schema of the object of inputs.
    pub fn schema(&self) -> Value {
        let properties: Map<String, Value> = self
            .inputs
            .iter()
            .map(|input| (input.name.clone(), property(input)))
            .collect();
        let required: Vec<&str> = self
            .inputs
            .iter()
            .filter(|input| input.required)
            .map(|input| input.name.as_str())
            .collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

fn property(input: &Input) -> Value {
    let mut schema = match input.kind {
        Kind::String => json!({"type": "string"}),
        Kind::Integer => json!({"type": "integer"}),
        Kind::Number => json!({"type": "number"}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Choice => json!({"enum": input.choices.as_deref().unwrap_or_default()}),
        Kind::Image => file("image/*"),
        Kind::Audio => file("audio/*"),
        Kind::Video => file("video/*"),
        Kind::File => file("application/octet-stream"),
        Kind::Any => json!({}),
    };
    if input.kind == Kind::Choice && input.choices.is_none() {
        schema = json!({});
    }
    let fields = [
        ("minimum", input.min.clone()),
        ("maximum", input.max.clone()),
        ("default", input.default.clone()),
        (
            "description",
            (!input.description.is_empty()).then(|| Value::from(input.description.as_str())),
        ),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            schema[key] = value;
        }
    }
    schema["x-darkroom-type"] = Value::from(input.kind.as_str());
    schema
}

fn file(media: &str) -> Value {
    json!({
        "contentMediaType": media,
        "oneOf": [
            {"type": "string", "description": "an http(s) address, a data URI, base64, or the name of an uploaded file"},
            {"type": "object", "properties": {"url": {"type": "string", "format": "uri"}}, "required": ["url"], "additionalProperties": false},
            {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"], "additionalProperties": false},
            {"type": "object", "properties": {"upload": {"type": "string"}}, "required": ["upload"], "additionalProperties": false},
            {"type": "object", "properties": {"asset": {"type": "string"}}, "required": ["asset"], "additionalProperties": false},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_a_property_with_its_bounds() {
        let input = |name: &str, kind| Input {
            name: name.to_owned(),
            node: "1".to_owned(),
            field: name.to_owned(),
            kind,
            default: None,
            min: None,
            max: None,
            choices: None,
            required: false,
            seed: false,
            description: String::new(),
        };
        let workflow = Published {
            graph: json!({}),
            inputs: vec![
                Input {
                    required: true,
                    description: "what".to_owned(),
                    ..input("text", Kind::String)
                },
                Input {
                    min: Some(json!(1)),
                    max: Some(json!(9)),
                    default: Some(json!(4)),
                    ..input("n", Kind::Integer)
                },
                Input {
                    choices: Some(vec![json!("a"), json!(1)]),
                    ..input("c", Kind::Choice)
                },
                input("image", Kind::Image),
            ],
            outputs: vec![],
            seeds: vec![],
        };
        let schema = workflow.schema();
        assert_eq!(schema["required"], json!(["text"]));
        assert_eq!(schema["additionalProperties"], json!(false));
        let properties = &schema["properties"];
        assert_eq!(
            properties["text"],
            json!({"type": "string", "description": "what", "x-darkroom-type": "string"})
        );
        assert_eq!(
            properties["n"],
            json!({"type": "integer", "minimum": 1, "maximum": 9, "default": 4, "x-darkroom-type": "integer"})
        );
        assert_eq!(properties["c"]["enum"], json!(["a", 1]));
        assert_eq!(properties["image"]["contentMediaType"], "image/*");
    }
}

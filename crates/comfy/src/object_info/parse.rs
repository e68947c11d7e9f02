//! JSON to [`ObjectInfo`].

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::{InputSpec, NodeClass, ObjectInfo};

/// Why some JSON is not an `/object_info` answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("object_info is not a JSON object")]
    NotAnObject,
    #[error("object_info of class '{class_type}' is not a JSON object")]
    ClassNotAnObject { class_type: String },
}

impl ObjectInfo {
    /// Reads the answer of `GET /object_info`.
    pub fn parse(value: Value) -> Result<Self, Error> {
        let Value::Object(map) = value else {
            return Err(Error::NotAnObject);
        };
        let classes = map.into_iter().map(|(class_type, value)| match value {
            Value::Object(fields) => {
                let class = NodeClass::from_fields(&class_type, fields);
                Ok((class_type, class))
            }
            _ => Err(Error::ClassNotAnObject { class_type }),
        });
        Ok(Self {
            classes: classes.collect::<Result<_, _>>()?,
        })
    }
}

impl NodeClass {
    fn from_fields(class_type: &str, mut fields: Map<String, Value>) -> Self {
        let mut class = Self {
            name: class_type.to_owned(),
            ..Self::default()
        };
        take(&mut fields, "input", &mut class.input, sections);
        take(&mut fields, "input_order", &mut class.input_order, |value| {
            object(value)?
                .iter()
                .map(|(section, names)| Some((section.clone(), texts(names)?)))
                .collect()
        });
        take(&mut fields, "output", &mut class.output, |value| {
            Some(value.as_array()?.clone())
        });
        take(
            &mut fields,
            "output_is_list",
            &mut class.output_is_list,
            |value| value.as_array()?.iter().map(Value::as_bool).collect(),
        );
        take(&mut fields, "output_name", &mut class.output_name, texts);
        take(&mut fields, "name", &mut class.name, text);
        take(
            &mut fields,
            "display_name",
            &mut class.display_name,
            |value| match value {
                Value::Null => Some(None),
                other => text(other).map(Some),
            },
        );
        take(&mut fields, "description", &mut class.description, text);
        take(&mut fields, "python_module", &mut class.python_module, text);
        take(&mut fields, "category", &mut class.category, text);
        take(&mut fields, "output_node", &mut class.output_node, Value::as_bool);
        class.extra = fields;
        class
    }
}

/// Moves a field of the expected shape into its typed place; any other stays among the raw fields.
fn take<T>(
    fields: &mut Map<String, Value>,
    name: &str,
    place: &mut T,
    read: impl FnOnce(&Value) -> Option<T>,
) {
    if let Some(typed) = fields.get(name).and_then(read) {
        *place = typed;
        fields.shift_remove(name);
    }
}

fn sections(value: &Value) -> Option<IndexMap<String, IndexMap<String, InputSpec>>> {
    let section = |value: &Value| -> Option<IndexMap<String, InputSpec>> {
        let specs = object(value)?.iter();
        Some(
            specs
                .map(|(name, spec)| (name.clone(), InputSpec::parse(spec.clone())))
                .collect(),
        )
    };
    object(value)?
        .iter()
        .map(|(name, inputs)| Some((name.clone(), section(inputs)?)))
        .collect()
}

fn object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded() -> Value {
        serde_json::from_str(include_str!("../../tests/data/object_info.json")).unwrap()
    }

    #[test]
    fn the_recorded_answer_is_written_back_field_by_field() {
        let info = ObjectInfo::parse(recorded()).unwrap();
        assert_eq!(info.classes.len(), 383);
        assert_eq!(serde_json::to_value(&info).unwrap(), recorded());
    }

    #[test]
    fn nothing_of_the_recorded_answer_ends_untyped_but_the_rare_fields() {
        let info = ObjectInfo::parse(recorded()).unwrap();
        let rare = ["output_tooltips", "experimental", "deprecated", "api_node"];
        for (name, class) in &info.classes {
            for key in class.extra.keys() {
                assert!(rare.contains(&key.as_str()), "{name}.{key}");
            }
        }
        let save = info.get("SaveImage").unwrap();
        assert!(save.output_node);
        assert_eq!(save.title(), "Save Image");
        assert_eq!(
            save.inputs().map(|(name, ..)| name).collect::<Vec<_>>(),
            ["images", "filename_prefix"]
        );
        assert_eq!(save.section(NodeClass::HIDDEN).count(), 2);
        assert!(save.input("prompt").is_none());
        let size = info.get("EmptyImage").unwrap().input("width").unwrap();
        assert_eq!((size.min(), size.max()), (Some(&json!(1)), Some(&json!(16384))));
        assert!(
            info.get("LoadImage")
                .unwrap()
                .input("image")
                .unwrap()
                .is_file_picker()
        );
        assert_eq!(info.get("Canny").unwrap().title(), "Canny");
    }

    #[test]
    fn odd_fields_of_custom_nodes_are_kept_as_they_are() {
        let odd = json!({"Odd": {
            "input": {"required": {"x": 5, "y": ["INT"]}, "optional": {}},
            "input_order": null, "output": "IMAGE", "output_is_list": [1], "output_name": [["a"]],
            "name": 7, "display_name": 3, "description": null, "python_module": [], "category": null,
            "output_node": "yes", "future": {"a": 1},
        }});
        let info = ObjectInfo::parse(odd.clone()).unwrap();
        assert_eq!(serde_json::to_value(&info).unwrap(), odd);
        assert_eq!(info.get("Odd").unwrap().name, "Odd");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(ObjectInfo::parse(json!([])), Err(Error::NotAnObject));
        let class_type = "X".to_owned();
        assert_eq!(
            ObjectInfo::parse(json!({"X": 1})),
            Err(Error::ClassNotAnObject { class_type })
        );
    }
}

//! Holds answers against `openapi.json`: every field is described, of its kind, and every field described is there.

use serde_json::Value;

/// The schema that an answer of this path has, by its status.
pub fn schema_of<'a>(description: &'a Value, path: &str, status: u16) -> &'a Value {
    let answer = &description["paths"][path]["get"]["responses"][status.to_string()];
    assert!(answer.is_object(), "{path} is not said to answer {status}");
    &answer["content"]["application/json"]["schema"]
}

/// What of a value its schema does not say, or the other way round.
pub fn faults(description: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = description.pointer(reference.trim_start_matches('#')).expect("what is referred to is there");
        return faults(description, schema, value, at);
    }
    let mut found = Vec::new();
    let kinds = kinds(schema);
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_kind(value, kind)) {
        found.push(format!("{at} is {value}, and said to be {kinds:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at} is {value}, none of {words:?}"));
    }
    match value {
        Value::Object(fields) => {
            let all = properties(description, schema);
            for (name, field) in fields {
                let at = format!("{at}.{name}");
                match all.iter().find(|(known, _)| known == name).map(|(_, schema)| *schema) {
                    Some(schema) => found.extend(faults(description, schema, field, &at)),
                    None if schema["additionalProperties"].is_object() => {
                        found.extend(faults(description, &schema["additionalProperties"], field, &at));
                    }
                    None => found.push(format!("{at} is not described")),
                }
            }
            let missing = all.iter().filter(|(name, _)| !fields.contains_key(*name));
            found.extend(missing.map(|(name, _)| format!("{at}.{name} is described, and not there")));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                found.extend(faults(description, &schema["items"], item, &format!("{at}[{index}]")));
            }
        }
        _ => {}
    }
    found
}

fn kinds(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_kind(value: &Value, kind: &str) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => panic!("{kind} is no kind of JSON Schema"),
    }
}

/// All properties of an object, those of its parts (`allOf`) included.
fn properties<'a>(description: &'a Value, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = description.pointer(reference.trim_start_matches('#')).expect("what is referred to is there");
        return properties(description, schema);
    }
    let own = schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema));
    let parts = schema["allOf"].as_array().into_iter().flatten();
    own.chain(parts.flat_map(|part| properties(description, part))).collect()
}

#[test]
fn what_is_not_described_or_not_answered_or_of_another_kind_is_found() {
    let description =
        serde_json::json!({"components": {"schemas": {"Part": {"properties": {"b": {"type": "integer"}}}}}});
    let schema = serde_json::json!({"allOf": [
        {"$ref": "#/components/schemas/Part"},
        {"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["x", null]}, "list": {"items": {"type": "boolean"}}}}
    ]});
    let faults = |text: &str| faults(&description, &schema, &serde_json::from_str(text).unwrap(), "it");
    assert_eq!(faults(r#"{"a": null, "b": 1, "list": [true]}"#), Vec::<String>::new());
    assert_eq!(faults(r#"{"a": "x", "b": 1, "c": 2, "list": []}"#), ["it.c is not described"]);
    assert_eq!(faults(r#"{"a": "x", "list": []}"#), ["it.b is described, and not there"]);
    assert_eq!(faults(r#"{"a": "y", "b": 1.5, "list": [1]}"#).len(), 3);
}

//! What a caller says of an event type, read and checked.

use super::fields;
use crate::{error::Problem, patch::Patch};
use postrider_model::event_type::{EventType, EventTypeName};
use postrider_store::event_types::EventTypeFields;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// What names of this kind look like, for callers.
pub(crate) const NAME_FORM: &str = "expected 1 to 256 characters of a-z, A-Z, 0-9, `-`, `_` and `.`";
/// Most feature flags of an event type.
const FEATURE_FLAGS: usize = 25;

/// An event type as a caller describes it in full.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeIn {
    /// Its name, unique in the environment. Required to create; replacing takes the name from the path and ignores it.
    #[serde(default)]
    #[schema(max_length = 256, pattern = r"^[a-zA-Z0-9\-_.]+$", example = "document.processed")]
    pub(crate) name: Option<String>,
    /// Shown to people.
    description: String,
    /// No longer offered.
    #[serde(default)]
    archived: Option<bool>,
    /// Still sent, no longer to be chosen.
    #[serde(default)]
    deprecated: Option<bool>,
    /// JSON Schema (draft 7) of the payload by version, such as `{"1": {…}}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    schemas: Option<Box<RawValue>>,
    /// Only tokens of applications with one of these flags see the type.
    #[serde(default)]
    feature_flags: Option<BTreeSet<String>>,
    /// Older form of `featureFlags`.
    #[serde(default)]
    #[schema(deprecated)]
    feature_flag: Option<String>,
    /// Groups types for people.
    #[serde(default)]
    group_name: Option<String>,
}

/// Changes to an event type: what is left out stays, `null` clears.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypePatch {
    /// Shown to people.
    #[serde(default)]
    #[schema(value_type = String, required = false)]
    description: Patch<String>,
    /// No longer offered.
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    archived: Patch<bool>,
    /// Still sent, no longer to be chosen.
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    deprecated: Patch<bool>,
    /// JSON Schema (draft 7) of the payload by version.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    schemas: Patch<Box<RawValue>>,
    /// Only tokens of applications with one of these flags see the type.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    feature_flags: Patch<BTreeSet<String>>,
    /// Older form of `featureFlags`.
    #[serde(default)]
    #[schema(value_type = Option<String>, deprecated)]
    feature_flag: Patch<String>,
    /// Groups types for people.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    group_name: Patch<String>,
}

impl EventTypeIn {
    /// Checked.
    pub(crate) fn check(self) -> Result<EventTypeFields, Problem> {
        let flags = self.feature_flags.unwrap_or_default().into_iter().chain(self.feature_flag).collect();
        Ok(EventTypeFields {
            description: fields::text("description", self.description)?,
            archived: self.archived.unwrap_or(false),
            deprecated: self.deprecated.unwrap_or(false),
            schemas: self.schemas.map(|schemas| check_schemas(&schemas)).transpose()?,
            feature_flags: check_flags(flags)?,
            group_name: self.group_name.map(check_group).transpose()?,
        })
    }
}

impl EventTypePatch {
    /// The type with the changes, checked.
    pub(crate) fn merge(self, current: EventType) -> Result<EventTypeFields, Problem> {
        let feature_flags = match (self.feature_flags, self.feature_flag) {
            (Patch::Set(flags), _) => check_flags(flags)?,
            (Patch::Absent, Patch::Set(flag)) => check_flags([flag].into())?,
            (Patch::Null, _) | (Patch::Absent, Patch::Null) => BTreeSet::new(),
            (Patch::Absent, Patch::Absent) => current.feature_flags,
        };
        let schemas = match self.schemas {
            Patch::Set(schemas) => Some(check_schemas(&schemas)?),
            Patch::Null => None,
            Patch::Absent => current.schemas,
        };
        let group_name = match self.group_name {
            Patch::Set(name) => Some(check_group(name)?),
            Patch::Null => None,
            Patch::Absent => current.group_name,
        };
        Ok(EventTypeFields {
            description: fields::text(
                "description",
                fields::not_null("description", self.description, current.description)?,
            )?,
            archived: fields::not_null("archived", self.archived, current.archived)?,
            deprecated: fields::not_null("deprecated", self.deprecated, current.deprecated)?,
            schemas,
            feature_flags,
            group_name,
        })
    }
}

/// An object of schemas that draft 7's meta schema accepts; its text as it was sent.
fn check_schemas(text: &RawValue) -> Result<String, Problem> {
    let schemas: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text.get())
        .map_err(|_| Problem::body("schemas", "expected an object of version to JSON Schema"))?;
    for (version, schema) in &schemas {
        if let Err(error) = jsonschema::draft7::meta::validate(schema) {
            let place = error.instance_path().to_string();
            let message = format!("not a JSON Schema of draft 7: wrong at `{place}`");
            return Err(Problem::at("body", &["schemas", version], message));
        }
    }
    Ok(text.get().to_owned())
}

fn check_flags(flags: BTreeSet<String>) -> Result<BTreeSet<String>, Problem> {
    if flags.len() > FEATURE_FLAGS || flags.iter().any(|flag| EventTypeName::parse(flag).is_none()) {
        return Err(Problem::body(
            "featureFlags",
            format!("at most {FEATURE_FLAGS} flags; each: {NAME_FORM}"),
        ));
    }
    Ok(flags)
}

fn check_group(name: String) -> Result<String, Problem> {
    if EventTypeName::parse(&name).is_none() {
        return Err(Problem::body("groupName", NAME_FORM));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    fn read(text: &str) -> Result<EventTypeFields, ApiError> {
        Ok(crate::json::parse::<EventTypeIn>(text.as_bytes())?.check()?)
    }

    #[test]
    fn schemas_keep_their_text_and_are_checked() {
        let text = r#"{"name":"a","description":"","schemas":{"2": {"type": "object"}, "1":true},"featureFlag":"x"}"#;
        let fields = read(text).unwrap();
        assert_eq!(fields.schemas.as_deref(), Some(r#"{"2": {"type": "object"}, "1":true}"#));
        assert_eq!(fields.feature_flags, ["x".to_owned()].into());
        for schemas in [r#"{"1":{"type":"invalid"}}"#, r#"{"1":7}"#, "[]", r#""x""#] {
            assert!(
                read(&format!(r#"{{"name":"a","description":"","schemas":{schemas}}}"#)).is_err(),
                "{schemas}"
            );
        }
    }

    #[test]
    fn a_description_is_required() {
        assert!(format!("{:?}", read(r#"{"name":"a"}"#).unwrap_err()).contains(r#"["body", "description"]"#));
    }
}

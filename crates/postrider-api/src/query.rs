//! Reading query strings in all the spellings that clients use.

use crate::{error::Problem, state::ApiState};
use axum::extract::FromRequestParts;
use http::request::Parts;
use postrider_model::time::Timestamp;
use std::{collections::BTreeMap, convert::Infallible};
use url::form_urlencoded;

/// The decoded pairs of a query string. Unknown names are ignored; of a name given twice, the last counts.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl FromRequestParts<ApiState> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    /// Decodes a query string, as forms are encoded.
    pub fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The text of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that `read` understands.
    pub fn read<T>(
        &self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| read(text).ok_or_else(|| Problem::query(name, expected))).transpose()
    }

    /// A number in a range.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let number = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.text(name)
            .map(|text| {
                number(text).ok_or_else(|| {
                    Problem::query(
                        name,
                        format!("expected a number from {} to {}", range.start(), range.end()),
                    )
                })
            })
            .transpose()
    }

    /// `true` or `false`; absent means `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.boolean(name)?.unwrap_or(false))
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.read(name, "expected `true` or `false`", |text| match text {
            "true" | "True" | "1" => Some(true),
            "false" | "False" | "0" => Some(false),
            _ => None,
        })
    }

    /// A date in any form that clients send.
    pub fn date(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.read(name, "expected a date such as 2026-01-31T12:00:00Z", Timestamp::parse)
    }

    /// A list: `name=a,b`, `name=a&name=b`, `name[]=a` or `name[0]=a`. Empty items are left out.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let is_index = |rest: &str| {
            rest.strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
        };
        self.0
            .iter()
            .filter(|(key, _)| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || is_index(rest)))
            .flat_map(|(_, value)| value.split(','))
            .filter(|item| !item.is_empty())
            .collect()
    }

    /// The pairs of `name[key]=value`.
    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        self.0
            .iter()
            .filter_map(|(key, value)| {
                let key = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
                Some((key.to_owned(), value.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_every_spelling() {
        for query in [
            "event_types=a,b",
            "event_types=a&event_types=b",
            "event_types[]=a&event_types[]=b",
            "event_types%5B0%5D=a&event_types%5B1%5D=b",
            "event_types=a,,b,",
        ] {
            assert_eq!(Query::parse(query).list("event_types"), ["a", "b"], "{query}");
        }
        assert!(Query::parse("event_types_x=a&event_types[x]=b").list("event_types").is_empty());
    }

    #[test]
    fn dates_are_read_in_every_form() {
        for query in [
            "before=2026-01-01T00:00:00%2B00:00",
            "before=2026-01-01T00:00:00+00:00",
            "before=2026-01-01T00:00:00.000Z",
            "before=2026-01-01%2000:00:00.000000%20UTC",
        ] {
            let date = Query::parse(query).date("before").unwrap().unwrap();
            assert_eq!(date.to_rfc3339(), "2026-01-01T00:00:00.000000Z", "{query}");
        }
        assert!(Query::parse("before=yesterday").date("before").is_err());
    }

    #[test]
    fn wrong_values_name_the_parameter() {
        let query = Query::parse("limit=x&flag=maybe&n=0&n=7");
        assert_eq!(
            query.number("limit", 1..=250).unwrap_err(),
            Problem::query("limit", "expected a number from 1 to 250")
        );
        assert!(query.flag("flag").is_err());
        assert_eq!(query.number("n", 1..=9), Ok(Some(7)));
        assert_eq!(query.number("absent", 1..=9), Ok(None));
    }

    #[test]
    fn pairs_are_read_from_brackets() {
        let query = Query::parse("metadata[team]=blue&metadata%5Bx%5D=a%20b&metadata=c");
        let expected = [("team".to_owned(), "blue".to_owned()), ("x".to_owned(), "a b".to_owned())];
        assert_eq!(query.map("metadata"), expected.into());
    }
}

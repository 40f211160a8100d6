//! An environment: one publisher's space, the security tenant.

use std::{fmt, sync::Arc};

/// `org_…`: not always a KSUID (tokens of other servers carry names such as `org_svix_python_tests`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentId(Arc<str>);

impl EnvironmentId {
    /// Reads `org_` followed by 1 to 60 letters, digits, `-` or `_`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("org_")?;
        let valid = (1..=60).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        valid.then(|| Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for EnvironmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_id_need_not_be_a_ksuid_but_is_short_and_plain() {
        for text in [
            "org_svix_python_tests",
            "org_00000000000SvixManagement00",
            "org_a",
            &format!("org_{}", "a".repeat(60)),
        ] {
            assert_eq!(EnvironmentId::parse(text).map(|id| id.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "org_",
            "org",
            "app_a",
            "org_a b",
            "org_a.b",
            "org_a/b",
            "org_ü",
            "ORG_a",
            &format!("org_{}", "a".repeat(61)),
        ] {
            assert_eq!(EnvironmentId::parse(text), None, "{text:?}");
        }
    }
}

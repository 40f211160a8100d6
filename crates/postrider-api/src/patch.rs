//! A member of a PATCH body: absent, `null` or a value are three different wishes.

use serde::{Deserialize, Deserializer};

/// A member of a PATCH body. Use with `#[serde(default)]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// Not sent: keep what is there.
    #[default]
    Absent,
    /// `null`: clear it.
    Null,
    /// Set it.
    Set(T),
}

impl<T> Patch<T> {
    /// The new value of something that can be cleared.
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Absent => current,
            Self::Null => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The same where a sent value must be read first.
    pub fn try_apply<U, E>(
        self,
        current: Option<U>,
        read: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<Option<U>, E> {
        match self {
            Self::Absent => Ok(current),
            Self::Null => Ok(None),
            Self::Set(value) => read(value).map(Some),
        }
    }

    /// Was it sent at all?
    pub fn is_sent(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// The value, if one was sent.
    pub fn into_set(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sample {
        #[serde(default)]
        uid: Patch<String>,
    }

    #[test]
    fn absent_null_and_a_value_are_told_apart() {
        for (text, expected) in [
            ("{}", Patch::Absent),
            (r#"{"uid":null}"#, Patch::Null),
            (r#"{"uid":"x"}"#, Patch::Set("x".to_owned())),
        ] {
            assert_eq!(serde_json::from_str::<Sample>(text).unwrap().uid, expected);
        }
        assert_eq!(Patch::Absent.apply(Some(1)), Some(1));
        assert_eq!(Patch::Null.apply(Some(1)), None);
        assert_eq!(Patch::Set(2).apply(Some(1)), Some(2));
        let even = |value: i32| if value % 2 == 0 { Ok(value) } else { Err(value) };
        assert_eq!(Patch::Absent.try_apply(Some(1), even), Ok(Some(1)));
        assert_eq!(Patch::Null.try_apply(Some(1), even), Ok(None));
        assert_eq!(Patch::Set(2).try_apply(Some(1), even), Ok(Some(2)));
        assert_eq!(Patch::Set(3).try_apply(Some(1), even), Err(3));
    }
}

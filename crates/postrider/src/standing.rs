//! How an endpoint is treated, as one node tells another: short text, which a later release may add members to.

use postrider_api::ports::{BreakerState, Standing};
use postrider_model::{
    breaker::{Pause, Trouble},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Times in microseconds.
#[derive(Serialize, Deserialize)]
struct Told {
    state: BreakerState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<ToldPause>,
    places: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_since: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct ToldPause {
    trouble: String,
    since: i64,
    until: i64,
    trips: u32,
}

/// As text without white space.
pub(crate) fn write(standing: &Standing) -> Option<String> {
    let pause = standing.pause.map(|pause| ToldPause {
        trouble: pause.trouble.name().to_owned(),
        since: pause.since.as_micros(),
        until: pause.until.as_micros(),
        trips: pause.trips,
    });
    let throttled_since = standing.throttled_since.map(Timestamp::as_micros);
    let told = Told { state: standing.state, pause, places: standing.places, throttled_since };
    serde_json::to_string(&told).ok()
}

/// The reverse; `None` for what a later release says in words of its own.
pub(crate) fn read(text: &str) -> Option<Standing> {
    let told: Told = serde_json::from_str(text).ok()?;
    let pause = match told.pause {
        None => None,
        Some(pause) => Some(Pause {
            trouble: Trouble::ALL.into_iter().find(|trouble| trouble.name() == pause.trouble)?,
            since: Timestamp::from_micros(pause.since),
            until: Timestamp::from_micros(pause.until),
            trips: pause.trips,
        }),
    };
    let throttled_since = told.throttled_since.map(Timestamp::from_micros);
    Some(Standing { state: told.state, pause, places: told.places, throttled_since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_store::neighbours::ANSWER_BYTES;

    #[test]
    fn what_is_told_is_what_was_known() {
        let pause = |trouble| Pause {
            trouble,
            since: Timestamp::from_micros(1_795_000_000_123_456),
            until: Timestamp::MAX,
            trips: u32::MAX,
        };
        let pauses = Trouble::ALL.into_iter().map(|trouble| Some(pause(trouble))).chain([None]);
        for pause in pauses {
            for state in
                [BreakerState::Closed, BreakerState::Recovering, BreakerState::Open, BreakerState::HalfOpen]
            {
                let throttled_since = pause.map(|pause| pause.since);
                let standing = Standing { state, pause, places: usize::MAX, throttled_since };
                let text = write(&standing).unwrap();
                assert!(text.len() <= ANSWER_BYTES && !text.contains(char::is_whitespace), "{text}");
                assert_eq!(read(&text), Some(standing), "{text}");
            }
        }
        assert_eq!(read(r#"{"state":"closed","places":3,"mood":1}"#).unwrap().places, 3);
        assert_eq!(read("something else"), None);
    }
}

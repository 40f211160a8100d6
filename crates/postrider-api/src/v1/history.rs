//! How lists of history are asked for: filters, windows of time and positions. Pure: from the query to what the store is
//! asked.

use super::status::Status;
use crate::{
    error::{ApiError, Problem, Problems},
    paging,
    query::Query,
};
use postrider_model::{
    event_type::EventTypeName,
    id::{Id, Kind},
    limits,
    message::{Channel, Tag},
    time::Timestamp,
};
use postrider_store::{
    messages::MessageFilter,
    page::{Order, PageRequest, Window},
};
use std::{collections::BTreeSet, time::Duration};
use utoipa::IntoParams;

/// How far a list looks back when the caller names no `after`.
const LOOK_BACK: Duration = Duration::from_hours(90 * 24);

/// What all lists of history take, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct HistoryParams {
    /// Items at most, 1 to 250; 50 by default.
    #[param(minimum = 1, maximum = 250)]
    limit: Option<u64>,
    /// `iterator` or `prevIterator` of an answer of this list.
    iterator: Option<String>,
    /// Only what is older than this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<String>,
    /// Only what is not older than this instant; 90 days before the rest of the list by default.
    #[param(value_type = Option<String>, format = DateTime)]
    after: Option<String>,
    /// Only of messages with this channel.
    channel: Option<String>,
    /// Only of messages with this tag.
    tag: Option<String>,
    /// Only of messages of these types, separated by commas.
    event_types: Option<Vec<String>>,
}

/// What the store is asked for a list of history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked<K: Kind> {
    /// Which part of the list.
    pub(crate) page: PageRequest<Id<K>>,
    /// Of which messages; the window applies to what is listed.
    pub(crate) filter: MessageFilter,
}

impl<K: Kind> Asked<K> {
    /// Reads what all lists of history have in common; every problem is gathered.
    pub(crate) fn read(query: &Query, now: Timestamp, problems: &mut Problems) -> Option<Self> {
        let page = problems.check(paging::request::<Id<K>>(query, Order::Descending));
        let before = problems.check(query.date("before"));
        let after = problems.check(query.date("after"));
        let channel = problems.check(query.read("channel", LABEL, Channel::parse));
        let tag = problems.check(query.read("tag", LABEL, Tag::parse));
        let event_types = problems.check(event_types(query));
        let (mut page, before, after) = (page?, before?, after?);
        if page.cursor.is_none() && after.is_some() && before.is_none() {
            // With `after` alone, a list is read from that side upward, and still shown newest first.
            page.backward = true;
        }
        let window = window(now, before, after, page.cursor.map(|id| id.timestamp()));
        let filter = MessageFilter { channel: channel?, tag: tag?, event_types: event_types?, window };
        Some(Self { page, filter })
    }
}

/// What was read, or the 422 with all problems.
pub(crate) fn complete<T>(read: Option<T>, problems: Problems) -> Result<T, ApiError> {
    problems.finish()?;
    // Nothing is missing without a problem; if it were, the caller would still get an error and not a panic.
    read.ok_or_else(|| ApiError::bad_request("generic_error", "Generic error"))
}

/// `with_content`: whether payloads or response bodies are shown. Clients of the first generation expect them unasked.
pub(crate) fn with_content(query: &Query) -> Result<bool, Problem> {
    Ok(query.boolean("with_content")?.unwrap_or(true))
}

/// `status`, by number or word.
pub(crate) fn status(query: &Query) -> Result<Option<Status>, Problem> {
    query.read(
        "status",
        "expected 0 (success), 1 (pending), 2 (fail), 3 (sending) or 4 (canceled)",
        Status::parse,
    )
}

/// `status_code_class` as a class: 0 (no status line), 1 to 5.
pub(crate) fn status_class(query: &Query) -> Result<Option<u8>, Problem> {
    query.read("status_code_class", "expected 0, 100, 200, 300, 400 or 500", |text| match text {
        "0" => Some(0),
        "100" => Some(1),
        "200" => Some(2),
        "300" => Some(3),
        "400" => Some(4),
        "500" => Some(5),
        _ => None,
    })
}

const LABEL: &str = "is empty, too long or has characters that are not allowed";

fn event_types(query: &Query) -> Result<BTreeSet<EventTypeName>, Problem> {
    let names = query.list("event_types");
    if names.len() > limits::FILTER_EVENT_TYPES {
        let reason = format!("at most {} event types are possible", limits::FILTER_EVENT_TYPES);
        return Err(Problem::query("event_types", reason));
    }
    let parse = |name| EventTypeName::parse(name).ok_or_else(|| Problem::query("event_types", LABEL));
    names.into_iter().map(parse).collect()
}

/// Without `after`, the look-back counts from `before` or the position, whichever is earlier, else from now.
fn window(
    now: Timestamp,
    before: Option<Timestamp>,
    after: Option<Timestamp>,
    position: Option<Timestamp>,
) -> Window {
    let newest = [before, position].into_iter().flatten().min().unwrap_or(now);
    Window { from: Some(after.unwrap_or_else(|| newest.minus(LOOK_BACK))), until: before }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use postrider_model::id::{MessageId, MessageKind};

    const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    fn days(count: u64) -> Duration {
        Duration::from_hours(count * 24)
    }

    fn read(query: &str) -> Result<Asked<MessageKind>, ApiError> {
        let mut problems = Problems::default();
        let read = Asked::read(&Query::parse(query), NOW, &mut problems);
        complete(read, problems)
    }

    #[test]
    fn windows_look_back_ninety_days_from_what_the_caller_named() {
        let at = NOW.minus(days(40));
        let (text, iterator) = (at.to_rfc3339(), MessageId::floor(at));
        for (query, from, until, backward) in [
            (String::new(), NOW.minus(days(90)), None, false),
            (format!("before={text}"), at.minus(days(90)), Some(at), false),
            (format!("after={text}"), at, None, true),
            (format!("after={text}&before={}", NOW.to_rfc3339()), at, Some(NOW), false),
            (format!("iterator={iterator}"), at.minus(days(90)), None, false),
            (format!("iterator=-{iterator}"), at.minus(days(90)), None, true),
            (format!("iterator={iterator}&after={text}"), at, None, false),
            (
                format!("iterator={iterator}&before={}", NOW.to_rfc3339()),
                at.minus(days(90)),
                Some(NOW),
                false,
            ),
        ] {
            let asked = read(&query).unwrap();
            assert_eq!(asked.filter.window, Window { from: Some(from), until }, "{query}");
            assert_eq!(asked.page.backward, backward, "{query}");
            assert_eq!(asked.page.order, Order::Descending);
        }
    }

    /// ING-12: what an answer shows as a date can be given back, also when `+` became a space.
    #[test]
    fn dates_in_every_form_that_clients_send_are_read() {
        for text in
            ["2026-01-01T00:00:00+00:00", "2026-01-01%2000:00:00.000000%20UTC", "2026-01-01T00:00:00.000Z"]
        {
            assert_eq!(read(&format!("before={text}")).unwrap().filter.window.until, Some(NOW), "{text}");
        }
    }

    /// I03, I09: limits, dates and positions beyond reason are refused by name, all at once.
    #[test]
    fn what_cannot_be_read_is_refused_with_its_name() {
        for (query, parameter) in [
            ("limit=0", "limit"),
            ("limit=1000000000000000000000", "limit"),
            ("before=yesterday", "before"),
            ("after=", "after"),
            ("channel=a%20b", "channel"),
            ("tag=", "tag"),
            ("event_types=a,b%20c", "event_types"),
            ("iterator=-", "iterator"),
            ("iterator=ep_1srOrx2ZWZBpBUvZwXKQmoEYga2", "iterator"),
        ] {
            let refused = read(query).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
            assert!(format!("{refused:?}").contains(&format!("{parameter:?}")), "{query}");
        }
        let both = format!("{:?}", read("limit=0&before=x").unwrap_err());
        assert!(both.contains("limit") && both.contains("before"));
        assert!(status(&Query::parse("status=9")).is_err());
        assert!(status_class(&Query::parse("status_code_class=150")).is_err());
        assert_eq!(status_class(&Query::parse("status_code_class=500")), Ok(Some(5)));
    }
}

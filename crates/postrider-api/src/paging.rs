//! Lists: which part a caller asks for, and the envelope of the answer.

use crate::{error::Problem, query::Query};
use postrider_model::{
    event_type::EventTypeName,
    id::{Id, Kind},
    limits::{PAGE_DEFAULT, PAGE_MOST},
};
use postrider_store::page::{Order, Page, PageRequest};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// The parameters of lists, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Items at most; 50 when left out.
    #[param(minimum = 1, maximum = 250)]
    pub limit: Option<u16>,
    /// `iterator` or `prevIterator` of an earlier answer.
    pub iterator: Option<String>,
}

/// The parameters of lists that can be turned round, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrderedPageParams {
    /// Items at most; 50 when left out.
    #[param(minimum = 1, maximum = 250)]
    pub limit: Option<u16>,
    /// `iterator` or `prevIterator` of an earlier answer.
    pub iterator: Option<String>,
    /// The order of the items.
    #[param(inline)]
    pub order: Option<Ordering>,
}

/// The order of a list.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Ordering {
    /// Oldest or alphabetically first first.
    Ascending,
    /// The other way round.
    Descending,
}

/// What a list is ordered by and continued from.
pub trait Position: Sized {
    /// Reads an iterator without its sign.
    fn parse(text: &str) -> Option<Self>;
}

impl<K: Kind> Position for Id<K> {
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Position for EventTypeName {
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// `limit` and `iterator` of a list in its natural order. An iterator that begins with `-` asks for the page before (a
/// name that begins with `-` can therefore not be continued from).
pub fn request<P: Position>(query: &Query, order: Order) -> Result<PageRequest<P>, Problem> {
    let limit = query.number("limit", 1..=PAGE_MOST as u64)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE_DEFAULT);
    let (backward, cursor) = match query.text("iterator") {
        None => (false, None),
        Some(text) => {
            let (backward, name) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
            let position = P::parse(name).ok_or_else(|| {
                Problem::query("iterator", "expected `iterator` or `prevIterator` of an answer of this list")
            })?;
            (backward, Some(position))
        }
    };
    Ok(PageRequest { limit, order, cursor, backward })
}

/// The same for lists that can be turned round with `order`.
pub fn ordered_request<P: Position>(query: &Query, natural: Order) -> Result<PageRequest<P>, Problem> {
    let order = query.read("order", "expected `ascending` or `descending`", |text| match text {
        "ascending" => Some(Order::Ascending),
        "descending" => Some(Order::Descending),
        _ => None,
    })?;
    request(query, order.unwrap_or(natural))
}

/// A page of a list. `iterator` continues after it and `prevIterator` before it, also on the last page: `done` tells
/// when to stop.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListResponse<T> {
    /// The items, in the list's natural order.
    pub data: Vec<T>,
    /// For the next page; `null` when the page is empty.
    #[schema(required)]
    pub iterator: Option<String>,
    /// For the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_iterator: Option<String>,
    /// Nothing more follows in the direction of travel.
    pub done: bool,
}

impl<T> ListResponse<T> {
    /// From a page; `position` is what the list is continued from.
    pub fn new<I>(page: Page<I>, position: impl Fn(&I) -> String, output: impl FnMut(I) -> T) -> Self {
        Self {
            iterator: page.items.last().map(&position),
            prev_iterator: page.items.first().map(|item| format!("-{}", position(item))),
            done: page.done,
            data: page.items.into_iter().map(output).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::EndpointId;

    const ID: &str = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2";

    fn read(query: &str) -> Result<PageRequest<EndpointId>, Problem> {
        ordered_request(&Query::parse(query), Order::Descending)
    }

    #[test]
    fn a_page_is_read_from_the_query() {
        let id = EndpointId::parse(ID);
        for (query, limit, order, cursor, backward) in [
            ("", 50, Order::Descending, None, false),
            ("limit=250&order=ascending", 250, Order::Ascending, None, false),
            (&format!("iterator={ID}"), 50, Order::Descending, id, false),
            (&format!("iterator=-{ID}&limit=1"), 1, Order::Descending, id, true),
        ] {
            assert_eq!(read(query), Ok(PageRequest { limit, order, cursor, backward }), "{query}");
        }
    }

    /// I03, I09.
    #[test]
    fn impossible_pages_are_refused() {
        for query in [
            "limit=0",
            "limit=251",
            "limit=-1",
            "limit=1e3",
            "iterator=",
            "iterator=BAD-$$$ITERATOR",
            "iterator=msg_1srOrx2ZWZBpBUvZwXKQmoEYga2",
            "order=random",
            &format!("iterator={}", "9".repeat(100_000)),
        ] {
            assert!(read(query).is_err(), "{query}");
        }
    }

    #[test]
    fn the_envelope_always_says_how_to_go_on() {
        let page = Page { items: vec![1, 2, 3], done: true };
        let list = ListResponse::new(page, |item| format!("id{item}"), |item| item);
        assert_eq!(
            serde_json::to_string(&list).unwrap(),
            r#"{"data":[1,2,3],"iterator":"id3","prevIterator":"-id1","done":true}"#
        );
        let empty =
            ListResponse::new(Page { items: Vec::<u8>::new(), done: true }, u8::to_string, |item| item);
        assert_eq!(serde_json::to_string(&empty).unwrap(), r#"{"data":[],"iterator":null,"done":true}"#);
    }
}

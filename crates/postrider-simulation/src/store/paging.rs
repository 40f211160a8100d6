//! Pages and windows of lists.

use postrider_model::{
    id::{Id, Kind},
    message::Message,
};
use postrider_store::{
    messages::MessageFilter,
    page::{Order, Page, PageRequest, Window},
};

/// The page of rows that are in ascending order of their positions.
pub(super) fn page<C: Ord, T>(mut rows: Vec<(C, T)>, request: &PageRequest<C>) -> Page<T> {
    let ascending = (request.order == Order::Ascending) != request.backward;
    if !ascending {
        rows.reverse();
    }
    let behind = |at: &C| match &request.cursor {
        None => true,
        Some(cursor) if ascending => at > cursor,
        Some(cursor) => at < cursor,
    };
    let rows = rows.into_iter().filter(|(at, _)| behind(at)).take(request.limit.saturating_add(1));
    Page::from_rows(rows.map(|(_, row)| row).collect(), request.limit, request.backward)
}

/// Is the id in the window?
pub(super) fn within<K: Kind>(id: Id<K>, window: Window) -> bool {
    window.from.is_none_or(|from| id >= Id::floor(from))
        && window.until.is_none_or(|until| id < Id::floor(until))
}

/// Does the message pass all of the filter but its window?
pub(super) fn passes(filter: &MessageFilter, message: &Message) -> bool {
    filter.channel.as_ref().is_none_or(|channel| message.channels.contains(channel))
        && filter.tag.as_ref().is_none_or(|tag| message.tags.contains(tag))
        && (filter.event_types.is_empty() || filter.event_types.contains(&message.event_type))
}

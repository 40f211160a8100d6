//! Event types.

use crate::{
    error::{StoreError, WriteError},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest},
};
use async_trait::async_trait;
use postrider_model::{
    environment::EnvironmentId,
    event_type::{EventType, EventTypeName},
};
use std::collections::BTreeSet;

/// What a caller says of an event type, in full.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypeFields {
    /// Shown to people.
    pub description: String,
    /// No longer offered.
    pub archived: bool,
    /// Still sent, no longer to be chosen.
    pub deprecated: bool,
    /// JSON object of version to JSON Schema, as text.
    pub schemas: Option<String>,
    /// Who sees it.
    pub feature_flags: BTreeSet<String>,
    /// Groups types for people.
    pub group_name: Option<String>,
}

/// Restricts a list of event types.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypeFilter {
    /// Archived ones too.
    pub include_archived: bool,
    /// Only types without flags or with one of these; `None` means all.
    pub visible_with: Option<BTreeSet<String>>,
}

/// Event types.
#[async_trait]
pub trait EventTypes: Send + Sync + 'static {
    /// Creates a type, or revives an archived one with these fields. [`WriteError::Taken`] when it exists.
    async fn create_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<EventType>, WriteError>;

    /// The type of this name, archived or not.
    async fn event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
    ) -> Result<Option<EventType>, StoreError>;

    /// A page of types by name.
    async fn event_types(
        &self,
        environment: &EnvironmentId,
        filter: EventTypeFilter,
        page: PageRequest<EventTypeName>,
    ) -> Result<Page<EventType>, StoreError>;

    /// Creates or replaces; `true` when it was created.
    async fn put_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
    ) -> Result<(EventType, bool), WriteError>;

    /// Archives, or with `expunge` deletes for good. `false` when there was none.
    async fn delete_event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
        expunge: bool,
    ) -> Result<bool, StoreError>;
}

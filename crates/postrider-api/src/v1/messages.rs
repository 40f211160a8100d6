//! Messages: publishing them (the first hop of every delivery), reading and expunging what was published.

use super::{
    applications::ApplicationIn,
    history::{self, Asked},
    in_message::{InMessage, MessagePath, NO_MESSAGE},
    message_in::{self, MessageIn, Publication},
    message_out::{MessageOut, PayloadOut},
};
use crate::{
    auth::Caller,
    error::{ApiError, Errors, Problem, Problems},
    idempotency::{Idempotency, IdempotencyParams},
    json::{self, JsonBody},
    paging::ListResponse,
    query::Query,
    scope::{AppPath, InApplication, find_application, path_text},
    state::ApiState,
};
use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use postrider_model::{
    access::Scope,
    application::{Application, Ref},
    id::MessageKind,
};
use postrider_store::{
    WriteError,
    endpoints::AppScope,
    messages::{Accepted, Audience, NewMessage},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};
use utoipa::{IntoParams, ToSchema};

/// Messages that one bulk expunge can name: each costs a durable commit.
const BULK_EXPUNGE: usize = 250;
/// What a message without channels and tags takes in an answer beside its payload, in bytes.
const MESSAGE_BYTES: usize = 512;
const NO_APPLICATION: &str = "Application not found";

/// Whether the payload is shown, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct ContentQuery {
    /// Show the payload; else it is `{}`. True by default.
    with_content: Option<bool>,
}

/// A caller that may publish, and the application it names; not looked for yet, since publishing can create it.
#[derive(Debug)]
pub(crate) struct Publishing {
    caller: Caller,
    reference: String,
}

impl Publishing {
    fn only_publishes(&self) -> bool {
        matches!(self.caller.identity.scope, Scope::Publish { .. })
    }
}

impl FromRequestParts<ApiState> for Publishing {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require_publisher()?;
        let reference = path_text(parts, state, "app_id").await?;
        Ok(Self { caller, reference })
    }
}

/// The application that a request publishes to, when its path is spelled as client libraries do.
pub(crate) fn published_to<'a>(method: &Method, path: &'a str) -> Option<&'a str> {
    let name = path.strip_prefix("/api/v1/app/")?.strip_suffix("/msg")?;
    let plain = !name.is_empty() && !name.contains(['/', '%']);
    (plain && *method == Method::POST).then_some(name)
}

/// The same as [`create`] without the router before it, whose boxes and copies were a tenth of what a message costs.
pub(crate) async fn publish_to(state: &ApiState, application: &str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let publishing = async {
        let caller = Caller::of(&parts, state).await?;
        caller.require_publisher()?;
        let publishing = Publishing { caller, reference: application.to_owned() };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        publish(state, publishing, Idempotency::of(&parts)?, &query, &parts.headers, body).await
    };
    publishing.await.unwrap_or_else(ApiError::into_response)
}

/// Publish a message
///
/// The answer comes when the message and all its deliveries are on disk. With the same `idempotency-key`, a repeated
/// request gets the message that the first one made.
#[utoipa::path(
    post, path = "/api/v1/app/{app_id}/msg", tag = "Message", operation_id = "v1.message.create",
    params(AppPath, ContentQuery, IdempotencyParams),
    request_body = MessageIn,
    responses((status = 202, description = "Accepted", body = MessageOut), Errors),
)]
pub(crate) async fn create(
    State(state): State<ApiState>,
    publishing: Publishing,
    idempotency: Idempotency,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    publish(&state, publishing, idempotency, &query, &parts.headers, body).await
}

async fn publish(
    state: &ApiState,
    publishing: Publishing,
    Idempotency(key): Idempotency,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let with_content = history::with_content(query)?;
    let (body, _turn) = state
        .admission
        .publish(&*state.store, &*state.pulse, (&publishing.caller, &publishing.reference), headers, body)
        .await?;
    let publication = Publication::read(&body, state.store.clock().now())?;
    let application = match find_application(state, &publishing.caller, &publishing.reference).await? {
        Some(application) => application,
        None => create_application(state, &publishing, publication.application).await?,
    };
    let scope = AppScope { environment: application.environment, application: application.id };
    let (payload, json) = (publication.payload.clone(), publication.json);
    let message = publication.into_message(scope.clone(), Audience::Matching, key);
    let accepted = accept(state, message).await?;
    let shown = if !with_content {
        PayloadOut::LeftOut
    } else if accepted.replayed {
        match first_payload(state, &scope, &accepted).await? {
            // Such a key publishes and reads nothing, also not by guessing the idempotency keys of others.
            PayloadOut::Published(first) if publishing.only_publishes() && first != payload => {
                PayloadOut::LeftOut
            }
            first => first,
        }
    } else {
        json.map_or(PayloadOut::LeftOut, PayloadOut::Brought)
    };
    let room = payload.len() + MESSAGE_BYTES;
    json::answer(StatusCode::ACCEPTED, &MessageOut::new(accepted.message, shown), room)
}

/// Accepts one message; the store gathers concurrent ones into a commit.
pub(crate) async fn accept(state: &ApiState, message: NewMessage) -> Result<Accepted, ApiError> {
    match state.store.accept(vec![message]).await.pop() {
        Some(Ok(accepted)) => {
            if !accepted.replayed {
                state.metrics.accepted();
            }
            Ok(accepted)
        }
        Some(Err(WriteError::Taken)) => {
            Err(ApiError::conflict("conflict", "A message with that eventId already exists"))
        }
        Some(Err(WriteError::Missing)) => Err(ApiError::not_found(NO_APPLICATION)),
        Some(Err(error @ WriteError::Store(_))) => Err(state.admission.not_stored(error.into()).await),
        Some(Err(error)) => Err(error.into()),
        None => Err(ApiError::internal(&"the store gave no result for a message")),
    }
}

/// What the first request with this idempotency key published.
async fn first_payload(
    state: &ApiState,
    scope: &AppScope,
    accepted: &Accepted,
) -> Result<PayloadOut<'static>, ApiError> {
    let first = state.store.message(scope, &Ref::Id(accepted.message.id)).await?;
    let now = state.store.clock().now();
    Ok(first.map_or(PayloadOut::Expired, |stored| PayloadOut::of_stored(&stored, true, now)))
}

/// The application that the message brings along. Only those who may create applications get one this way.
async fn create_application(
    state: &ApiState,
    publishing: &Publishing,
    sent: Option<&RawValue>,
) -> Result<Application, ApiError> {
    let no_application = || ApiError::not_found(NO_APPLICATION);
    let Some(sent) = sent.filter(|_| publishing.caller.identity.scope == Scope::Environment) else {
        return Err(no_application());
    };
    let sent: ApplicationIn = json::parse(sent.get().as_bytes())?;
    let problem = |kind, reason: &'static str| {
        ApiError::from(Problem::at("body", &["application", "uid"], reason).kind(kind))
    };
    match sent.uid() {
        None => return Err(problem("application_uid_missing", "is required to create the application")),
        Some(uid) if uid != publishing.reference => {
            return Err(problem("application_uid_mismatch", "must be the uid in the path"));
        }
        Some(_) => {}
    }
    let fields = sent.check().map_err(|problems| problems.within("application").into_error())?;
    match state.store.create_application(&publishing.caller.identity.environment, fields, None).await {
        Ok(created) => Ok(created.item),
        // Somebody else created it since it was looked for.
        Err(WriteError::Taken) => find_application(state, &publishing.caller, &publishing.reference)
            .await?
            .ok_or_else(no_application),
        Err(error) => Err(error.into()),
    }
}

/// List messages, newest first
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg", tag = "Message", operation_id = "v1.message.list",
    params(AppPath, ContentQuery, history::HistoryParams),
    responses((status = 200, description = "OK", body = ListResponse<MessageOut>), Errors),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    within: InApplication,
    query: Query,
) -> Result<Json<ListResponse<MessageOut<'static>>>, ApiError> {
    let now = state.store.clock().now();
    let mut problems = Problems::default();
    let asked = Asked::<MessageKind>::read(&query, now, &mut problems);
    let with_content = problems.check(history::with_content(&query));
    let (asked, with_content) = history::complete(asked.zip(with_content), problems)?;
    let page = state.store.messages(&within.scope, asked.filter, with_content, asked.page).await?;
    Ok(Json(ListResponse::new(
        page,
        |stored| stored.message.id.to_string(),
        |stored| MessageOut::of_stored(stored, with_content, now),
    )))
}

/// Get a message
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg/{msg_id}", tag = "Message", operation_id = "v1.message.get",
    params(MessagePath, ContentQuery),
    responses((status = 200, description = "OK", body = MessageOut), Errors),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    message: InMessage,
    query: Query,
) -> Result<Json<MessageOut<'static>>, ApiError> {
    let with_content = history::with_content(&query)?;
    Ok(Json(MessageOut::of_stored(message.stored, with_content, state.store.clock().now())))
}

/// A body as text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageRawPayloadOut {
    /// The bytes that are sent, as text.
    payload: String,
}

/// Get the body that is sent for a message
///
/// Also what is not a JSON object. 404 once the payload has expired or was expunged.
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg/{msg_id}/raw", tag = "Message", operation_id = "v1.message.get-raw-payload",
    params(MessagePath),
    responses((status = 200, description = "OK", body = MessageRawPayloadOut), Errors),
)]
pub(crate) async fn raw(
    State(state): State<ApiState>,
    message: InMessage,
) -> Result<Json<MessageRawPayloadOut>, ApiError> {
    match PayloadOut::of_stored(&message.stored, true, state.store.clock().now()) {
        PayloadOut::Published(bytes) => {
            let payload = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Json(MessageRawPayloadOut { payload }))
        }
        PayloadOut::Expired | PayloadOut::LeftOut | PayloadOut::Brought(_) => {
            Err(ApiError::not_found("The payload of this message has expired or was expunged"))
        }
    }
}

/// Delete the payload of a message
///
/// Pending deliveries of the message are cancelled.
#[utoipa::path(
    delete, path = "/api/v1/app/{app_id}/msg/{msg_id}/content", tag = "Message",
    operation_id = "v1.message.expunge-content",
    params(MessagePath),
    responses((status = 204, description = "Deleted"), Errors),
)]
pub(crate) async fn expunge(
    State(state): State<ApiState>,
    message: InMessage,
) -> Result<StatusCode, ApiError> {
    message.within.require_environment()?;
    if state.store.expunge_payload(message.scope(), message.id()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found(NO_MESSAGE))
    }
}

/// Messages whose payloads are to be deleted.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BulkExpungeContentsIn {
    /// Ids or event ids, at most 250.
    #[serde(default)]
    #[schema(max_items = 250)]
    ids: Vec<String>,
}

/// What became of each message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkExpungeContentsOut {
    /// By id or event id as it was given: `expunged` or `not-found`.
    #[schema(value_type = BTreeMap<String, String>)]
    results: BTreeMap<String, &'static str>,
}

/// Delete the payloads of several messages
#[utoipa::path(
    post, path = "/api/v1/app/{app_id}/msg/bulk-expunge", tag = "Message",
    operation_id = "v1.message.bulk-expunge-content",
    params(AppPath),
    request_body = BulkExpungeContentsIn,
    responses((status = 200, description = "OK", body = BulkExpungeContentsOut), Errors),
)]
pub(crate) async fn bulk_expunge(
    State(state): State<ApiState>,
    within: InApplication,
    JsonBody(body): JsonBody<BulkExpungeContentsIn>,
) -> Result<Json<BulkExpungeContentsOut>, ApiError> {
    within.require_environment()?;
    if body.ids.len() > BULK_EXPUNGE {
        return Err(Problem::body("ids", format!("must have at most {BULK_EXPUNGE} items")).into());
    }
    let mut results = BTreeMap::new();
    for name in body.ids {
        let expunged = expunge_one(&state, &within.scope, &name).await?;
        results.insert(name, if expunged { "expunged" } else { "not-found" });
    }
    Ok(Json(BulkExpungeContentsOut { results }))
}

async fn expunge_one(state: &ApiState, scope: &AppScope, name: &str) -> Result<bool, ApiError> {
    let id = match Ref::parse(name) {
        None => return Ok(false),
        Some(Ref::Id(id)) => id,
        Some(reference @ Ref::Uid(_)) => match state.store.message(scope, &reference).await? {
            Some(stored) => stored.message.id,
            None => return Ok(false),
        },
    };
    Ok(state.store.expunge_payload(scope, id).await?)
}

/// A message that might be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessagePrecheckIn {
    /// Its event type.
    event_type: String,
    /// Its channels.
    channels: Option<Vec<String>>,
}

/// Whether anybody would get it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagePrecheckOut {
    /// At least one enabled endpoint would.
    active: bool,
}

/// Ask whether any endpoint would get a message
#[utoipa::path(
    post, path = "/api/v1/app/{app_id}/msg/precheck/active", tag = "Message", operation_id = "v1.message.precheck",
    params(AppPath),
    request_body = MessagePrecheckIn,
    responses((status = 200, description = "OK", body = MessagePrecheckOut), Errors),
)]
pub(crate) async fn precheck(
    State(state): State<ApiState>,
    within: InApplication,
    JsonBody(body): JsonBody<MessagePrecheckIn>,
) -> Result<Json<MessagePrecheckOut>, ApiError> {
    let names: Option<Vec<Cow<'_, str>>> =
        body.channels.as_ref().map(|names| names.iter().map(|name| Cow::from(name.as_str())).collect());
    let mut problems = Problems::default();
    let event_type = problems.check(message_in::event_type(&body.event_type));
    let channels = problems.check(message_in::channels(names.as_deref()));
    let (event_type, channels) = history::complete(event_type.zip(channels), problems)?;
    let active = state.store.any_match(&within.scope, &event_type, &channels).await?;
    Ok(Json(MessagePrecheckOut { active }))
}

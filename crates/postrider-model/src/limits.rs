//! Every bound of the domain with its reason. Bounds of one part (queue lengths, pool sizes) stand in that part's `Config`.

use std::time::Duration;

/// Largest payload of a message, in bytes. Svix documents 1 MiB; larger results belong behind a link.
pub const PAYLOAD_BYTES: usize = 1024 * 1024;
/// Largest body of an API request, in bytes: a payload plus its envelope, escaped at worst.
pub const REQUEST_BODY_BYTES: usize = 2 * PAYLOAD_BYTES + 64 * 1024;
/// Deepest nesting of JSON that is accepted: what a recursive reader on the other side survives.
pub const JSON_DEPTH: usize = 128;
/// Longest uid, event type name or id in a path.
pub const NAME_BYTES: usize = 256;
/// Serialised metadata of an application or endpoint, in bytes.
pub const METADATA_BYTES: usize = 4096;
/// Longest endpoint or token URL, in bytes: what proxies and servers commonly take.
pub const URL_BYTES: usize = 2048;
/// Most channels of a message or of an endpoint's filter.
pub const CHANNELS: usize = 10;
/// Longest channel name.
pub const CHANNEL_BYTES: usize = 128;
/// Most tags of a message.
pub const TAGS: usize = 5;
/// Longest tag.
pub const TAG_BYTES: usize = 128;
/// Most event types that an endpoint can filter on.
pub const FILTER_EVENT_TYPES: usize = 500;
/// Most endpoints of one application: a message's deliveries are committed in one transaction, and at this fan-out
/// that transaction still takes milliseconds.
pub const ENDPOINTS_PER_APPLICATION: usize = 1000;
/// Longest free text (names, descriptions), in bytes.
pub const TEXT_BYTES: usize = 4096;
/// Most custom headers of an endpoint.
pub const HEADERS: usize = 32;
/// Longest custom header name.
pub const HEADER_NAME_BYTES: usize = 128;
/// Longest custom header value.
pub const HEADER_VALUE_BYTES: usize = 4096;
/// All custom headers of an endpoint together: below the 16 KiB that common servers allow for a whole head.
pub const HEADERS_BYTES: usize = 16 * 1024;
/// Previous signing secrets that still sign during their overlap.
pub const PREVIOUS_SECRETS: usize = 10;
/// Longest overlap of a rotated signing secret.
pub const SECRET_OVERLAP: Duration = Duration::from_hours(168);
/// Response body kept per attempt, in bytes.
pub const RESPONSE_BODY_BYTES: usize = 20_000;
/// Time that the body of a response may take after its head.
pub const RESPONSE_BODY_TIME: Duration = Duration::from_secs(2);
/// Most waits of a retry schedule.
pub const RETRY_STEPS: usize = 50;
/// Longest single wait of a retry schedule.
pub const RETRY_WAIT: Duration = Duration::from_hours(168);
/// Longest age at which a delivery is still attempted.
pub const DELIVERY_AGE: Duration = Duration::from_hours(720);
/// Items of a page: default and most.
pub const PAGE_DEFAULT: usize = 50;
/// See [`PAGE_DEFAULT`].
pub const PAGE_MOST: usize = 250;
/// Payload bytes of a page: a page of the largest messages would else be a quarter of a gigabyte.
pub const PAGE_BYTES: usize = 4 * PAYLOAD_BYTES;
/// `OAuth2`: scopes, extra parameters, extra headers.
pub const OAUTH_SCOPES: usize = 50;
/// See [`OAUTH_SCOPES`].
pub const OAUTH_EXTRAS: usize = 8;
/// Longest client secret, in bytes: signed assertions stay below.
pub const OAUTH_SECRET_BYTES: usize = 4096;
/// Deaths of the process during attempts of the same delivery until it is set aside.
pub const POISON_DEATHS: u32 = 3;
/// How long the answer to an idempotency key is remembered: longer than any publisher's retries of a day's work.
pub const IDEMPOTENCY_AGE: Duration = Duration::from_hours(24);
/// The same for keys that a client library makes for one call (`auto_…`): beyond its longest retry.
pub const IDEMPOTENCY_AGE_AUTO: Duration = Duration::from_mins(10);

// Bounds that lean on each other.
const _: () = {
    assert!(REQUEST_BODY_BYTES > 2 * PAYLOAD_BYTES, "an envelope around the largest payload must fit");
    assert!(
        HEADER_NAME_BYTES + HEADER_VALUE_BYTES <= HEADERS_BYTES,
        "one header of the largest size must fit"
    );
    assert!(RETRY_WAIT.as_secs() <= DELIVERY_AGE.as_secs(), "a single wait must not outlive its delivery");
    assert!(PAGE_DEFAULT <= PAGE_MOST);
    assert!(IDEMPOTENCY_AGE_AUTO.as_secs() <= IDEMPOTENCY_AGE.as_secs());
};

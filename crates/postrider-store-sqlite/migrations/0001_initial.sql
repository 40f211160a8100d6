-- The first schema. Ids are 20-byte blobs whose order is the order of time; instants are microseconds since 1970.
-- Labels (channels, tags, event types of a filter) are sorted and joined by line feeds, which none of them can contain;
-- NULL means none.

-- Environments, and the keys that seal their credentials.

CREATE TABLE environment (
    id         TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE data_key (
    environment TEXT NOT NULL,
    id          BLOB NOT NULL,
    kek         TEXT NOT NULL,
    wrapped     BLOB NOT NULL,
    active      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (environment, id)
) STRICT, WITHOUT ROWID;

-- Which keys of the operator's keyring this database needs, with a check value of each.
CREATE TABLE keyring_meta (
    kek         TEXT PRIMARY KEY,
    check_value BLOB NOT NULL,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every credential there is, sealed and bound to its row: one table, so that rotation cannot miss a column.
CREATE TABLE secret (
    owner       BLOB NOT NULL,
    kind        TEXT NOT NULL,
    id          TEXT NOT NULL,
    version     INTEGER NOT NULL,
    environment TEXT NOT NULL,
    application BLOB NOT NULL,
    owner_table TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    valid_until INTEGER,
    PRIMARY KEY (owner, kind, id, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX secret_ending ON secret (valid_until) WHERE valid_until IS NOT NULL;

CREATE TABLE api_key (
    id          BLOB PRIMARY KEY,
    environment TEXT NOT NULL,
    scope       TEXT NOT NULL,
    name        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER,
    kek         TEXT NOT NULL,
    secret_mac  BLOB NOT NULL,
    row_mac     BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX api_key_environment ON api_key (environment, id);

CREATE TABLE idempotency (
    environment TEXT NOT NULL,
    digest      BLOB NOT NULL,
    kind        INTEGER NOT NULL,
    created     BLOB NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (environment, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- Configuration.

CREATE TABLE application (
    id            BLOB PRIMARY KEY,
    environment   TEXT NOT NULL,
    uid           TEXT,
    name          TEXT NOT NULL,
    throttle_rate INTEGER,
    metadata      TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    deleted_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX application_uid ON application (environment, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX application_environment ON application (environment, id) WHERE deleted_at IS NULL;
CREATE INDEX application_deleted ON application (deleted_at) WHERE deleted_at IS NOT NULL;

-- Deleted endpoints stay while history names them. `headers` is JSON: names, and values that are not sensitive.
CREATE TABLE endpoint (
    id              BLOB PRIMARY KEY,
    application     BLOB NOT NULL,
    uid             TEXT,
    url             TEXT NOT NULL,
    description     TEXT NOT NULL,
    throttle_rate   INTEGER,
    event_types     TEXT,
    channels        TEXT,
    disabled_reason TEXT,
    disabled_at     INTEGER,
    metadata        TEXT NOT NULL,
    retry           TEXT,
    legacy_version  INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    headers         TEXT,
    oauth           TEXT,
    oauth_version   INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX endpoint_uid ON endpoint (application, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX endpoint_application ON endpoint (application, id) WHERE deleted_at IS NULL;
-- For retention, which asks whether a deleted application has any left.
CREATE INDEX endpoint_application_deleted ON endpoint (application) WHERE deleted_at IS NOT NULL;
CREATE INDEX endpoint_deleted ON endpoint (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE event_type (
    environment   TEXT NOT NULL,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL,
    archived      INTEGER NOT NULL,
    deprecated    INTEGER NOT NULL,
    schemas       TEXT,
    feature_flags TEXT,
    group_name    TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (environment, name)
) STRICT, WITHOUT ROWID;

-- Messages; payloads lie apart, so that lists do not read them and they can go earlier.

CREATE TABLE message (
    id                 BLOB PRIMARY KEY,
    application        BLOB NOT NULL,
    event_id           TEXT,
    event_type         TEXT NOT NULL,
    channels           TEXT,
    tags               TEXT,
    content_type       TEXT,
    deliver_at         INTEGER,
    payload            INTEGER,
    payload_expires_at INTEGER NOT NULL,
    created_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_application ON message (application, id);
CREATE UNIQUE INDEX message_event_id ON message (application, event_id) WHERE event_id IS NOT NULL;

CREATE TABLE payload (
    id         INTEGER PRIMARY KEY,
    message    BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    body       BLOB NOT NULL
) STRICT;
CREATE INDEX payload_expiry ON payload (expires_at);

-- state: 0 pending, 1 delivered, 2 failed (then with a reason), 3 cancelled. Claims are not written: one process owns
-- the file, and its memory holds the leases.
CREATE TABLE delivery (
    message         BLOB NOT NULL,
    endpoint        BLOB NOT NULL,
    generation      INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    deadline_at     INTEGER NOT NULL,
    cause           INTEGER NOT NULL,
    deaths          INTEGER NOT NULL,
    reason          TEXT,
    PRIMARY KEY (message, endpoint, generation)
) STRICT, WITHOUT ROWID;
-- The hot part, apart from history: as small as what waits. First attempts and retries apart, each in due order; the
-- last column only saves a look at the table.
CREATE INDEX delivery_due ON delivery (endpoint, attempts > 0, next_attempt_at, message, generation, attempts)
    WHERE state = 0;
CREATE INDEX delivery_endpoint ON delivery (endpoint, message);
CREATE INDEX delivery_cancelled ON delivery (endpoint, message) WHERE state = 3;

CREATE TABLE attempt (
    message     BLOB NOT NULL,
    endpoint    BLOB NOT NULL,
    id          BLOB NOT NULL,
    generation  INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    cause       INTEGER NOT NULL,
    url         TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    duration    INTEGER NOT NULL,
    outcome     INTEGER NOT NULL,
    detail      TEXT NOT NULL,
    status      INTEGER,
    truncated   INTEGER NOT NULL,
    expunged    INTEGER NOT NULL,
    token       INTEGER,
    dns         INTEGER,
    connect     INTEGER,
    tls         INTEGER,
    first_byte  INTEGER,
    PRIMARY KEY (message, endpoint, id)
) STRICT, WITHOUT ROWID;
-- With the outcome, so that statistics read the index alone.
CREATE INDEX attempt_endpoint ON attempt (endpoint, id, outcome);

-- Response bodies that are not empty.
CREATE TABLE response (
    attempt BLOB PRIMARY KEY,
    body    BLOB NOT NULL
) STRICT;

-- What proves that a write can be made durable.
CREATE TABLE probe (
    id   INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- The first schema. Ids are 20 bytes whose order is the order of time; instants are microseconds since 1970 by the
-- database's clock. Labels (channels, tags, event types of a filter) are sorted and joined by line feeds, which none of
-- them can contain; NULL means none. Names are compared byte by byte.

-- Environments, and the keys that seal their credentials.

CREATE TABLE environment (
    id         text COLLATE "C" PRIMARY KEY,
    created_at bigint NOT NULL
);

CREATE TABLE data_key (
    environment text COLLATE "C" NOT NULL,
    id          bytea NOT NULL,
    kek         text COLLATE "C" NOT NULL,
    wrapped     bytea NOT NULL,
    active      boolean NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (environment, id)
);

-- Which keys of the operator's keyring this database needs, with a check value of each.
CREATE TABLE keyring_meta (
    kek         text COLLATE "C" PRIMARY KEY,
    check_value bytea NOT NULL,
    first_seen  bigint NOT NULL,
    last_seen   bigint NOT NULL
);

-- Every credential there is, sealed and bound to its row: one table, so that rotation cannot miss a column.
CREATE TABLE secret (
    owner       bytea NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    id          text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    environment text COLLATE "C" NOT NULL,
    application bytea NOT NULL,
    owner_table text COLLATE "C" NOT NULL,
    sealed      bytea NOT NULL,
    fingerprint bytea NOT NULL,
    created_at  bigint NOT NULL,
    valid_until bigint,
    PRIMARY KEY (owner, kind, id, version)
);
-- A snapshot reads all credentials of an application at once.
CREATE INDEX secret_application ON secret (application);
CREATE INDEX secret_ending ON secret (valid_until) WHERE valid_until IS NOT NULL;

CREATE TABLE api_key (
    id          bytea PRIMARY KEY,
    environment text COLLATE "C" NOT NULL,
    scope       text NOT NULL,
    name        text NOT NULL,
    created_at  bigint NOT NULL,
    expires_at  bigint,
    revoked_at  bigint,
    kek         text COLLATE "C" NOT NULL,
    secret_mac  bytea NOT NULL,
    row_mac     bytea NOT NULL
);
CREATE INDEX api_key_environment ON api_key (environment, id);

CREATE TABLE idempotency (
    environment text COLLATE "C" NOT NULL,
    digest      bytea NOT NULL,
    kind        smallint NOT NULL,
    created     bytea NOT NULL,
    expires_at  bigint NOT NULL,
    PRIMARY KEY (environment, digest)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- Configuration.

-- Numbers every change at or below an application, over all nodes.
CREATE SEQUENCE config_version;

CREATE TABLE application (
    id             bytea PRIMARY KEY,
    environment    text COLLATE "C" NOT NULL,
    uid            text COLLATE "C",
    name           text NOT NULL,
    throttle_rate  integer,
    metadata       text NOT NULL,
    version        bigint NOT NULL,
    config_version bigint NOT NULL,
    created_at     bigint NOT NULL,
    updated_at     bigint NOT NULL,
    deleted_at     bigint
);
CREATE UNIQUE INDEX application_uid ON application (environment, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX application_environment ON application (environment, id) WHERE deleted_at IS NULL;
CREATE INDEX application_deleted ON application (deleted_at) WHERE deleted_at IS NOT NULL;
-- What changed since a node last looked.
CREATE INDEX application_changed ON application (config_version);

-- Deleted endpoints stay while history names them. `headers` is JSON: names, and values that are not sensitive.
CREATE TABLE endpoint (
    id              bytea PRIMARY KEY,
    application     bytea NOT NULL,
    uid             text COLLATE "C",
    url             text NOT NULL,
    description     text NOT NULL,
    throttle_rate   integer,
    event_types     text,
    channels        text,
    disabled_reason text,
    disabled_at     bigint,
    metadata        text NOT NULL,
    retry           text,
    legacy_version  integer NOT NULL,
    version         bigint NOT NULL,
    headers         text,
    oauth           text,
    oauth_version   bigint NOT NULL,
    created_at      bigint NOT NULL,
    updated_at      bigint NOT NULL,
    deleted_at      bigint
);
CREATE UNIQUE INDEX endpoint_uid ON endpoint (application, uid) WHERE uid IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX endpoint_application ON endpoint (application, id) WHERE deleted_at IS NULL;
-- For retention, which asks whether a deleted application has any left.
CREATE INDEX endpoint_application_deleted ON endpoint (application) WHERE deleted_at IS NOT NULL;
CREATE INDEX endpoint_deleted ON endpoint (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE event_type (
    environment   text COLLATE "C" NOT NULL,
    name          text COLLATE "C" NOT NULL,
    description   text NOT NULL,
    archived      boolean NOT NULL,
    deprecated    boolean NOT NULL,
    schemas       text,
    feature_flags text,
    group_name    text,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    PRIMARY KEY (environment, name)
);

-- History: partitioned by the time that ids begin with, so that whole weeks can be dropped. What no week has a
-- partition for lies in the default one.

CREATE TABLE message (
    id                 bytea NOT NULL,
    application        bytea NOT NULL,
    event_id           text COLLATE "C",
    event_type         text COLLATE "C" NOT NULL,
    channels           text,
    tags               text,
    content_type       text,
    deliver_at         bigint,
    payload_expires_at bigint NOT NULL,
    created_at         bigint NOT NULL,
    -- NULL once it is gone.
    payload            bytea,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE TABLE message_rest PARTITION OF message DEFAULT;
-- Payloads are sent as they are: compressing them costs more than it saves.
ALTER TABLE message ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX message_application ON message (application, id);

-- Unique over all partitions, which an index of a partitioned table cannot be.
CREATE TABLE event_id (
    application bytea NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    message     bytea NOT NULL,
    PRIMARY KEY (application, event_id)
);
CREATE INDEX event_id_message ON event_id (message);

-- Payloads that go before the server's own retention; the others are found by age.
CREATE TABLE payload_expiry (
    expires_at bigint NOT NULL,
    message    bytea NOT NULL,
    PRIMARY KEY (expires_at, message)
);

-- What waits: the hot table, as small as the work, apart from history. A delivery that ends moves to `delivery`.
-- `shard` follows from the endpoint; `retry` is whether an attempt was made, so that first attempts are found first.
CREATE TABLE pending (
    message     bytea NOT NULL,
    endpoint    bytea NOT NULL,
    generation  integer NOT NULL,
    application bytea NOT NULL,
    shard       smallint NOT NULL,
    retry       boolean NOT NULL,
    attempts    integer NOT NULL,
    deaths      integer NOT NULL,
    cause       smallint NOT NULL,
    due_at      bigint NOT NULL,
    deadline_at bigint NOT NULL,
    PRIMARY KEY (message, endpoint, generation)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX pending_due ON pending (shard, endpoint, retry, due_at);
CREATE INDEX pending_endpoint ON pending (endpoint, message);

-- state: 1 delivered, 2 failed (then with a reason), 3 cancelled.
CREATE TABLE delivery (
    message    bytea NOT NULL,
    endpoint   bytea NOT NULL,
    generation integer NOT NULL,
    state      smallint NOT NULL,
    attempts   integer NOT NULL,
    deaths     integer NOT NULL,
    cause      smallint NOT NULL,
    reason     text,
    PRIMARY KEY (message, endpoint, generation)
) PARTITION BY RANGE (message);
CREATE TABLE delivery_rest PARTITION OF delivery DEFAULT;
CREATE INDEX delivery_endpoint ON delivery (endpoint, message, state);

-- Partitioned by their own ids, so by when they were made. Response bodies are NULL when empty.
CREATE TABLE attempt (
    message     bytea NOT NULL,
    endpoint    bytea NOT NULL,
    id          bytea NOT NULL,
    generation  integer NOT NULL,
    number      integer NOT NULL,
    cause       smallint NOT NULL,
    url         text NOT NULL,
    started_at  bigint NOT NULL,
    duration    bigint NOT NULL,
    outcome     smallint NOT NULL,
    detail      text NOT NULL,
    status      integer,
    truncated   boolean NOT NULL,
    expunged    boolean NOT NULL,
    token       bigint,
    dns         bigint,
    connect     bigint,
    tls         bigint,
    first_byte  bigint,
    body        bytea,
    PRIMARY KEY (message, endpoint, id)
) PARTITION BY RANGE (id);
CREATE TABLE attempt_rest PARTITION OF attempt DEFAULT;
-- With the outcome, so that statistics read the index alone.
CREATE INDEX attempt_endpoint ON attempt (endpoint, id, outcome);

-- Who works on what.

-- One row per start of a process. Its lease covers its shards; when another node ends it, whatever it still writes is
-- refused.
CREATE TABLE node (
    id          bytea PRIMARY KEY,
    name        text NOT NULL,
    started_at  bigint NOT NULL,
    lease_until bigint NOT NULL,
    ended       boolean NOT NULL
);

CREATE TABLE shard (
    id    smallint PRIMARY KEY,
    owner bytea
);
INSERT INTO shard (id) SELECT generate_series(0, 63);

-- Attempts that have begun. Not logged: what a crash of the database forgets costs nobody a delivery.
CREATE UNLOGGED TABLE in_flight (
    node  bytea NOT NULL,
    batch bigint NOT NULL,
    notes bytea[] NOT NULL,
    PRIMARY KEY (node, batch)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
-- In the row itself, as it is: rows live for moments.
ALTER TABLE in_flight ALTER COLUMN notes SET STORAGE PLAIN;

-- What proves that a write can be made durable.
CREATE TABLE probe (
    id   integer PRIMARY KEY,
    body bytea NOT NULL
);

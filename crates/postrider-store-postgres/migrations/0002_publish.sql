-- Publishing inside of an application's own transaction: see docs/publish-in-a-transaction.md. What a transaction publishes
-- lies in `outbox` until a node has made the message and its deliveries of it (src/accept/routing.rs), which happens
-- after the commit, because an application's transaction may stay open for long: it takes no lock that anybody who
-- accepts or configures waits for.

-- Who may publish, by the name of a database role; filled by `allow`.
CREATE TABLE publisher (
    role        text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    PRIMARY KEY (role, environment)
);

-- What was published and is not routed yet. `payload_lifetime` is in microseconds. A row that cannot be routed is set
-- aside with the reason: set it to NULL to have it tried again.
CREATE TABLE outbox (
    id               bytea PRIMARY KEY,
    environment      text COLLATE "C" NOT NULL,
    application      bytea NOT NULL,
    event_id         text COLLATE "C",
    event_type       text COLLATE "C" NOT NULL,
    channels         text,
    tags             text,
    content_type     text,
    deliver_at       bigint,
    payload_lifetime bigint,
    created_at       bigint NOT NULL,
    payload          bytea NOT NULL,
    set_aside        text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL;
-- Transactions commit in any order: what waits is found by being there, not by how far somebody has read.
CREATE INDEX outbox_waiting ON outbox (id) WHERE set_aside IS NULL;
CREATE UNIQUE INDEX outbox_event_id ON outbox (application, event_id) WHERE event_id IS NOT NULL;

-- Idempotency keys of `publish`: apart from those of the API, so that no request waits for an open transaction.
CREATE TABLE publish_key (
    environment text COLLATE "C" NOT NULL,
    digest      bytea NOT NULL,
    message     bytea NOT NULL,
    expires_at  bigint NOT NULL,
    PRIMARY KEY (environment, digest)
);
CREATE INDEX publish_key_expiry ON publish_key (expires_at);

-- Orders the ids of one tick over all sessions.
CREATE SEQUENCE outbox_serial;

-- Ids as text: 27 digits of base 62 for 20 bytes.

CREATE FUNCTION ksuid_text(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    alphabet CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    value numeric := 0;
    digits text := '';
BEGIN
    FOR word IN 0..4 LOOP
        value := value * 4294967296 + ('x' || encode(substring(bytes FROM 4 * word + 1 FOR 4), 'hex'))::bit(32)::bigint;
    END LOOP;
    FOR place IN 1..27 LOOP
        digits := substr(alphabet, (value % 62)::integer + 1, 1) || digits;
        value := div(value, 62);
    END LOOP;
    RETURN digits;
END $$;

-- NULL for what is not one.
CREATE FUNCTION ksuid_bytes(digits text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    alphabet CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    value numeric := 0;
    bytes bytea := '';
BEGIN
    IF digits COLLATE "C" !~ '^[0-9A-Za-z]{27}$' THEN
        RETURN NULL;
    END IF;
    FOR place IN 1..27 LOOP
        value := value * 62 + (strpos(alphabet, substr(digits, place, 1)) - 1);
    END LOOP;
    IF value >= 1461501637330902918203684832716283019655932542976 THEN -- 2 to the power of 160
        RETURN NULL;
    END IF;
    FOR word IN 1..5 LOOP
        bytes := substring(int8send((value % 4294967296)::bigint) FROM 5) || bytes;
        value := div(value, 4294967296);
    END LOOP;
    RETURN bytes;
END $$;

-- An id for this instant, in microseconds: seconds, ticks of 4 ms, a counter, 8 random bytes. The top bit of the counter
-- stays free, as in ids that a node makes.
CREATE FUNCTION ksuid_next(micros bigint) RETURNS bytea
LANGUAGE sql VOLATILE SET search_path = pg_catalog, postrider, pg_temp AS $$
    SELECT substring(int8send(micros / 1000000 - 1400000000) FROM 5)
        || substring(int8send(micros % 1000000 / 4000) FROM 8)
        || substring(int8send(nextval('outbox_serial') & 36028797018963967) FROM 2)
        || substring(random FROM 1 FOR 6) || substring(random FROM 15 FOR 2)
    FROM uuid_send(gen_random_uuid()) AS random
$$;

-- Refuses a value of the caller's: `field` stands in the message and as the error's column name.
CREATE FUNCTION refuse(field text, reason text, state text DEFAULT '22023') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = state, SCHEMA = 'postrider', COLUMN = field,
        MESSAGE = 'postrider.publish: ' || field || ' ' || reason;
END $$;

-- How deep the brackets of valid JSON nest, counted up to `most` + 1.
CREATE FUNCTION json_depth(body text, most integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    brackets text;
    depth integer := 0;
BEGIN
    -- So few open that they cannot nest deeper.
    IF length(body) - length(translate(body, '[{', '')) <= most THEN
        RETURN 0;
    END IF;
    brackets := regexp_replace(body, E'"(?:[^"\\\\]+|\\\\.)*"', '', 'g');
    brackets := translate(regexp_replace(brackets, '[^][{}]+', '', 'g'), '{}', '[]');
    -- Each round takes the innermost pairs away.
    WHILE brackets <> '' AND depth <= most LOOP
        brackets := replace(brackets, '[]', '');
        depth := depth + 1;
    END LOOP;
    RETURN depth;
END $$;

-- Refuses a payload that the API would refuse: crates/postrider-model/src/payload.rs.
CREATE FUNCTION check_payload(payload bytea, is_raw boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    body text;
    is_object boolean;
BEGIN
    IF octet_length(payload) > 1048576 THEN
        PERFORM refuse('payload', 'is larger than 1048576 bytes; publish a link to what is larger', '54000');
    END IF;
    BEGIN
        body := convert_from(payload, 'UTF8');
        is_object := is_raw OR json_typeof(body::json) = 'object';
    EXCEPTION
        WHEN character_not_in_repertoire OR untranslatable_character OR invalid_text_representation THEN
            PERFORM refuse('payload', 'is not valid JSON');
        WHEN statement_too_complex THEN
            PERFORM refuse('payload', 'is nested deeper than 128 levels');
    END;
    IF NOT is_object THEN
        PERFORM refuse('payload', 'must be a JSON object; for any other body use postrider.publish_raw');
    END IF;
    IF NOT is_raw AND json_depth(body, 128) > 128 THEN
        PERFORM refuse('payload', 'is nested deeper than 128 levels');
    END IF;
END $$;

-- Labels as their column keeps them: sorted, each once, joined by line feeds.
CREATE FUNCTION join_labels(field text, labels text[], fewest integer, most integer, pattern text, rule text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    label text;
    place integer := 0;
BEGIN
    IF labels IS NULL THEN
        RETURN NULL;
    END IF;
    IF cardinality(labels) NOT BETWEEN fewest AND most THEN
        PERFORM refuse(field, CASE fewest WHEN 0 THEN 'must have at most ' || most || ' items'
            ELSE 'must have ' || fewest || ' to ' || most || ' items, or be left out' END);
    END IF;
    FOREACH label IN ARRAY labels LOOP
        IF coalesce(label COLLATE "C" !~ pattern, true) THEN
            PERFORM refuse(field || '[' || place || ']', rule);
        END IF;
        place := place + 1;
    END LOOP;
    RETURN (SELECT string_agg(DISTINCT one COLLATE "C", E'\n' ORDER BY one COLLATE "C") FROM unnest(labels) AS one);
END $$;

-- The environment that the session's role publishes to. Inside of a function that runs with its owner's rights the
-- caller is who the session is: the role that was set, or who logged in.
CREATE FUNCTION publishing_to(named text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    caller CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    found text[];
BEGIN
    found := ARRAY(
        SELECT DISTINCT publisher.environment FROM publisher JOIN pg_roles ON pg_roles.rolname = publisher.role
        WHERE pg_has_role(caller, pg_roles.oid, 'USAGE') AND (named IS NULL OR publisher.environment = named) LIMIT 2);
    IF cardinality(found) > 1 THEN
        PERFORM refuse('environment', 'is required: role ' || quote_ident(caller) || ' publishes to several');
    ELSIF cardinality(found) = 0 THEN
        RAISE insufficient_privilege USING SCHEMA = 'postrider', COLUMN = 'environment',
            MESSAGE = 'postrider.publish: role ' || quote_ident(caller) || ' may not publish'
                || coalesce(' to environment ' || quote_literal(left(named, 64)), ''),
            HINT = 'The operator allows it with SELECT postrider.allow(role, environment).';
    END IF;
    RETURN found[1];
END $$;

-- The application that an id or a uid names.
CREATE FUNCTION find_application(named text, of_environment text) RETURNS bytea
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    wanted CONSTANT bytea := CASE WHEN starts_with(named, 'app_') THEN ksuid_bytes(substr(named, 5)) END;
    found bytea;
BEGIN
    IF wanted IS NULL THEN
        SELECT application.id INTO found FROM application
        WHERE application.environment = of_environment AND application.uid = named AND application.deleted_at IS NULL;
    ELSE
        SELECT application.id INTO found FROM application
        WHERE application.id = wanted AND application.environment = of_environment AND application.deleted_at IS NULL;
    END IF;
    IF found IS NULL THEN
        RAISE no_data_found USING SCHEMA = 'postrider', COLUMN = 'application',
            MESSAGE = 'postrider.publish: application not found',
            HINT = 'Name one by its id (app_…) or its uid; create it first through the API.';
    END IF;
    RETURN found;
END $$;

-- The message that this key made before, or NULL when the key is now that of `made`. Who has the same key waits until
-- this transaction ends, and only who has the same key.
CREATE FUNCTION take_key(of_environment text, of_application bytea, key text, made bytea, micros bigint) RETURNS bytea
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    of_key CONSTANT bytea := sha256(of_application || convert_to(key, 'UTF8'));
    until CONSTANT bigint := micros + CASE WHEN starts_with(key, 'auto_') THEN 600000000 ELSE 86400000000 END;
    first bytea;
BEGIN
    LOOP
        INSERT INTO publish_key (environment, digest, message, expires_at) VALUES (of_environment, of_key, made, until)
        ON CONFLICT (environment, digest) DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT publish_key.message INTO first FROM publish_key
        WHERE publish_key.environment = of_environment AND publish_key.digest = of_key AND expires_at > micros;
        IF FOUND THEN
            RETURN first;
        END IF;
        -- Too long ago: the key is a new one.
        UPDATE publish_key SET message = made, expires_at = until
        WHERE publish_key.environment = of_environment AND publish_key.digest = of_key AND expires_at <= micros;
        IF FOUND THEN
            RETURN NULL;
        END IF;
    END LOOP;
END $$;

-- What the functions below have in common: checks all, and puts the message into the outbox.
CREATE FUNCTION publish_checked(
    named_application text, of_type text, body bytea, is_raw boolean, of_content_type text, of_event_id text, key text,
    of_channels text[], of_tags text[], not_before timestamptz, retention_hours integer, named_environment text
) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    micros CONSTANT bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    name_rule CONSTANT text := 'must be 1 to 256 of letters, digits, `-`, `_`, `.`';
    of_environment text;
    of_application bytea;
    made bytea;
    first bytea;
    joined_channels text;
    joined_tags text;
    -- What the session sees of these tables (0005_row_level_security.sql); given back at the end.
    seen CONSTANT text := coalesce(current_setting('postrider.environments', true), '');
BEGIN
    PERFORM set_config('postrider.environments', '*', true);
    of_environment := publishing_to(named_environment);
    PERFORM set_config('postrider.environments', of_environment, true);
    IF body IS NULL THEN
        PERFORM refuse('payload', 'is required', '22004');
    END IF;
    PERFORM check_payload(body, is_raw);
    IF of_event_id IS NOT NULL AND (starts_with(of_event_id, 'msg_') OR of_event_id COLLATE "C" !~ '^[a-zA-Z0-9_.-]{1,255}[a-zA-Z0-9_.-]?$')
    THEN
        PERFORM refuse('event_id', name_rule || ', and not begin with `msg_`');
    END IF;
    IF of_type IS NULL OR of_type COLLATE "C" !~ '^[a-zA-Z0-9_.-]{1,255}[a-zA-Z0-9_.-]?$' THEN
        PERFORM refuse('event_type', name_rule, CASE WHEN of_type IS NULL THEN '22004' ELSE '22023' END);
    END IF;
    joined_channels := join_labels('channels', of_channels, 1, 10, '^[a-zA-Z0-9_.:+-]{1,128}$',
        'must be 1 to 128 of letters, digits, `-`, `_`, `.`, `:`, `+`');
    joined_tags := join_labels('tags', of_tags, 0, 5, E'^[a-zA-Z0-9_./\\\\#-]{1,128}$',
        E'must be 1 to 128 of letters, digits, `-`, `_`, `.`, `/`, `\\`, `#`');
    IF of_content_type IS NOT NULL AND (octet_length(of_content_type) > 255 OR of_content_type COLLATE "C"
        !~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]+/[!#$%&''*+.^_`|~0-9A-Za-z-]+ *(;[ -~]*)?$')
    THEN
        PERFORM refuse('content_type', 'must be a media type such as text/xml or text/plain; charset=utf-8');
    END IF;
    IF retention_hours NOT BETWEEN 1 AND 2160 THEN
        PERFORM refuse('payload_retention_hours', 'must be a number from 1 to 2160');
    END IF;
    IF not_before NOT BETWEEN clock_timestamp() + interval '55 seconds' AND clock_timestamp() + interval '24 hours 5 seconds' THEN
        PERFORM refuse('deliver_at', 'must be at least one minute and at most 24 hours ahead');
    END IF;
    IF key COLLATE "C" !~ '^[!-~]{1,255}[!-~]?$' THEN
        PERFORM refuse('idempotency_key', 'must be 1 to 256 visible ASCII characters');
    END IF;
    of_application := find_application(named_application, of_environment);
    made := ksuid_next(micros);
    IF key IS NOT NULL THEN
        first := take_key(of_environment, of_application, key, made, micros);
        IF first IS NOT NULL THEN
            PERFORM set_config('postrider.environments', seen, true);
            RETURN 'msg_' || ksuid_text(first);
        END IF;
    END IF;
    INSERT INTO outbox (id, environment, application, event_id, event_type, channels, tags, content_type, deliver_at,
        payload_lifetime, created_at, payload)
    VALUES (made, of_environment, of_application, of_event_id, of_type, joined_channels, nullif(joined_tags, ''),
        of_content_type, (extract(epoch FROM not_before) * 1000000)::bigint, retention_hours * 3600000000, micros, body)
    ON CONFLICT (application, event_id) WHERE event_id IS NOT NULL DO NOTHING;
    -- Looked for after the row is there: what was routed meanwhile is seen, too.
    IF NOT FOUND OR of_event_id IS NOT NULL AND EXISTS (SELECT 1 FROM event_id AS used
        WHERE used.application = of_application AND used.event_id = of_event_id)
    THEN
        PERFORM refuse('event_id', 'is that of another message', '23505');
    END IF;
    PERFORM set_config('postrider.environments', seen, true);
    RETURN 'msg_' || ksuid_text(made);
END $$;

-- What applications call. They run with the rights of their owner, so that a publisher needs none on any table.

CREATE FUNCTION publish(
    application text, event_type text, payload text, event_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    channels text[] DEFAULT NULL, tags text[] DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    payload_retention_hours integer DEFAULT NULL, environment text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, postrider, pg_temp AS $$
BEGIN
    RETURN publish_checked(application, event_type, convert_to(payload, 'UTF8'), false, NULL, event_id,
        idempotency_key, channels, tags, deliver_at, payload_retention_hours, environment);
END $$;

CREATE FUNCTION publish(
    application text, event_type text, payload json, event_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    channels text[] DEFAULT NULL, tags text[] DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    payload_retention_hours integer DEFAULT NULL, environment text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, postrider, pg_temp AS $$
BEGIN
    RETURN publish_checked(application, event_type, convert_to(payload::text, 'UTF8'), false, NULL, event_id,
        idempotency_key, channels, tags, deliver_at, payload_retention_hours, environment);
END $$;

CREATE FUNCTION publish(
    application text, event_type text, payload jsonb, event_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    channels text[] DEFAULT NULL, tags text[] DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    payload_retention_hours integer DEFAULT NULL, environment text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, postrider, pg_temp AS $$
BEGIN
    RETURN publish_checked(application, event_type, convert_to(payload::text, 'UTF8'), false, NULL, event_id,
        idempotency_key, channels, tags, deliver_at, payload_retention_hours, environment);
END $$;

CREATE FUNCTION publish(
    application text, event_type text, payload bytea, event_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    channels text[] DEFAULT NULL, tags text[] DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    payload_retention_hours integer DEFAULT NULL, environment text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, postrider, pg_temp AS $$
BEGIN
    RETURN publish_checked(application, event_type, payload, false, NULL, event_id,
        idempotency_key, channels, tags, deliver_at, payload_retention_hours, environment);
END $$;

-- For bodies that are not JSON objects.
CREATE FUNCTION publish_raw(
    application text, event_type text, payload text, content_type text DEFAULT NULL, event_id text DEFAULT NULL,
    idempotency_key text DEFAULT NULL, channels text[] DEFAULT NULL, tags text[] DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, payload_retention_hours integer DEFAULT NULL, environment text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, postrider, pg_temp AS $$
BEGIN
    RETURN publish_checked(application, event_type, convert_to(payload, 'UTF8'), true, content_type, event_id,
        idempotency_key, channels, tags, deliver_at, payload_retention_hours, environment);
END $$;

-- Tells the nodes that something waits. A notification makes the commits of all transactions that notify wait for each
-- other: so not inside of one that writes.
CREATE FUNCTION nudge() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE active_sql_transaction USING MESSAGE = 'postrider.nudge: call it after COMMIT, as a statement of its own',
            DETAIL = 'Inside of a transaction that writes, nothing could be found yet, and commits would wait for each other.';
    END IF;
    PERFORM pg_notify('postrider', repeat('0', 32) || E'\noutbox');
END $$;

-- For the operator: lets a role publish to an environment. Roles that are members of it may, too.
CREATE FUNCTION allow(role text, environment text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, postrider, pg_temp AS $$
#variable_conflict use_column
DECLARE
    one regprocedure;
BEGIN
    PERFORM set_config('postrider.environments', '*', true);
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = allow.role) THEN
        RAISE undefined_object USING MESSAGE = 'postrider.allow: there is no role ' || coalesce(quote_ident(allow.role), 'NULL');
    END IF;
    IF NOT EXISTS (SELECT 1 FROM environment AS known WHERE known.id = allow.environment) THEN
        RAISE no_data_found USING MESSAGE = 'postrider.allow: there is no environment '
            || coalesce(quote_literal(left(allow.environment, 64)), 'NULL');
    END IF;
    INSERT INTO publisher (role, environment) VALUES (allow.role, allow.environment) ON CONFLICT DO NOTHING;
    EXECUTE format('GRANT USAGE ON SCHEMA postrider TO %I', allow.role);
    FOR one IN SELECT oid FROM pg_proc WHERE pronamespace = 'postrider'::regnamespace
        AND proname IN ('publish', 'publish_raw', 'nudge')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', one, allow.role);
    END LOOP;
    -- Nodes look more often where somebody may publish.
    PERFORM pg_notify('postrider', repeat('0', 32) || E'\noutbox');
END $$;

-- The reverse of it.
CREATE FUNCTION disallow(role text, environment text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, postrider, pg_temp AS $$
#variable_conflict use_column
DECLARE
    one regprocedure;
BEGIN
    PERFORM set_config('postrider.environments', '*', true);
    DELETE FROM publisher WHERE publisher.role = disallow.role AND publisher.environment = disallow.environment;
    IF EXISTS (SELECT 1 FROM publisher WHERE publisher.role = disallow.role)
        OR NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = disallow.role)
    THEN
        RETURN;
    END IF;
    FOR one IN SELECT oid FROM pg_proc WHERE pronamespace = 'postrider'::regnamespace
        AND proname IN ('publish', 'publish_raw', 'nudge')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %I', one, disallow.role);
    END LOOP;
    EXECUTE format('REVOKE USAGE ON SCHEMA postrider FROM %I', disallow.role);
END $$;

-- A new function can be called by everybody who may use the schema, until somebody says otherwise.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA postrider FROM PUBLIC;

-- An event id names one message, also between requests and transactions of an application's own; what waits in the outbox
-- is counted; and new rows of work and history are asked for their environment as far as that costs nothing to speak of.

-- Asked when the transaction commits, which may be long after its call of `publish`: has a request taken the event id
-- since? The lock is held from here to the end of the commit; a request that finds it taken cannot know whose the name will
-- be, and is told to come back (src/accept/look.rs, which computes the lock's number likewise). Runs with the rights of its
-- owner: at the commit, the role is the publisher's.
CREATE FUNCTION check_event_id() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, postrider, pg_temp AS $$
DECLARE
    seen CONSTANT text := coalesce(current_setting('postrider.environments', true), '');
    is_taken boolean := false;
BEGIN
    PERFORM pg_advisory_xact_lock(7305, hashtext(NEW.event_id) # hashtext(encode(NEW.application, 'hex')));
    PERFORM set_config('postrider.environments', NEW.environment, true);
    IF current_setting('transaction_isolation') = 'read committed' THEN
        is_taken := EXISTS (SELECT FROM event_id AS used
            WHERE used.application = NEW.application AND used.event_id = NEW.event_id);
    ELSE
        -- What was committed since the transaction began cannot be read, but it is in the way of a row.
        BEGIN
            INSERT INTO event_id (application, event_id, message) VALUES (NEW.application, NEW.event_id, NEW.id);
            RAISE EXCEPTION USING ERRCODE = 'PR001';
        EXCEPTION
            WHEN SQLSTATE 'PR001' THEN NULL;
            WHEN unique_violation THEN is_taken := true;
        END;
    END IF;
    PERFORM set_config('postrider.environments', seen, true);
    IF is_taken THEN
        PERFORM refuse('event_id', 'is that of another message', '23505');
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_event_id AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.event_id IS NOT NULL) EXECUTE FUNCTION check_event_id();

-- For counting what was set aside.
CREATE INDEX outbox_set_aside ON outbox (id) WHERE set_aside IS NOT NULL;

-- The wall for new rows of work and history: who does not say what it is about writes nothing (a few microseconds a
-- statement, nothing a row).
CREATE FUNCTION sees_any() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.current_setting('postrider.environments', true) OPERATOR(pg_catalog.<>) ''
$$;
GRANT EXECUTE ON FUNCTION sees_any() TO PUBLIC;
ALTER POLICY of_environment ON message WITH CHECK ((SELECT sees_any()));
ALTER POLICY of_environment ON event_id WITH CHECK ((SELECT sees_any()));
ALTER POLICY of_environment ON pending WITH CHECK ((SELECT sees_any()));
ALTER POLICY of_environment ON delivery WITH CHECK ((SELECT sees_any()));
ALTER POLICY of_environment ON attempt WITH CHECK ((SELECT sees_any()));

-- And a statement's new deliveries are of applications that it sees, each application asked for once.
CREATE FUNCTION check_pending() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, postrider, pg_temp AS $$
BEGIN
    IF current_setting('postrider.environments', true) IS DISTINCT FROM '*' AND EXISTS (
        SELECT FROM (SELECT DISTINCT application FROM fresh) AS one
        WHERE NOT EXISTS (SELECT FROM application WHERE application.id = one.application))
    THEN
        RAISE insufficient_privilege USING SCHEMA = 'postrider', TABLE = 'pending',
            MESSAGE = 'new rows of pending are of another environment than postrider.environments says';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER check_pending AFTER INSERT ON pending REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION check_pending();

REVOKE ALL ON FUNCTION check_event_id(), check_pending() FROM PUBLIC;

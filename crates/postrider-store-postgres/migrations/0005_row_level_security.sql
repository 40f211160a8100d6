-- The second wall between environments: a statement that forgot to name its environment sees nothing of another one. The
-- first is that every statement names it. `postrider.environments` says what the session, or the transaction, is about: ids
-- of environments with commas between them, or `*` for what is about all of them (claims, results, retention). Unset:
-- nothing. docs/decisions/0017-row-level-security.md says what is behind the wall and what is not.

CREATE FUNCTION sees_all() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.current_setting('postrider.environments', true) OPERATOR(pg_catalog.=) '*'
$$;
CREATE FUNCTION sees() RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.string_to_array(pg_catalog.current_setting('postrider.environments', true), ',')
$$;
-- Whoever may read a table, by whatever right, asks these.
GRANT EXECUTE ON FUNCTION sees_all(), sees() TO PUBLIC;

-- FORCE: also for the owner of the tables, which is who the server connects as. The subqueries make each statement ask
-- once, not once a row.
DO $$
DECLARE
    wall record;
    seen CONSTANT text := '(SELECT sees_all()) OR ';
BEGIN
    FOR wall IN
        -- What says its environment: neither read nor written from another one.
        SELECT one AS of_table, seen || 'environment = ANY ((SELECT sees())::text[])' AS reads, NULL AS writes
        FROM unnest(ARRAY['data_key', 'secret', 'api_key', 'idempotency', 'application', 'event_type', 'publisher', 'outbox',
            'publish_key']) AS one
        UNION ALL
        SELECT 'environment', seen || 'id = ANY ((SELECT sees())::text[])', NULL
        UNION ALL
        -- What says its application, whose own policy decides.
        SELECT 'endpoint', seen || 'EXISTS (SELECT 1 FROM application WHERE application.id = endpoint.application)', NULL
        UNION ALL
        -- Work and history: new rows are not asked, one by one, for what their transaction has asked once.
        SELECT one, seen || format('EXISTS (SELECT 1 FROM application WHERE application.id = %I.application)', one), 'true'
        FROM unnest(ARRAY['message', 'event_id', 'pending']) AS one
        UNION ALL
        SELECT one, seen || format('EXISTS (SELECT 1 FROM endpoint WHERE endpoint.id = %I.endpoint)', one), 'true'
        FROM unnest(ARRAY['delivery', 'attempt']) AS one
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', wall.of_table);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', wall.of_table);
        EXECUTE format('CREATE POLICY of_environment ON %I USING (%s) WITH CHECK (%s)', wall.of_table, wall.reads,
            coalesce(wall.writes, wall.reads));
    END LOOP;
END $$;

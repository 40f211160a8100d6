-- Payloads lie in the order in which they expire: the number of one says when (src/payload_rows.rs). An index of that is not
-- needed any more, which was one of nine trees that each message was written to.
CREATE TABLE payload_by_expiry (
    id      INTEGER PRIMARY KEY,
    message BLOB NOT NULL,
    body    BLOB NOT NULL
) STRICT;
INSERT INTO payload_by_expiry (id, message, body)
    SELECT (MIN(MAX(expires_at / 1000000, 0), 4294967295) << 31) | (id & 2147483647), message, body
    FROM payload ORDER BY expires_at, id;
UPDATE message
    SET payload = (SELECT (MIN(MAX(expires_at / 1000000, 0), 4294967295) << 31) | (id & 2147483647)
                   FROM payload WHERE payload.id = message.payload)
    WHERE payload IS NOT NULL;
DROP TABLE payload;
ALTER TABLE payload_by_expiry RENAME TO payload;

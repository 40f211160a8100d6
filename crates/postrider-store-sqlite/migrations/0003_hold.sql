-- Which database this is, through all its copies; when this copy was made as a backup, and where it was moved to.
CREATE TABLE instance (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    id           TEXT NOT NULL,
    backed_up_at INTEGER,
    migrated_to  TEXT
) STRICT;
INSERT INTO instance (one, id) VALUES (1, lower(hex(randomblob(16))));

-- A row while deliveries are on hold. Those are due 2^57 microseconds later than they were, and so behind everything
-- that is claimed (crates/postrider-store/src/hold.rs).
CREATE TABLE hold (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    since  INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;

-- Which database this is, through all its copies, and where it lies: a copy that was restored from a dump lies elsewhere.
CREATE TABLE instance (
    one  boolean PRIMARY KEY CHECK (one),
    id   text NOT NULL,
    home text NOT NULL
);
INSERT INTO instance (one, id, home) VALUES (true, replace(gen_random_uuid()::text, '-', ''), '');

-- A row while deliveries are on hold. Those are due 2^57 microseconds later than they were, and so behind everything
-- that is claimed (crates/postrider-store/src/hold.rs).
CREATE TABLE hold (
    one    boolean PRIMARY KEY CHECK (one),
    since  bigint NOT NULL,
    reason text NOT NULL
);

-- How far `postrider migrate-store` has brought a database here; rows only while it is at it and as a record of it.
CREATE TABLE import (
    source     text COLLATE "C" NOT NULL,
    item       text COLLATE "C" NOT NULL,
    position   bytea,
    rows       bigint NOT NULL,
    done       boolean NOT NULL,
    PRIMARY KEY (source, item)
);

-- What one node does for all, and which node that is: as long as its row in `node` has not ended.
CREATE TABLE duty (
    name   text COLLATE "C" PRIMARY KEY,
    holder bytea NOT NULL
);

-- How long a node renews its lease for, in microseconds: whoever watches it knows from that when it is dead, whatever the
-- clock was set to. NULL: written by a release that does not say.
ALTER TABLE node ADD COLUMN lease bigint;

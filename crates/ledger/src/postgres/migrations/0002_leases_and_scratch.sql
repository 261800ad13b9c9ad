-- "@" stands for the schema.

-- Who does what only one replica at a time may do, by this database's clock.
CREATE TABLE @.leases (
    work text PRIMARY KEY,
    holder bytea NOT NULL CHECK (length(holder) = 16),
    -- Rises with every change of hands.
    fence bigint NOT NULL,
    until timestamptz NOT NULL
);

-- What replicas hand to each other and nobody remembers for ever: it runs out. What only one replica at a time may
-- write carries the number of its lease; what anybody may write once has none.
CREATE TABLE @.scratch (
    key bytea PRIMARY KEY CHECK (length(key) <= 128),
    value bytea NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    until timestamptz NOT NULL
);
CREATE INDEX scratch_until ON @.scratch (until);

-- "@" stands for the schema.

-- Where the log stands. One row: whoever has it locked decides the order.
CREATE TABLE @.head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    -- Which log this is: its name, and a random number made with it.
    origin text NOT NULL,
    log_id bytea NOT NULL CHECK (length(log_id) = 16),
    -- Entries, their RFC 6962 root, and the right edge of the tree from which it goes on.
    size bigint NOT NULL CHECK (size >= 0),
    root bytea NOT NULL CHECK (length(root) = 32),
    frontier bytea NOT NULL,
    -- Entries below this have a partition.
    room bigint NOT NULL CHECK (room >= size),
    -- Moves when somebody takes the log over: who started before must start again.
    epoch bigint NOT NULL,
    -- Why nothing may be written any more, when the log has moved elsewhere.
    closed text
);

-- The log. Never updated, never deleted from.
CREATE TABLE @.entries (
    index bigint NOT NULL PRIMARY KEY,
    -- Whether it changes how something stands: the other replicas read these.
    news boolean NOT NULL,
    leaf bytea NOT NULL CHECK (length(leaf) = 32),
    bytes bytea NOT NULL
) PARTITION BY RANGE (index);
-- Entries are hashes, keys and signatures: nothing that compresses.
ALTER TABLE @.entries ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE INDEX entries_news ON @.entries (index) WHERE news;

-- Hashes of complete subtrees of 256^level entries; those of level 0 stand beside their entries.
CREATE TABLE @.hashes (
    level smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
    index bigint NOT NULL,
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, index)
);

-- Signatures made over recorded entries, beside them (docs/adr/0005).
CREATE TABLE @.signatures (
    index bigint PRIMARY KEY,
    signature bytea NOT NULL
);

-- The read model: ordered keys and values that follow from the entries.
CREATE TABLE @.model (
    key bytea PRIMARY KEY,
    value bytea NOT NULL
);

-- The next serial counter of each issuer: replicas take some at a time.
CREATE TABLE @.counters (
    epoch integer PRIMARY KEY,
    next bigint NOT NULL
);

-- Each process that writes, and the number of its last batch: how it learns what became of a commit whose
-- answer was lost.
CREATE TABLE @.replicas (
    id bytea PRIMARY KEY CHECK (length(id) = 16),
    name text NOT NULL,
    batch bigint NOT NULL,
    seen timestamptz NOT NULL
);

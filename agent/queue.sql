-- What is to go, where to, and what need not go again. Times are Unix seconds, but for next_try_s, which is of the
-- process's own clock; paths are bytes, as the system has them.
CREATE TABLE item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,       -- the order of arrival
    source TEXT NOT NULL,                       -- '' is the spool, else the watched folder
    path BLOB NOT NULL,                         -- of a spooled object its name, of a watched file its full path
    name TEXT NOT NULL,                         -- what the gateway is told
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,                  -- of a watched file agent.items.stamp_of it, of a spooled object 0
    priority INTEGER NOT NULL,                  -- 0 stat, 1 normal, 2 bulk
    added_at_s REAL NOT NULL,
    object_id TEXT NOT NULL DEFAULT '',         -- as the first destination got it
    open_deliveries INTEGER NOT NULL,           -- at 0 the item is let go
    UNIQUE (source, path)
);
CREATE INDEX item_complete ON item (id) WHERE open_deliveries = 0;

CREATE TABLE delivery (
    item_id INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    priority INTEGER NOT NULL,                  -- the item's, so that one index answers "what next"
    state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'parked')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_s REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',            -- the last error's code
    PRIMARY KEY (item_id, destination)
) WITHOUT ROWID;
CREATE INDEX delivery_next ON delivery (destination, state, priority, item_id);

CREATE TABLE kept (                             -- delivered files that stay where they are
    source TEXT NOT NULL,
    path BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    object_id TEXT NOT NULL,
    PRIMARY KEY (source, path)
) WITHOUT ROWID;

PRAGMA user_version = 1;

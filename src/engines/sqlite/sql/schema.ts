/**
 * The tables, as a new file gets them; an older file comes to the same by way of `migrations.ts`. Everything carries the
 * prefix `posthorn_`, because the file may hold the user's own tables as well. Times are milliseconds since the Unix
 * epoch. Offsets rise by one within a partition and are never used twice.
 */
export const SCHEMA = `
CREATE TABLE posthorn_meta (
  name  TEXT PRIMARY KEY,
  value ANY
) WITHOUT ROWID;

CREATE TABLE posthorn_topics (
  topic_id                INTEGER PRIMARY KEY AUTOINCREMENT,
  name                    TEXT NOT NULL UNIQUE,
  kind                    TEXT NOT NULL,
  partitions              INTEGER NOT NULL,
  deduplication_window_ms INTEGER NOT NULL,
  retention_age_ms        INTEGER NOT NULL,
  retention_bytes         INTEGER,
  drop_unread             INTEGER NOT NULL,
  max_backlog             INTEGER,
  had_subscription        INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE posthorn_partitions (
  topic_id    INTEGER NOT NULL,
  partition   INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (topic_id, partition)
) WITHOUT ROWID;

-- One row a record batch. "data" is a JSON array of the messages' own CloudEvents attributes, "shared" the attributes
-- that all of them have; "crc32" covers both and the batch's place.
CREATE TABLE posthorn_batches (
  batch_id      INTEGER PRIMARY KEY,
  topic_id      INTEGER NOT NULL,
  partition     INTEGER NOT NULL,
  base_offset   INTEGER NOT NULL,
  count         INTEGER NOT NULL,
  first_time_ms INTEGER NOT NULL,
  last_time_ms  INTEGER NOT NULL,
  crc32         INTEGER NOT NULL,
  shared        TEXT NOT NULL,
  data          TEXT NOT NULL
);
CREATE UNIQUE INDEX posthorn_batches_by_offset ON posthorn_batches (topic_id, partition, base_offset);

-- Ids that publishers gave, remembered for the topic's window; and where their message is, once it is in the log.
CREATE TABLE posthorn_deduplication (
  topic_id      INTEGER NOT NULL,
  message_id    TEXT NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  partition     INTEGER,
  offset        INTEGER,
  PRIMARY KEY (topic_id, message_id)
) WITHOUT ROWID;
CREATE INDEX posthorn_deduplication_by_expiry ON posthorn_deduplication (expires_at_ms);

-- Messages that enter the log when they are due.
CREATE TABLE posthorn_delayed (
  delayed_id INTEGER PRIMARY KEY,
  topic_id   INTEGER NOT NULL,
  partition  INTEGER NOT NULL,
  message_id TEXT NOT NULL DEFAULT '',
  due_at_ms  INTEGER NOT NULL,
  time_ms    INTEGER NOT NULL,
  shared     TEXT NOT NULL,
  own        TEXT NOT NULL
);
CREATE INDEX posthorn_delayed_by_due ON posthorn_delayed (due_at_ms);
CREATE INDEX posthorn_delayed_by_id ON posthorn_delayed (topic_id, message_id);

-- Messages of the log that are not to be granted any more, whatever subscription reaches them; kept as long as they are.
CREATE TABLE posthorn_cancelled (
  topic_id  INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  offset    INTEGER NOT NULL,
  PRIMARY KEY (topic_id, partition, offset)
) WITHOUT ROWID;

-- For sessions that are to be told that a message which they hold was cancelled. "ended": nothing else is left of the
-- lease, which is gone.
CREATE TABLE posthorn_cancel_notices (
  session_id INTEGER NOT NULL,
  lease_id   INTEGER NOT NULL,
  partition  INTEGER NOT NULL,
  offset     INTEGER NOT NULL,
  ended      INTEGER NOT NULL,
  PRIMARY KEY (session_id, lease_id, offset)
) WITHOUT ROWID;

CREATE TABLE posthorn_subscriptions (
  subscription_id INTEGER PRIMARY KEY AUTOINCREMENT,
  topic_id        INTEGER NOT NULL,
  name            TEXT NOT NULL,
  max_crashes     INTEGER NOT NULL,
  ordered         INTEGER NOT NULL DEFAULT 0,
  max_parked      INTEGER NOT NULL DEFAULT 100000,
  paused          INTEGER NOT NULL DEFAULT 0,
  -- Rows of posthorn_retries: kept by triggers, because it is asked for with every grant.
  set_aside       INTEGER NOT NULL DEFAULT 0,
  UNIQUE (topic_id, name)
);

-- Who alone is given messages of a partition of an ordered subscription.
CREATE TABLE posthorn_owners (
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  session_id      INTEGER NOT NULL,
  source          INTEGER NOT NULL,
  PRIMARY KEY (subscription_id, partition)
) WITHOUT ROWID;
CREATE INDEX posthorn_owners_by_session ON posthorn_owners (session_id);

CREATE TABLE posthorn_cursors (
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  next_offset     INTEGER NOT NULL,
  PRIMARY KEY (subscription_id, partition)
) WITHOUT ROWID;

-- A range [from_offset, to_offset) behind the cursor that is not wholly settled: leased by a session, or returned
-- (session_id is null). Bit i of "settled" stands for from_offset + i. Lease ids are never used twice.
CREATE TABLE posthorn_leases (
  lease_id        INTEGER PRIMARY KEY,
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  from_offset     INTEGER NOT NULL,
  to_offset       INTEGER NOT NULL,
  settled         BLOB,
  session_id      INTEGER,
  crashes         INTEGER NOT NULL DEFAULT 0,
  isolated        INTEGER NOT NULL DEFAULT 0
);
-- Suspects are looked for in every grant, and there are hardly ever any.
CREATE INDEX posthorn_leases_isolated ON posthorn_leases (session_id) WHERE isolated = 1;
CREATE INDEX posthorn_leases_by_range ON posthorn_leases (subscription_id, partition, from_offset);
CREATE INDEX posthorn_leases_by_session ON posthorn_leases (session_id) WHERE session_id IS NOT NULL;

-- Single messages that were set aside, to wait for their next attempt, for their key or for a limit; or are leased
-- (session_id is set). While one waits for its next attempt, lease_id is still that of the one that failed. "event" is a copy of the message where the log may no longer have it. Those of one message_key
-- form its chain; "parked" says what a row waits for, beside its time: 0 nothing else, 1 its turn, 2 that the key is freed
-- (with 1 and 2, its due_at_ms is beyond all time), 3 nothing else, but it was set aside for a limit, without an attempt.
CREATE TABLE posthorn_retries (
  retry_id        INTEGER PRIMARY KEY,
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  offset          INTEGER NOT NULL,
  due_at_ms       INTEGER NOT NULL,
  attempt         INTEGER NOT NULL,
  crashes         INTEGER NOT NULL DEFAULT 0,
  isolated        INTEGER NOT NULL DEFAULT 0,
  failures        TEXT NOT NULL,
  event           TEXT,
  message_key     TEXT,
  -- Of those with a copy of the message.
  message_id      TEXT,
  parked          INTEGER NOT NULL DEFAULT 0,
  lease_id        INTEGER,
  session_id      INTEGER
);
CREATE TRIGGER posthorn_retries_counted AFTER INSERT ON posthorn_retries BEGIN
  UPDATE posthorn_subscriptions SET set_aside = set_aside + 1 WHERE subscription_id = NEW.subscription_id;
END;
CREATE TRIGGER posthorn_retries_discounted AFTER DELETE ON posthorn_retries BEGIN
  UPDATE posthorn_subscriptions SET set_aside = set_aside - 1 WHERE subscription_id = OLD.subscription_id;
END;
CREATE INDEX posthorn_retries_by_key ON posthorn_retries (subscription_id, partition, message_key, offset)
  WHERE message_key IS NOT NULL;
CREATE INDEX posthorn_retries_by_due ON posthorn_retries (subscription_id, due_at_ms, crashes)
  WHERE session_id IS NULL;
CREATE INDEX posthorn_retries_isolated ON posthorn_retries (session_id) WHERE isolated = 1;
-- Most of what has crashed is no suspect yet, but few messages have crashed.
CREATE INDEX posthorn_retries_crashed ON posthorn_retries (subscription_id, due_at_ms, crashes)
  WHERE session_id IS NULL AND crashes > 0;
-- Of ordered subscriptions, what a partition is granted next.
CREATE INDEX posthorn_retries_by_partition ON posthorn_retries (subscription_id, partition, due_at_ms, offset)
  WHERE session_id IS NULL;
CREATE INDEX posthorn_retries_by_offset ON posthorn_retries (subscription_id, partition, offset);
-- The first of those that need the log says how much of it has to be kept.
CREATE INDEX posthorn_retries_in_log ON posthorn_retries (subscription_id, partition, offset) WHERE event IS NULL;
-- Redriven messages, which the log may no longer have, by their id.
CREATE INDEX posthorn_retries_by_id ON posthorn_retries (subscription_id, message_id)
  WHERE message_id IS NOT NULL;
CREATE INDEX posthorn_retries_by_lease ON posthorn_retries (session_id, lease_id) WHERE session_id IS NOT NULL;

CREATE TABLE posthorn_dead_letters (
  dead_letter_id  INTEGER PRIMARY KEY AUTOINCREMENT,
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  offset          INTEGER NOT NULL,
  reason          TEXT NOT NULL,
  dead_at_ms      INTEGER NOT NULL,
  attempts        INTEGER NOT NULL,
  crashes         INTEGER NOT NULL,
  failures        TEXT NOT NULL,
  event           TEXT,
  message_key     TEXT,
  -- What else of the key was set aside waits until this one is redriven or deleted.
  blocks          INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX posthorn_dead_letters_blocking ON posthorn_dead_letters (subscription_id, partition, message_key)
  WHERE blocks = 1;
CREATE INDEX posthorn_dead_letters_by_subscription ON posthorn_dead_letters (subscription_id, dead_letter_id);
CREATE INDEX posthorn_dead_letters_by_offset ON posthorn_dead_letters (subscription_id, partition, offset);

-- Processes that consume. Their leases live until lease_until_ms, which they push forward.
CREATE TABLE posthorn_sessions (
  session_id     INTEGER PRIMARY KEY AUTOINCREMENT,
  host           TEXT NOT NULL,
  pid            INTEGER NOT NULL,
  started_at_ms  INTEGER NOT NULL,
  lease_until_ms INTEGER NOT NULL,
  -- How often others have pushed it forward since: a dead process is not to live for ever by that.
  prolonged      INTEGER NOT NULL DEFAULT 0
);

CREATE TRIGGER posthorn_sessions_ended AFTER DELETE ON posthorn_sessions BEGIN
  DELETE FROM posthorn_cancel_notices WHERE session_id = OLD.session_id;
END;

-- One row a source. A subscription's partitions are shared out evenly among them, if it is ordered.
CREATE TABLE posthorn_session_subscriptions (
  session_id      INTEGER NOT NULL,
  source          INTEGER NOT NULL,
  subscription_id INTEGER NOT NULL,
  -- What the source says of its breaker, as JSON, unless it is closed.
  breaker         TEXT,
  PRIMARY KEY (session_id, source)
) WITHOUT ROWID;
CREATE INDEX posthorn_session_subscriptions_by_subscription ON posthorn_session_subscriptions (subscription_id);

-- The buckets of rate limits. One that is full again has no row, or an old one.
CREATE TABLE posthorn_rates (
  subscription_id INTEGER NOT NULL,
  limit_name      TEXT NOT NULL,
  bucket          TEXT NOT NULL,
  next_at_ms      REAL NOT NULL,
  PRIMARY KEY (subscription_id, limit_name, bucket)
) WITHOUT ROWID;
CREATE INDEX posthorn_rates_by_time ON posthorn_rates (next_at_ms);

-- Messages that were admitted by a limit of messages in flight, and have not ended.
CREATE TABLE posthorn_in_flight (
  subscription_id INTEGER NOT NULL,
  limit_name      TEXT NOT NULL,
  bucket          TEXT NOT NULL,
  session_id      INTEGER NOT NULL,
  source          INTEGER NOT NULL,
  held            INTEGER NOT NULL,
  PRIMARY KEY (subscription_id, limit_name, bucket, session_id, source)
) WITHOUT ROWID;
CREATE INDEX posthorn_in_flight_by_session ON posthorn_in_flight (session_id, source);

-- Results of finished steps, as JSON, of messages that are not acknowledged yet.
CREATE TABLE posthorn_steps (
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  offset          INTEGER NOT NULL,
  name            TEXT NOT NULL,
  result          TEXT NOT NULL,
  PRIMARY KEY (subscription_id, partition, offset, name)
) WITHOUT ROWID;

-- Single messages, for people with an SQL prompt.
CREATE VIEW posthorn_messages AS
SELECT topics.name                                             AS topic,
       batches.partition                                       AS partition,
       batches.base_offset + message.key                       AS offset,
       json_extract(message.value, '$.id')                     AS id,
       json_extract(batches.shared, '$.type')                  AS type,
       json_extract(message.value, '$.subject')                AS subject,
       json_extract(message.value, '$.time')                   AS time,
       json_extract(message.value, '$.data')                   AS data,
       json('{"specversion":"1.0",' || substr(batches.shared, 2, length(batches.shared) - 2) || ',' ||
            substr(message.value, 2))                          AS event
  FROM posthorn_batches AS batches
  JOIN posthorn_topics AS topics USING (topic_id),
       json_each(iif(json_valid(batches.data), batches.data, '[]')) AS message;
`

export const FIND_META_TABLE = `SELECT 1 AS found FROM sqlite_schema WHERE type = 'table' AND name = 'posthorn_meta'`
export const READ_SCHEMA_VERSION = `SELECT value AS version FROM posthorn_meta WHERE name = 'schema_version'`
/** Where everything went that the file holds. */
export const FIND_MOVED_TO = `SELECT value AS movedTo FROM posthorn_meta WHERE name = 'moved_to'`
export const WRITE_SCHEMA_VERSION = `INSERT OR REPLACE INTO posthorn_meta (name, value) VALUES ('schema_version', ?)`

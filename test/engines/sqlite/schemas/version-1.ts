/**
 * A file of schema version 1 as the Posthorn of that time left it, with everything in use: what is in it must never
 * change. Times are in 2023 for the past, and in 2096 for the future.
 */
export const VERSION_1 = `
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

CREATE TABLE posthorn_deduplication (
  topic_id      INTEGER NOT NULL,
  message_id    TEXT NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (topic_id, message_id)
) WITHOUT ROWID;
CREATE INDEX posthorn_deduplication_by_expiry ON posthorn_deduplication (expires_at_ms);

CREATE TABLE posthorn_delayed (
  delayed_id INTEGER PRIMARY KEY,
  topic_id   INTEGER NOT NULL,
  partition  INTEGER NOT NULL,
  due_at_ms  INTEGER NOT NULL,
  time_ms    INTEGER NOT NULL,
  shared     TEXT NOT NULL,
  own        TEXT NOT NULL
);
CREATE INDEX posthorn_delayed_by_due ON posthorn_delayed (due_at_ms);
CREATE INDEX posthorn_delayed_by_topic ON posthorn_delayed (topic_id);

CREATE TABLE posthorn_subscriptions (
  subscription_id INTEGER PRIMARY KEY AUTOINCREMENT,
  topic_id        INTEGER NOT NULL,
  name            TEXT NOT NULL,
  max_crashes     INTEGER NOT NULL,
  paused          INTEGER NOT NULL DEFAULT 0,
  UNIQUE (topic_id, name)
);

CREATE TABLE posthorn_cursors (
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  next_offset     INTEGER NOT NULL,
  PRIMARY KEY (subscription_id, partition)
) WITHOUT ROWID;

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
CREATE INDEX posthorn_leases_isolated ON posthorn_leases (session_id) WHERE isolated = 1;
CREATE INDEX posthorn_leases_by_range ON posthorn_leases (subscription_id, partition, from_offset);

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
  lease_id        INTEGER,
  session_id      INTEGER
);
CREATE INDEX posthorn_retries_by_due ON posthorn_retries (subscription_id, due_at_ms, crashes)
  WHERE session_id IS NULL;
CREATE INDEX posthorn_retries_isolated ON posthorn_retries (session_id) WHERE isolated = 1;
CREATE INDEX posthorn_retries_crashed ON posthorn_retries (subscription_id, due_at_ms, crashes)
  WHERE session_id IS NULL AND crashes > 0;
CREATE INDEX posthorn_retries_by_offset ON posthorn_retries (subscription_id, partition, offset);
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
  event           TEXT
);
CREATE INDEX posthorn_dead_letters_by_subscription ON posthorn_dead_letters (subscription_id, dead_letter_id);

CREATE TABLE posthorn_sessions (
  session_id     INTEGER PRIMARY KEY AUTOINCREMENT,
  host           TEXT NOT NULL,
  pid            INTEGER NOT NULL,
  started_at_ms  INTEGER NOT NULL,
  lease_until_ms INTEGER NOT NULL
);

CREATE TABLE posthorn_session_subscriptions (
  session_id      INTEGER NOT NULL,
  subscription_id INTEGER NOT NULL,
  PRIMARY KEY (session_id, subscription_id)
) WITHOUT ROWID;

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

INSERT INTO posthorn_meta (name, value) VALUES ('lease_block', 5), ('schema_version', 1);

INSERT INTO posthorn_topics VALUES
  (1, 'events', 'topic', 2, 9000000000000, 9000000000000, NULL, 0, NULL, 1),
  (2, 'jobs', 'queue', 1, 3600000, 604800000, 1000000, 0, 500, 0);
INSERT INTO posthorn_partitions VALUES (1, 0, 16), (1, 1, 2), (2, 0, 0);

INSERT INTO posthorn_batches VALUES
  (1, 1, 0, 10, 3, 1700000000000, 1700000000000, 1277386340,
   '{"source":"/test","type":"events","datacontenttype":"application/json"}',
   '[{"id":"settled","time":"2023-11-14T22:13:20.000Z","data":"settled"},{"id":"retried","time":"2023-11-14T22:13:20.000Z","data":"retried"},{"id":"dead","time":"2023-11-14T22:13:20.000Z","data":"dead"}]'),
  (2, 1, 0, 13, 3, 1700000000000, 1700000000000, 2948172715,
   '{"source":"/test","type":"events","datacontenttype":"application/json"}',
   '[{"id":"leased","time":"2023-11-14T22:13:20.000Z","data":"leased"},{"id":"returned","time":"2023-11-14T22:13:20.000Z","data":"returned"},{"id":"fresh","time":"2023-11-14T22:13:20.000Z","data":"fresh"}]'),
  (3, 1, 1, 0, 2, 1700000000000, 1700000000000, 2821418957,
   '{"source":"/test","type":"events","datacontenttype":"application/json"}',
   '[{"id":"other","time":"2023-11-14T22:13:20.000Z","data":"other"},{"id":"another","time":"2023-11-14T22:13:20.000Z","data":"another"}]');

INSERT INTO posthorn_deduplication VALUES (1, 'fresh', 4000000000000), (1, 'later', 4000000000000);
INSERT INTO posthorn_delayed VALUES
  (1, 1, 1, 4000000000000, 1700000000000,
   '{"source":"/test","type":"events","datacontenttype":"application/json"}',
   '{"id":"later","time":"2023-11-14T22:13:20.000Z","data":"later"}'),
  (2, 1, 1, 1700000000000, 1700000000000,
   '{"source":"/test","type":"events","datacontenttype":"application/json"}',
   '{"id":"due","time":"2023-11-14T22:13:20.000Z","data":"due"}');

INSERT INTO posthorn_subscriptions VALUES (3, 1, 'mail', 2, 0), (4, 1, 'audit', 5, 1);
UPDATE sqlite_sequence SET seq = 9 WHERE name = 'posthorn_subscriptions';
INSERT INTO posthorn_cursors VALUES (3, 0, 15), (3, 1, 0), (4, 0, 10), (4, 1, 0);

-- The first is held by a process that died, the second was given back.
INSERT INTO posthorn_leases VALUES
  (16777216, 3, 0, 10, 14, x'07', 1, 0, 0),
  (16777217, 3, 0, 14, 15, NULL, NULL, 0, 0);

-- The first failed, the second was redriven long after the log had deleted it.
INSERT INTO posthorn_retries VALUES
  (1, 3, 0, 11, 1700000000000, 2, 0, 0, '[{"attempt":1,"atMs":1700000000000,"name":"Error","message":"first"}]', NULL, NULL, NULL),
  (2, 3, 0, 4, 1700000000000, 1, 0, 0, '[]',
   '{"specversion":"1.0","source":"/test","type":"events","datacontenttype":"application/json","id":"redriven","time":"2023-11-14T22:13:20.000Z","data":"redriven"}',
   NULL, NULL);
INSERT INTO posthorn_dead_letters VALUES
  (7, 3, 0, 12, 'attempts', 1700000000000, 2, 0, '[{"attempt":1,"atMs":1700000000000,"name":"Error","message":"first"}]',
   '{"specversion":"1.0","source":"/test","type":"events","datacontenttype":"application/json","id":"dead","time":"2023-11-14T22:13:20.000Z","data":"dead"}');

INSERT INTO posthorn_sessions VALUES (1, 'elsewhere', 99999, 1700000000000, 1700000030000);
INSERT INTO posthorn_session_subscriptions VALUES (1, 3), (1, 4);
`

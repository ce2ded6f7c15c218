/**
 * From each version of the schema to the next one. What was released is never changed again: a migration leads to the
 * schema as it was then, and says everything itself. Each runs in one transaction with all that follow it.
 */

/**
 * Order by key, limits, breakers, steps, priorities and cancelling. New columns have their defaults in the schema, so
 * that no rows are rewritten but those of delayed messages, which are searched for by their ids from now on. Ids that
 * publishers gave have no place yet; their messages are looked for in the log. A session of the old version has one
 * source for each of its subscriptions.
 */
const TO_VERSION_2 = `
ALTER TABLE posthorn_deduplication ADD COLUMN partition INTEGER;
ALTER TABLE posthorn_deduplication ADD COLUMN offset INTEGER;

ALTER TABLE posthorn_delayed ADD COLUMN message_id TEXT NOT NULL DEFAULT '';
UPDATE posthorn_delayed SET message_id = coalesce(json_extract(own, '$.id'), '') WHERE json_valid(own);
DROP INDEX posthorn_delayed_by_topic;
CREATE INDEX posthorn_delayed_by_id ON posthorn_delayed (topic_id, message_id);

CREATE TABLE posthorn_cancelled (
  topic_id  INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  offset    INTEGER NOT NULL,
  PRIMARY KEY (topic_id, partition, offset)
) WITHOUT ROWID;
CREATE TABLE posthorn_cancel_notices (
  session_id INTEGER NOT NULL,
  lease_id   INTEGER NOT NULL,
  partition  INTEGER NOT NULL,
  offset     INTEGER NOT NULL,
  ended      INTEGER NOT NULL,
  PRIMARY KEY (session_id, lease_id, offset)
) WITHOUT ROWID;
ALTER TABLE posthorn_sessions ADD COLUMN prolonged INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER posthorn_sessions_ended AFTER DELETE ON posthorn_sessions BEGIN
  DELETE FROM posthorn_cancel_notices WHERE session_id = OLD.session_id;
END;

ALTER TABLE posthorn_subscriptions ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE posthorn_subscriptions ADD COLUMN max_parked INTEGER NOT NULL DEFAULT 100000;
ALTER TABLE posthorn_subscriptions ADD COLUMN set_aside INTEGER NOT NULL DEFAULT 0;
UPDATE posthorn_subscriptions SET set_aside =
  (SELECT count(*) FROM posthorn_retries AS r WHERE r.subscription_id = posthorn_subscriptions.subscription_id);

CREATE TABLE posthorn_owners (
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  session_id      INTEGER NOT NULL,
  source          INTEGER NOT NULL,
  PRIMARY KEY (subscription_id, partition)
) WITHOUT ROWID;
CREATE INDEX posthorn_owners_by_session ON posthorn_owners (session_id);

CREATE INDEX posthorn_leases_by_session ON posthorn_leases (session_id) WHERE session_id IS NOT NULL;

ALTER TABLE posthorn_retries ADD COLUMN message_key TEXT;
ALTER TABLE posthorn_retries ADD COLUMN message_id TEXT;
UPDATE posthorn_retries SET message_id = json_extract(event, '$.id') WHERE json_valid(event);
ALTER TABLE posthorn_retries ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER posthorn_retries_counted AFTER INSERT ON posthorn_retries BEGIN
  UPDATE posthorn_subscriptions SET set_aside = set_aside + 1 WHERE subscription_id = NEW.subscription_id;
END;
CREATE TRIGGER posthorn_retries_discounted AFTER DELETE ON posthorn_retries BEGIN
  UPDATE posthorn_subscriptions SET set_aside = set_aside - 1 WHERE subscription_id = OLD.subscription_id;
END;
CREATE INDEX posthorn_retries_by_key ON posthorn_retries (subscription_id, partition, message_key, offset)
  WHERE message_key IS NOT NULL;
CREATE INDEX posthorn_retries_by_id ON posthorn_retries (subscription_id, message_id)
  WHERE message_id IS NOT NULL;
CREATE INDEX posthorn_retries_by_partition ON posthorn_retries (subscription_id, partition, due_at_ms, offset)
  WHERE session_id IS NULL;
CREATE INDEX posthorn_retries_in_log ON posthorn_retries (subscription_id, partition, offset) WHERE event IS NULL;

ALTER TABLE posthorn_dead_letters ADD COLUMN message_key TEXT;
ALTER TABLE posthorn_dead_letters ADD COLUMN blocks INTEGER NOT NULL DEFAULT 0;
CREATE INDEX posthorn_dead_letters_blocking ON posthorn_dead_letters (subscription_id, partition, message_key)
  WHERE blocks = 1;
CREATE INDEX posthorn_dead_letters_by_offset ON posthorn_dead_letters (subscription_id, partition, offset);

CREATE TEMP TABLE posthorn_sources AS
SELECT session_id, row_number() OVER (PARTITION BY session_id ORDER BY subscription_id) AS source, subscription_id
  FROM posthorn_session_subscriptions;
DROP TABLE posthorn_session_subscriptions;
CREATE TABLE posthorn_session_subscriptions (
  session_id      INTEGER NOT NULL,
  source          INTEGER NOT NULL,
  subscription_id INTEGER NOT NULL,
  breaker         TEXT,
  PRIMARY KEY (session_id, source)
) WITHOUT ROWID;
CREATE INDEX posthorn_session_subscriptions_by_subscription ON posthorn_session_subscriptions (subscription_id);
INSERT INTO posthorn_session_subscriptions (session_id, source, subscription_id)
SELECT session_id, source, subscription_id FROM temp.posthorn_sources;
DROP TABLE temp.posthorn_sources;

CREATE TABLE posthorn_rates (
  subscription_id INTEGER NOT NULL,
  limit_name      TEXT NOT NULL,
  bucket          TEXT NOT NULL,
  next_at_ms      REAL NOT NULL,
  PRIMARY KEY (subscription_id, limit_name, bucket)
) WITHOUT ROWID;
CREATE INDEX posthorn_rates_by_time ON posthorn_rates (next_at_ms);
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
CREATE TABLE posthorn_steps (
  subscription_id INTEGER NOT NULL,
  partition       INTEGER NOT NULL,
  offset          INTEGER NOT NULL,
  name            TEXT NOT NULL,
  result          TEXT NOT NULL,
  PRIMARY KEY (subscription_id, partition, offset, name)
) WITHOUT ROWID;
`

/** Each brings a file of schema version `index + 1` to the next one. */
export const MIGRATIONS: readonly string[] = [TO_VERSION_2]

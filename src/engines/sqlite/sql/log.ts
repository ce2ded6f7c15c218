export const FIND_TOPIC = `
SELECT topic_id AS topicId, name, kind, partitions, deduplication_window_ms AS deduplicationWindowMs,
       max_backlog AS maxBacklog, had_subscription AS hadSubscription
  FROM posthorn_topics WHERE name = ?`

export const FIND_CONFIGURED_TOPIC = `
SELECT 1 AS found FROM posthorn_topics
 WHERE name = ? AND kind = ? AND partitions = ? AND deduplication_window_ms = ? AND retention_age_ms = ?
   AND retention_bytes IS ? AND drop_unread = ? AND max_backlog IS ?`

export const INSERT_TOPIC = `
INSERT INTO posthorn_topics
  (name, kind, partitions, deduplication_window_ms, retention_age_ms, retention_bytes, drop_unread, max_backlog)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)`

export const UPDATE_TOPIC = `
UPDATE posthorn_topics
   SET deduplication_window_ms = ?, retention_age_ms = ?, retention_bytes = ?, drop_unread = ?, max_backlog = ?
 WHERE topic_id = ?`

export const INSERT_PARTITION = `
INSERT OR IGNORE INTO posthorn_partitions (topic_id, partition, next_offset) VALUES (?, ?, 0)`

// All of a lane that has just begun lies before every subscription.
export const INSERT_LANE_CURSORS = `
INSERT OR IGNORE INTO posthorn_cursors (subscription_id, partition, next_offset)
SELECT subscription_id, ?2, 0 FROM posthorn_subscriptions WHERE topic_id = ?1`

export const PARTITIONS_OF_LANE = `SELECT partitions FROM posthorn_topics WHERE topic_id = ?`

export const NEXT_OFFSET = `
SELECT next_offset AS nextOffset FROM posthorn_partitions WHERE topic_id = ? AND partition = ?`

export const PARTITION_NUMBERS = `SELECT partition FROM posthorn_partitions WHERE topic_id = ? ORDER BY partition`

export const ADVANCE_PARTITION = `
UPDATE posthorn_partitions SET next_offset = next_offset + ?
 WHERE topic_id = ? AND partition = ? RETURNING next_offset AS nextOffset`

export const INSERT_BATCH = `
INSERT INTO posthorn_batches
  (topic_id, partition, base_offset, count, first_time_ms, last_time_ms, crc32, shared, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

// Messages that the slowest subscription has not taken yet; those of a topic without subscriptions all count.
export const BACKLOG = `
SELECT coalesce(sum(heads.next_offset - max(
         coalesce((SELECT min(cursors.next_offset) FROM posthorn_cursors AS cursors
                     JOIN posthorn_subscriptions AS subscriptions USING (subscription_id)
                    WHERE subscriptions.topic_id = heads.topic_id AND cursors.partition = heads.partition), 0),
         coalesce((SELECT min(base_offset) FROM posthorn_batches AS batches
                    WHERE batches.topic_id = heads.topic_id AND batches.partition = heads.partition),
                  heads.next_offset))), 0) AS backlog
  FROM posthorn_partitions AS heads WHERE heads.topic_id = ?`

export const REMEMBER_ID = `
INSERT INTO posthorn_deduplication (topic_id, message_id, expires_at_ms, partition, offset) VALUES (?1, ?2, ?3, ?5, ?6)
    ON CONFLICT (topic_id, message_id) DO UPDATE
   SET expires_at_ms = excluded.expires_at_ms, partition = excluded.partition, offset = excluded.offset
 WHERE expires_at_ms <= ?4`

/** A delayed message has entered the log. */
export const PLACE_ID = `
UPDATE posthorn_deduplication SET partition = ?, offset = ?
 WHERE topic_id = ? AND message_id = ? AND partition IS NULL`

export const DELETE_EXPIRED_IDS = `
DELETE FROM posthorn_deduplication WHERE (topic_id, message_id) IN
  (SELECT topic_id, message_id FROM posthorn_deduplication WHERE expires_at_ms <= ? LIMIT 5000)`

export const INSERT_DELAYED = `
INSERT INTO posthorn_delayed (topic_id, partition, message_id, due_at_ms, time_ms, shared, own)
VALUES (?, ?, ?, ?, ?, ?, ?)`

export const NEXT_DELAYED = `SELECT min(due_at_ms) AS dueAtMs FROM posthorn_delayed`

export const DUE_DELAYED = `
SELECT delayed_id AS delayedId, topic_id AS topicId, partition, message_id AS id, time_ms AS timeMs, shared, own
  FROM posthorn_delayed WHERE due_at_ms <= ? ORDER BY due_at_ms, delayed_id LIMIT ?`

export const DELETE_DELAYED = `DELETE FROM posthorn_delayed WHERE delayed_id = ?`

// From the batch that holds the offset, or else the first one after it.
export const FIND_BATCHES = `
SELECT batch_id AS batchId, base_offset AS baseOffset, count, octet_length(data) AS bytes
  FROM posthorn_batches
 WHERE topic_id = ?1 AND partition = ?2
   AND base_offset >= coalesce((SELECT max(base_offset) FROM posthorn_batches
                                 WHERE topic_id = ?1 AND partition = ?2 AND base_offset <= ?3), ?3)
 ORDER BY base_offset LIMIT ?4`

export const READ_BATCH = `
SELECT topic_id AS topicId, partition, base_offset AS baseOffset, count, crc32, shared, data
  FROM posthorn_batches WHERE batch_id = ?`

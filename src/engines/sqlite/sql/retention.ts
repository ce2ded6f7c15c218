export const TOPICS_TO_RETAIN = `
SELECT topic_id AS topicId, kind, retention_age_ms AS ageMs, retention_bytes AS bytesMax,
       drop_unread AS dropUnread, had_subscription AS hadSubscription
  FROM posthorn_topics`

export const STORED_BYTES = `SELECT coalesce(sum(octet_length(data)), 0) AS bytes FROM posthorn_batches WHERE topic_id = ?`

// A few batches a time, so that no publisher waits long for the write lock.
export const OLDEST_BATCHES = `
SELECT batch_id AS batchId, base_offset AS baseOffset, count, last_time_ms AS lastTimeMs, octet_length(data) AS bytes
  FROM posthorn_batches WHERE topic_id = ? AND partition = ? ORDER BY base_offset LIMIT 64`

export const PARTITIONS_WITH_MESSAGES = `
SELECT partition FROM posthorn_partitions AS p
 WHERE topic_id = ? AND EXISTS (SELECT 1 FROM posthorn_batches AS b
                                 WHERE b.topic_id = p.topic_id AND b.partition = p.partition)`

export const DELETE_BATCH = `DELETE FROM posthorn_batches WHERE batch_id = ?`

// What was cancelled goes with its message.
export const DELETE_CANCELLED = `
DELETE FROM posthorn_cancelled WHERE topic_id = ? AND partition = ? AND offset < ?`

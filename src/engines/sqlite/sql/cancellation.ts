// The youngest, should there be several.
export const DELETE_DELAYED_BY_ID = `
DELETE FROM posthorn_delayed WHERE delayed_id =
  (SELECT delayed_id FROM posthorn_delayed WHERE topic_id = ? AND message_id = ?
    ORDER BY time_ms DESC, due_at_ms DESC, delayed_id DESC LIMIT 1)`

export const PLACE_OF_ID = `
SELECT partition, offset FROM posthorn_deduplication
 WHERE topic_id = ? AND message_id = ? AND partition IS NOT NULL`

export const REDRIVEN_WITH_ID = `
SELECT r.partition, r.offset, r.event
  FROM posthorn_subscriptions AS s JOIN posthorn_retries AS r USING (subscription_id)
 WHERE s.topic_id = ? AND r.message_id = ?`

// The last batch that begins at or before an offset.
export const BATCH_BEFORE = `
SELECT base_offset AS baseOffset, count, last_time_ms AS lastTimeMs FROM posthorn_batches
 WHERE topic_id = ? AND partition = ? AND base_offset <= ? ORDER BY base_offset DESC LIMIT 1`

// Batches of a time that may hold an id. Their text is read last, and only where the rest fits.
export const BATCHES_AT_TIME = `
SELECT batch_id AS batchId FROM posthorn_batches
 WHERE topic_id = ?1 AND partition = ?2 AND base_offset BETWEEN ?3 AND ?4
   AND first_time_ms <= ?5 AND last_time_ms >= ?5 AND instr(data, ?6) > 0
 ORDER BY base_offset`

// A few batches from an offset on, and whether each may hold an id.
export const LOOK_THROUGH_BATCHES = `
SELECT batch_id AS batchId, base_offset + count AS nextOffset, octet_length(data) AS bytes, instr(data, ?4) > 0 AS found
  FROM posthorn_batches
 WHERE topic_id = ?1 AND partition = ?2
   AND base_offset >= coalesce((SELECT max(base_offset) FROM posthorn_batches
                                 WHERE topic_id = ?1 AND partition = ?2 AND base_offset <= ?3), ?3)
   AND base_offset + count > ?3
 ORDER BY base_offset LIMIT 16`

export const CANCEL_OFFSET = `
INSERT OR IGNORE INTO posthorn_cancelled (topic_id, partition, offset) VALUES (?, ?, ?)`

export const CANCELLED_OFFSETS = `
SELECT offset FROM posthorn_cancelled
 WHERE topic_id = (SELECT topic_id FROM posthorn_subscriptions WHERE subscription_id = ?)
   AND partition = ? AND offset >= ? AND offset < ? ORDER BY offset`

export const END_OF_CANCELLED_RUN = `
SELECT offset + 1 AS end FROM posthorn_cancelled AS last
 WHERE topic_id = (SELECT topic_id FROM posthorn_subscriptions WHERE subscription_id = ?)
   AND partition = ? AND offset >= ?
   AND NOT EXISTS (SELECT 1 FROM posthorn_cancelled AS next
                    WHERE next.topic_id = last.topic_id AND next.partition = last.partition
                      AND next.offset = last.offset + 1)
 ORDER BY offset LIMIT 1`

export const FIND_CANCELLED = `
SELECT 1 AS found FROM posthorn_cancelled WHERE topic_id = ? AND partition = ? AND offset = ?`

export const CURSORS_OF_PARTITION = `
SELECT subscription_id AS subscriptionId, next_offset AS cursor
  FROM posthorn_subscriptions JOIN posthorn_cursors USING (subscription_id)
 WHERE topic_id = ? AND partition = ?`

export const RANGES_WITH_OFFSET = `
SELECT lease_id AS leaseId, subscription_id AS subscriptionId, partition, from_offset AS fromOffset,
       to_offset AS toOffset, settled, crashes, isolated, session_id AS sessionId
  FROM posthorn_leases
 WHERE subscription_id = ?1 AND partition = ?2 AND from_offset <= ?3 AND to_offset > ?3`

export const ROWS_WITH_OFFSET = `
SELECT retry_id AS retryId, subscription_id AS subscriptionId, partition, offset, attempt, crashes, isolated,
       failures, event, message_key AS key, lease_id AS leaseId, session_id AS sessionId
  FROM posthorn_retries WHERE subscription_id = ? AND partition = ? AND offset = ?`

export const INSERT_NOTICE = `
INSERT OR IGNORE INTO posthorn_cancel_notices (session_id, lease_id, partition, offset, ended) VALUES (?, ?, ?, ?, ?)`

export const NOTICES_OF_SESSION = `
SELECT lease_id AS lease, partition, offset, ended FROM posthorn_cancel_notices WHERE session_id = ?`

export const FIND_END_NOTICE = `
SELECT partition FROM posthorn_cancel_notices WHERE session_id = ? AND lease_id = ? AND ended = 1`

export const DELETE_NOTICES = `DELETE FROM posthorn_cancel_notices WHERE session_id = ?`

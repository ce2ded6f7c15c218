import { PARKED } from './chains.ts'

/** `SqliteMoveSource` reads whole tables, in an order in which they can be written elsewhere. */

export const FIND_STORE_ID = `SELECT value AS storeId FROM posthorn_meta WHERE name = 'store_id'`

export const KEEP_STORE_ID = `INSERT INTO posthorn_meta (name, value) VALUES ('store_id', ?)`

export const KEEP_MOVED_TO = `INSERT OR REPLACE INTO posthorn_meta (name, value) VALUES ('moved_to', ?)`

export const FORGET_MOVED_TO = `DELETE FROM posthorn_meta WHERE name = 'moved_to'`

export const TOPICS = `
SELECT topic_id AS topicId, name AS topic, kind, partitions, deduplication_window_ms AS deduplicationWindowMs,
       retention_age_ms AS maxAgeMs, retention_bytes AS maxBytes, drop_unread AS dropUnread, max_backlog AS maxBacklog,
       had_subscription AS hadSubscription,
       EXISTS (SELECT 1 FROM posthorn_cancelled AS c WHERE c.topic_id = t.topic_id) AS hasCancelled
  FROM posthorn_topics AS t ORDER BY topic_id`

export const PARTITIONS = `
SELECT topic_id AS topicId, partition,
       coalesce((SELECT min(base_offset) FROM posthorn_batches AS b
                  WHERE b.topic_id = p.topic_id AND b.partition = p.partition), next_offset) AS firstOffset
  FROM posthorn_partitions AS p ORDER BY topic_id, partition`

export const BATCH_SUMMARY = `
SELECT count(*) AS batches, coalesce(sum(count), 0) AS messages, coalesce(min(base_offset), 0) AS "from",
       coalesce(max(base_offset + count), 0) AS "to"
  FROM posthorn_batches WHERE topic_id = ? AND partition = ? AND base_offset < ?`

export const BATCHES = `
SELECT topic_id AS topicId, partition, base_offset AS baseOffset, count, first_time_ms AS firstTimeMs,
       last_time_ms AS lastTimeMs, crc32, shared, data
  FROM posthorn_batches WHERE topic_id = ? AND partition = ? AND base_offset >= ? ORDER BY base_offset`

export const SUBSCRIPTIONS = `
SELECT subscription_id AS subscriptionId, topic_id AS topicId, name AS subscription, ordered,
       max_crashes AS maxCrashes, max_parked AS maxParked, paused
  FROM posthorn_subscriptions ORDER BY subscription_id`

export const POSITIONS = `
SELECT partition, next_offset AS offset FROM posthorn_cursors WHERE subscription_id = ? ORDER BY partition`

export const RANGES = `
SELECT lease_id AS leaseId, partition, from_offset AS fromOffset, to_offset AS toOffset, settled, crashes
  FROM posthorn_leases WHERE subscription_id = ? ORDER BY partition, from_offset`

// Without order nothing waits for its turn.
export const SET_ASIDE = `
SELECT subscription_id AS subscriptionId, r.partition, r.offset, message_key AS key,
       iif(waits, 'turn', 'time') AS wait, iif(waits, NULL, due_at_ms) AS dueAtMs,
       iif(parked = ${PARKED.not}, 'retrying', 'parked') AS status, attempt, crashes, failures, event, message_id AS id
  FROM (SELECT *, ordered = 1 AND parked IN (${PARKED.untilTurn}, ${PARKED.untilFreed}) AS waits
          FROM posthorn_retries JOIN posthorn_subscriptions USING (subscription_id)) AS r ORDER BY retry_id`

export const DEAD_LETTERS = `
SELECT dead_letter_id AS deadLetterId, subscription_id AS subscriptionId, partition, offset, message_key AS key, blocks,
       reason, dead_at_ms AS deadAtMs, attempts, crashes, failures, event
  FROM posthorn_dead_letters ORDER BY dead_letter_id`

export const STEPS = `
SELECT subscription_id AS subscriptionId, partition, offset, name, result FROM posthorn_steps
 ORDER BY subscription_id, partition, offset`

export const DELAYED = `
SELECT topic_id AS topicId, partition, message_id AS id, due_at_ms AS deliverAtMs, time_ms AS timeMs, shared, own
  FROM posthorn_delayed ORDER BY delayed_id`

export const CANCELLED = `
SELECT topic_id AS topicId, partition, offset FROM posthorn_cancelled ORDER BY topic_id, partition, offset`

export const IDS = `
SELECT topic_id AS topicId, message_id AS id, expires_at_ms AS expiresAtMs
  FROM posthorn_deduplication WHERE expires_at_ms > ? ORDER BY topic_id, message_id`

export const BUCKETS = `
SELECT subscription_id AS subscriptionId, limit_name AS "limit", bucket, next_at_ms AS fullAtMs
  FROM posthorn_rates WHERE next_at_ms > ?`

export const COUNTS = `
SELECT (SELECT count(*) FROM posthorn_topics) AS topics,
       (SELECT count(*) FROM posthorn_partitions) AS partitions,
       (SELECT count(*) FROM posthorn_batches) AS batches,
       (SELECT coalesce(sum(count), 0) FROM posthorn_batches) AS messages,
       (SELECT count(*) FROM posthorn_delayed) AS delayed,
       (SELECT count(*) FROM posthorn_cancelled) AS cancelled,
       (SELECT count(*) FROM posthorn_deduplication WHERE expires_at_ms > ?) AS ids,
       (SELECT count(*) FROM posthorn_subscriptions) AS subscriptions,
       (SELECT count(*) FROM posthorn_retries) AS setAside,
       (SELECT count(*) FROM posthorn_dead_letters) AS deadLetters,
       (SELECT count(*) FROM posthorn_steps) AS steps`

// What has been published, handed out, and set aside or buried in all.
export const PROGRESS = `
SELECT (SELECT coalesce(sum(next_offset), 0) FROM posthorn_partitions) AS published,
       (SELECT coalesce(sum(next_offset), 0) FROM posthorn_cursors) AS handedOut,
       (SELECT coalesce(max(retry_id), 0) FROM posthorn_retries) AS lastSetAside,
       (SELECT coalesce(sum(attempt), 0) FROM posthorn_retries) AS attempts,
       (SELECT coalesce(max(delayed_id), 0) FROM posthorn_delayed) AS lastDelayed,
       (SELECT coalesce(max(dead_letter_id), 0) FROM posthorn_dead_letters) AS buried`

// Batches that leave a gap, or do not end where the next message goes.
export const BROKEN_LOG = `
SELECT 'Messages of topic ' || t.name || ' are missing from partition ' || p.partition || '.' AS problem
  FROM posthorn_partitions AS p
  JOIN posthorn_topics AS t USING (topic_id)
  JOIN (SELECT topic_id, partition, min(base_offset) AS first_offset, sum(count) AS messages
          FROM posthorn_batches GROUP BY topic_id, partition) AS kept USING (topic_id, partition)
 WHERE p.next_offset <> first_offset + messages`

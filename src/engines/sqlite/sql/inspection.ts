import { PARKED } from './chains.ts'

export const LIST_TOPICS = `
SELECT topic_id AS topicId, name AS topic, kind, partitions AS partitionsOfLane,
       (SELECT coalesce(sum(count), 0) FROM posthorn_batches AS b WHERE b.topic_id = t.topic_id) AS messages,
       (SELECT coalesce(sum(octet_length(data)), 0) FROM posthorn_batches AS b WHERE b.topic_id = t.topic_id) AS bytes,
       (SELECT count(*) FROM posthorn_delayed AS d WHERE d.topic_id = t.topic_id) AS delayed,
       (SELECT count(*) FROM posthorn_subscriptions AS s WHERE s.topic_id = t.topic_id) AS subscriptions
  FROM posthorn_topics AS t ORDER BY name`

export const LIST_PARTITIONS = `
SELECT partition, next_offset AS nextOffset,
       coalesce((SELECT min(base_offset) FROM posthorn_batches AS b
                  WHERE b.topic_id = p.topic_id AND b.partition = p.partition), next_offset) AS firstOffset
  FROM posthorn_partitions AS p WHERE topic_id = ? ORDER BY partition`

export const LIST_SUBSCRIPTIONS = `
SELECT s.subscription_id AS subscriptionId, t.topic_id AS topicId, t.name AS topic, s.name AS subscription, paused,
       (SELECT count(*) FROM posthorn_retries AS r
         WHERE r.subscription_id = s.subscription_id AND session_id IS NULL AND parked = ${PARKED.not}) AS retrying,
       (SELECT count(*) FROM posthorn_retries AS r
         WHERE r.subscription_id = s.subscription_id AND session_id IS NULL AND parked <> ${PARKED.not}) AS parked,
       (SELECT count(*) FROM posthorn_retries AS r
         WHERE r.subscription_id = s.subscription_id AND session_id IS NOT NULL) AS leasedRetries,
       (SELECT count(*) FROM posthorn_dead_letters AS d WHERE d.subscription_id = s.subscription_id) AS deadLetters,
       (SELECT count(*) FROM posthorn_dead_letters AS d
         WHERE d.subscription_id = s.subscription_id AND blocks = 1) AS blockedKeys
  FROM posthorn_subscriptions AS s JOIN posthorn_topics AS t USING (topic_id)
 WHERE ?1 IS NULL OR t.name = ?1 ORDER BY t.name, s.name`

export const LIST_POSITIONS = `
SELECT c.partition, c.next_offset AS offset,
       p.next_offset - max(c.next_offset, coalesce(
         (SELECT min(base_offset) FROM posthorn_batches AS b
           WHERE b.topic_id = p.topic_id AND b.partition = p.partition), p.next_offset)) AS backlog
  FROM posthorn_cursors AS c
  JOIN posthorn_partitions AS p ON p.topic_id = ?2 AND p.partition = c.partition
 WHERE c.subscription_id = ?1 ORDER BY c.partition`

export const LIST_RANGES = `
SELECT lease_id AS leaseId, from_offset AS fromOffset, to_offset AS toOffset, settled, session_id AS sessionId
  FROM posthorn_leases WHERE subscription_id = ?`

export const TIME_AT_OFFSET = `
SELECT first_time_ms AS timeMs FROM posthorn_batches
 WHERE topic_id = ?1 AND partition = ?2 AND base_offset + count > ?3
   AND base_offset >= coalesce((SELECT max(base_offset) FROM posthorn_batches
                                 WHERE topic_id = ?1 AND partition = ?2 AND base_offset <= ?3), 0)
 ORDER BY base_offset LIMIT 1`

export const COUNT_MESSAGES = `
SELECT coalesce(sum(count), 0) + (SELECT count(*) FROM posthorn_delayed WHERE topic_id = ?1) AS messages
  FROM posthorn_batches WHERE topic_id = ?1`

export const PURGE_BATCHES = `DELETE FROM posthorn_batches WHERE topic_id = ?`
export const PURGE_DELAYED = `DELETE FROM posthorn_delayed WHERE topic_id = ?`
export const PURGE_CANCELLED = `DELETE FROM posthorn_cancelled WHERE topic_id = ?`
export const PURGE_IDS = `DELETE FROM posthorn_deduplication WHERE topic_id = ?`
export const DELETE_PARTITIONS = `DELETE FROM posthorn_partitions WHERE topic_id = ?`
export const DELETE_TOPIC = `DELETE FROM posthorn_topics WHERE topic_id = ?`

export const ALL_BATCHES = `
SELECT b.batch_id AS batchId, t.name AS topic FROM posthorn_batches AS b
  JOIN posthorn_topics AS t USING (topic_id) ORDER BY b.topic_id, b.partition, b.base_offset`

// None of this can come about while the file is intact.
export const BROKEN_PLACES = `
SELECT 'The cursor of subscription ' || s.name || ' lies beyond the end of partition ' || c.partition || '.' AS problem
  FROM posthorn_cursors AS c
  JOIN posthorn_subscriptions AS s USING (subscription_id)
  JOIN posthorn_partitions AS p ON p.topic_id = s.topic_id AND p.partition = c.partition
 WHERE c.next_offset > p.next_offset
UNION ALL
SELECT 'Subscription ' || s.name || ' has no cursor in partition ' || p.partition || '.'
  FROM posthorn_subscriptions AS s
  JOIN posthorn_partitions AS p USING (topic_id)
 WHERE NOT EXISTS (SELECT 1 FROM posthorn_cursors AS c
                    WHERE c.subscription_id = s.subscription_id AND c.partition = p.partition)
UNION ALL
SELECT 'Messages of topic ' || t.name || ' lie beyond the end of partition ' || b.partition || '.'
  FROM posthorn_batches AS b
  JOIN posthorn_topics AS t USING (topic_id)
  JOIN posthorn_partitions AS p ON p.topic_id = b.topic_id AND p.partition = b.partition
 WHERE b.base_offset + b.count > p.next_offset
UNION ALL
SELECT 'Lease ' || l.lease_id || ' makes no sense.'
  FROM posthorn_leases AS l LEFT JOIN posthorn_subscriptions AS s USING (subscription_id)
 WHERE s.subscription_id IS NULL OR typeof(l.from_offset) <> 'integer' OR typeof(l.to_offset) <> 'integer'
    OR l.from_offset < 0 OR l.from_offset >= l.to_offset
    OR l.to_offset > coalesce((SELECT c.next_offset FROM posthorn_cursors AS c
                                WHERE c.subscription_id = l.subscription_id AND c.partition = l.partition), 0)
    OR length(l.settled) <> (l.to_offset - l.from_offset + 7) / 8`

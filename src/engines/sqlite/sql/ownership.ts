import { MAY_BE_GRANTED } from './retries.ts'

/** How many sources are open on a subscription, and how many of them were opened before this one. */
export const COUNT_SOURCES = `
SELECT count(*) AS sources, coalesce(sum((session_id, source) < (?2, ?3)), 0) AS earlier
  FROM posthorn_session_subscriptions WHERE subscription_id = ?1`

export const OWNED_PARTITIONS = `
SELECT partition FROM posthorn_owners
 WHERE subscription_id = ? AND session_id = ? AND source = ? ORDER BY partition`

// Free of owners, and of messages that somebody still works on.
export const FREE_PARTITIONS = `
SELECT partition FROM posthorn_partitions AS p
 WHERE topic_id = ?2
   AND NOT EXISTS (SELECT 1 FROM posthorn_owners AS o WHERE o.subscription_id = ?1 AND o.partition = p.partition)
   AND NOT EXISTS (SELECT 1 FROM posthorn_leases AS l
                    WHERE l.subscription_id = ?1 AND l.partition = p.partition AND l.session_id IS NOT NULL)
   AND NOT EXISTS (SELECT 1 FROM posthorn_retries AS r INDEXED BY posthorn_retries_by_lease
                    WHERE r.session_id IS NOT NULL AND r.subscription_id = ?1 AND r.partition = p.partition)
 ORDER BY partition`

export const OWN_PARTITION = `
INSERT INTO posthorn_owners (subscription_id, partition, session_id, source) VALUES (?, ?, ?, ?)`

// Not while the session holds messages of the partition.
export const GIVE_PARTITION_UP = `
DELETE FROM posthorn_owners
 WHERE subscription_id = ?1 AND partition = ?2 AND session_id = ?3 AND source = ?4
   AND NOT EXISTS (SELECT 1 FROM posthorn_leases AS l
                    WHERE l.subscription_id = ?1 AND l.partition = ?2 AND l.session_id = ?3)
   AND NOT EXISTS (SELECT 1 FROM posthorn_retries AS r INDEXED BY posthorn_retries_by_lease
                    WHERE r.session_id = ?3 AND r.subscription_id = ?1 AND r.partition = ?2)`

export const DISOWN_SOURCE = `DELETE FROM posthorn_owners WHERE session_id = ? AND source = ?`

export const DISOWN_SESSION = `DELETE FROM posthorn_owners WHERE session_id = ?`

export const DISOWN_SUBSCRIPTION = `DELETE FROM posthorn_owners WHERE subscription_id = ?`

// The partitions of an owner of which something could be granted now, and what it is.
export const WORK_OF_OWNER = `
WITH work AS MATERIALIZED (
  SELECT o.partition, c.next_offset AS cursor, h.next_offset AS head,
         EXISTS (SELECT 1 FROM posthorn_leases AS l
                  WHERE l.subscription_id = ?1 AND l.partition = o.partition AND l.session_id IS NULL) AS returned,
         EXISTS (SELECT 1 FROM posthorn_retries AS due
                  WHERE due.partition = o.partition AND ${MAY_BE_GRANTED}) AS setAside
    FROM posthorn_owners AS o
    JOIN posthorn_cursors AS c ON c.subscription_id = ?1 AND c.partition = o.partition
    JOIN posthorn_partitions AS h ON h.topic_id = ?5 AND h.partition = o.partition
   WHERE o.subscription_id = ?1 AND o.session_id = ?3 AND o.source = ?4)
SELECT * FROM work WHERE returned OR setAside OR cursor < head`

/** The keys of a partition of which something was set aside, or blocks. */
export const CHAINS_OF_PARTITION = `
SELECT message_key AS key, min(offset) AS firstOffset, max(offset) AS lastOffset
  FROM (SELECT message_key, offset FROM posthorn_retries
         WHERE subscription_id = ?1 AND partition = ?2 AND message_key IS NOT NULL
         UNION ALL
        SELECT message_key, offset FROM posthorn_dead_letters INDEXED BY posthorn_dead_letters_blocking
         WHERE subscription_id = ?1 AND partition = ?2 AND blocks = 1)
 GROUP BY message_key`

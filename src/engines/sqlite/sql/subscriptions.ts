export const FIND_SUBSCRIPTION = `
SELECT subscription_id AS subscriptionId, topic_id AS topicId, paused, max_crashes AS maxCrashes, ordered,
       max_parked AS maxParked
  FROM posthorn_subscriptions WHERE topic_id = ? AND name = ?`

export const FIND_CONFIGURED_SUBSCRIPTION = `
SELECT 1 AS found FROM posthorn_subscriptions AS s JOIN posthorn_topics AS t USING (topic_id)
 WHERE t.name = ? AND s.name = ? AND max_crashes = ? AND ordered = ? AND max_parked = ?`

/** From how many crashes on messages of subscription ?1 are suspects: with one more they would be dead letters. */
export const SUSPECT_FROM = `
(SELECT max(1, max_crashes - 1) FROM posthorn_subscriptions WHERE subscription_id = ?1)`

export const INSERT_SUBSCRIPTION = `
INSERT INTO posthorn_subscriptions (topic_id, name, max_crashes, ordered, max_parked) VALUES (?, ?, ?, ?, ?)`

export const UPDATE_SUBSCRIPTION = `
UPDATE posthorn_subscriptions SET max_crashes = ?, ordered = ?, max_parked = ? WHERE subscription_id = ?`

export const MARK_HAD_SUBSCRIPTION = `UPDATE posthorn_topics SET had_subscription = 1 WHERE topic_id = ?`

/** A queue is then as it was before its first subscription: it keeps everything for the next one. */
export const FORGET_QUEUE_SUBSCRIPTION = `
UPDATE posthorn_topics SET had_subscription = 0 WHERE topic_id = ? AND kind = 'queue'`

export const SET_PAUSED = `UPDATE posthorn_subscriptions SET paused = ? WHERE subscription_id = ?`

export const INSERT_CURSOR = `INSERT INTO posthorn_cursors (subscription_id, partition, next_offset) VALUES (?, ?, ?)`

export const MOVE_CURSOR = `UPDATE posthorn_cursors SET next_offset = ? WHERE subscription_id = ? AND partition = ?`

// Partitions with messages that the subscription has not taken yet.
export const FRESH_PARTITIONS = `
SELECT cursors.partition, cursors.next_offset AS cursor, heads.next_offset AS head
  FROM posthorn_cursors AS cursors
  JOIN posthorn_partitions AS heads ON heads.topic_id = ?2 AND heads.partition = cursors.partition
 WHERE cursors.subscription_id = ?1 AND cursors.next_offset < heads.next_offset
 ORDER BY cursors.partition`

/** Whether fewer messages are set aside than may be. */
export const MAY_TAKE_NEW = `
SELECT set_aside < max_parked AS room FROM posthorn_subscriptions WHERE subscription_id = ?`

// One row while the subscription exists: whether a pull would find anything now, if it has no order; otherwise that
// depends on which partitions are whose.
export const LOOK_FOR_WORK = `
SELECT ordered, paused, set_aside < max_parked AS room, ordered = 0 AND paused = 0 AND (
         set_aside < max_parked AND EXISTS (SELECT 1 FROM posthorn_cursors AS cursors
                   JOIN posthorn_partitions AS heads
                     ON heads.topic_id = subscriptions.topic_id AND heads.partition = cursors.partition
                  WHERE cursors.subscription_id = ?1 AND cursors.next_offset < heads.next_offset)
      OR EXISTS (SELECT 1 FROM posthorn_leases WHERE subscription_id = ?1 AND session_id IS NULL)
      OR EXISTS (SELECT 1 FROM posthorn_retries
                  WHERE subscription_id = ?1 AND session_id IS NULL AND due_at_ms <= ?2)) AS found
  FROM posthorn_subscriptions AS subscriptions WHERE subscription_id = ?1`

export const FIRST_KEPT_OFFSET = `
SELECT min(base_offset) AS offset FROM posthorn_batches WHERE topic_id = ? AND partition = ?`

export const FIRST_BATCH_AT_TIME = `
SELECT batch_id AS batchId FROM posthorn_batches
 WHERE topic_id = ? AND partition = ? AND last_time_ms >= ? ORDER BY base_offset LIMIT 1`

// The lowest offset that the subscription may still have to read, of its cursor, its ranges and its retries.
export const FLOOR = `
SELECT min(
  coalesce((SELECT next_offset FROM posthorn_cursors WHERE subscription_id = ?1 AND partition = ?2), 0),
  coalesce((SELECT min(from_offset) FROM posthorn_leases WHERE subscription_id = ?1 AND partition = ?2), 1e15),
  coalesce((SELECT min(offset) FROM posthorn_retries
             WHERE subscription_id = ?1 AND partition = ?2 AND event IS NULL), 1e15)) AS floor`

export const SUBSCRIPTION_IDS_OF_TOPIC = `
SELECT subscription_id AS subscriptionId FROM posthorn_subscriptions WHERE topic_id = ?`

export const DELETE_SUBSCRIPTION = `DELETE FROM posthorn_subscriptions WHERE subscription_id = ?`
export const DELETE_CURSORS = `DELETE FROM posthorn_cursors WHERE subscription_id = ?`
export const DELETE_SUBSCRIPTION_LEASES = `DELETE FROM posthorn_leases WHERE subscription_id = ?`
export const DELETE_SUBSCRIPTION_DEAD_LETTERS = `DELETE FROM posthorn_dead_letters WHERE subscription_id = ?`
export const DELETE_SUBSCRIPTION_SESSIONS = `DELETE FROM posthorn_session_subscriptions WHERE subscription_id = ?`

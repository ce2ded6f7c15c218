import { statements } from '../database/statement.ts'

function someOf(table: 'ids' | 'delayed'): string {
  return `
    WITH chosen AS (
      SELECT id_hash FROM @.${table} WHERE topic_id = $1 AND id_hash > $2::uuid ORDER BY id_hash LIMIT $3
    ), gone AS (
      DELETE FROM @.${table} USING chosen
       WHERE ${table}.topic_id = $1 AND ${table}.id_hash = chosen.id_hash
      RETURNING ${table}.id_hash
    )
    SELECT count(*) AS deleted, max(id_hash::text COLLATE "C") AS "lastHash" FROM gone`
}

export const operators = statements('operators', {
  // Nothing is appended to the topic until the transaction ends.
  lockTopic: `
    SELECT topic_id AS "topicId"
      FROM @.topics WHERE topic = $1 FOR NO KEY UPDATE`,

  subscriptionIds: `
    SELECT subscription_id AS "subscriptionId" FROM @.subscriptions WHERE topic_id = $1 ORDER BY subscription_id`,

  setPaused: `UPDATE @.subscriptions SET paused = $2 WHERE subscription_id = $1`,

  // Purging: what was there is below the first offset from now on.
  closeLog: `
    INSERT INTO @.floors (topic_id, partition, first_offset)
    SELECT topic_id, partition, next_offset FROM @.ends WHERE topic_id = $1 AND next_offset > first_offset
        ON CONFLICT DO NOTHING`,

  dropFloors: `
    DELETE FROM @.floors f WHERE f.topic_id = $1 AND EXISTS
      (SELECT FROM @.floors higher
        WHERE higher.topic_id = f.topic_id AND higher.partition = f.partition
          AND higher.first_offset > f.first_offset)`,

  noteGeneration: `UPDATE @.topics SET generation = generation + 1, has_cancelled = false WHERE topic_id = $1`,

  // Some of them, above a bound: the others were deleted before, and may still stand in the index.
  deleteSomeDelayed: someOf('delayed'),
  deleteSomeIds: someOf('ids'),
  deleteDelayed: `DELETE FROM @.delayed WHERE topic_id = $1`,
  deleteIds: `DELETE FROM @.ids WHERE topic_id = $1`,
  deleteCancelled: `DELETE FROM @.cancelled WHERE topic_id = $1`,

  deleteSetAside: `DELETE FROM @.set_aside WHERE subscription_id = ANY($1::int[])`,

  // Dead letters keep theirs: a redrive skips what was finished.
  deleteStepsButOfDeadLetters: `
    DELETE FROM @.steps s WHERE s.subscription_id = ANY($1::int[]) AND NOT EXISTS
      (SELECT FROM @.dead_letters d
        WHERE d.subscription_id = s.subscription_id AND d.partition = s.partition AND d."offset" = s."offset")`,

  // A stretch of what lies below a partition's first offset.
  deleteBatches: `
    WITH stretch AS (
      SELECT base_offset FROM @.batches
       WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3 AND base_offset < $4
       ORDER BY base_offset LIMIT $5
    ), deleted AS (
      DELETE FROM @.batches b USING stretch
       WHERE b.topic_id = $1 AND b.partition = $2 AND b.base_offset = stretch.base_offset
      RETURNING b.base_offset
    )
    SELECT count(*) AS batches, max(base_offset) AS "lastOffset" FROM deleted`,

  // Deleting a subscription.
  deleteStates: `DELETE FROM @.states WHERE subscription_id = ANY($1::int[])`,
  deleteDeadLetters: `DELETE FROM @.dead_letters WHERE subscription_id = ANY($1::int[])`,
  deleteSteps: `DELETE FROM @.steps WHERE subscription_id = ANY($1::int[])`,
  deleteCounters: `DELETE FROM @.counters WHERE subscription_id = ANY($1::int[])`,
  deleteBreakers: `DELETE FROM @.breakers WHERE subscription_id = ANY($1::int[])`,
  deleteSubscriptions: `DELETE FROM @.subscriptions WHERE subscription_id = ANY($1::int[])`,

  // A queue is then as it was before its first subscription: it keeps everything for the next one.
  forgetQueueSubscription: `UPDATE @.topics SET had_subscription = false WHERE topic_id = $1 AND kind = 'queue'`,

  deleteAllBatches: `DELETE FROM @.batches WHERE topic_id = $1`,
  deleteFloors: `DELETE FROM @.floors WHERE topic_id = $1`,
  deletePartitions: `DELETE FROM @.partitions WHERE topic_id = $1`,
  deleteTopic: `DELETE FROM @.topics WHERE topic_id = $1`,
})

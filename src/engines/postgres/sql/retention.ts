import { statements } from '../database/statement.ts'

export const retention = statements('retention', {
  // Topics of which something might be deleted: by what their oldest batches say, whoever still needs these.
  candidates: `
    SELECT t.topic_id AS "topicId" FROM @.topics t
     WHERE EXISTS (SELECT 1 FROM @.ends e
                    CROSS JOIN LATERAL (SELECT last_time_ms FROM @.batches
                                         WHERE topic_id = e.topic_id AND partition = e.partition
                                           AND base_offset >= e.first_offset
                                         ORDER BY base_offset LIMIT 1) oldest
                    WHERE e.topic_id = t.topic_id
                      AND (t.kind = 'queue' OR t.max_bytes IS NOT NULL OR oldest.last_time_ms < $1 - t.max_age_ms))
     ORDER BY t.topic_id`,

  // One process at a time deletes from a topic.
  lock: `SELECT pg_advisory_xact_lock(hashtext('@.retention'), $1)`,

  topic: `
    SELECT kind, max_age_ms AS "maxAgeMs", max_bytes AS "maxBytes", drop_unread AS "dropUnread",
           had_subscription AS "hadSubscription"
      FROM @.topics WHERE topic_id = $1`,

  states: `
    SELECT s.subscription_id AS "subscriptionId", newest.state
      FROM @.subscriptions s
     CROSS JOIN LATERAL (SELECT state FROM @.states WHERE subscription_id = s.subscription_id
                          ORDER BY version DESC LIMIT 1) newest
     WHERE s.topic_id = $1`,

  // The first message of each partition that was set aside and has no copy of its own.
  setAside: `
    SELECT s.subscription_id AS "subscriptionId", e.partition, first_one."offset"
      FROM @.subscriptions s JOIN @.ends e USING (topic_id)
     CROSS JOIN LATERAL (SELECT "offset" FROM @.set_aside
                          WHERE subscription_id = s.subscription_id AND partition = e.partition
                            AND "offset" >= e.first_offset AND event IS NULL
                          ORDER BY "offset" LIMIT 1) first_one
     WHERE s.topic_id = $1`,

  bytes: `
    SELECT coalesce(sum(b.bytes), 0)::bigint AS bytes
      FROM @.ends e
      JOIN @.batches b ON b.topic_id = e.topic_id AND b.partition = e.partition AND b.base_offset >= e.first_offset
      JOIN @.topics t ON t.topic_id = e.topic_id AND t.max_bytes IS NOT NULL
     WHERE e.topic_id = $1`,

  oldest: `
    SELECT e.partition, b.base_offset + b.count AS "end", b.last_time_ms AS "lastTimeMs", b.bytes
      FROM @.ends e
     CROSS JOIN LATERAL (SELECT base_offset, count, last_time_ms, bytes FROM @.batches
                          WHERE topic_id = e.topic_id AND partition = e.partition AND base_offset >= e.first_offset
                          ORDER BY base_offset LIMIT $2) b
     WHERE e.topic_id = $1
     ORDER BY e.partition, b.base_offset`,

  // Whole batches that end at or before the offsets, and what belongs to them. Each partition's floor is at the cut then.
  cut: `
    WITH cut AS (
      SELECT e.topic_id, e.partition, e.first_offset, last_one.cut_offset
        FROM unnest($2::int[], $3::bigint[]) AS wanted(partition, to_offset)
        JOIN @.ends e ON e.topic_id = $1 AND e.partition = wanted.partition
       CROSS JOIN LATERAL (
               SELECT CASE WHEN base_offset + count <= wanted.to_offset THEN base_offset + count ELSE base_offset END
                        AS cut_offset
                 FROM @.batches
                WHERE topic_id = e.topic_id AND partition = e.partition
                  AND base_offset >= e.first_offset AND base_offset < wanted.to_offset
                ORDER BY base_offset DESC LIMIT 1) last_one
       WHERE last_one.cut_offset > e.first_offset),
    gone AS (
      DELETE FROM @.batches b USING cut
       WHERE b.topic_id = cut.topic_id AND b.partition = cut.partition
         AND b.base_offset >= cut.first_offset AND b.base_offset < cut.cut_offset
      RETURNING b.count),
    raised AS (
      INSERT INTO @.floors (topic_id, partition, first_offset) SELECT topic_id, partition, cut_offset FROM cut),
    passed AS (
      DELETE FROM @.floors f USING cut
       WHERE f.topic_id = cut.topic_id AND f.partition = cut.partition
         AND f.first_offset >= cut.first_offset AND f.first_offset < cut.cut_offset),
    uncancelled AS (
      DELETE FROM @.cancelled c USING cut
       WHERE c.topic_id = cut.topic_id AND c.partition = cut.partition
         AND c."offset" >= cut.first_offset AND c."offset" < cut.cut_offset)
    SELECT coalesce(sum(count), 0)::bigint AS deleted FROM gone`,

  // Above a bound: what was deleted already may still stand in the index, below it.
  forgetIds: `
    WITH expired AS (
      SELECT topic_id, id_hash, expires_at_ms FROM @.ids
       WHERE expires_at_ms > $1 AND expires_at_ms <= $2
       ORDER BY expires_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED)
    DELETE FROM @.ids USING expired
     WHERE ids.topic_id = expired.topic_id AND ids.id_hash = expired.id_hash
    RETURNING expired.expires_at_ms AS "expiresAtMs"`,
})

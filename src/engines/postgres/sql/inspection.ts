import { statements } from '../database/statement.ts'

/** Small batches are checked by the thousand. */
const BATCHES_AT_ONCE = 2_000

export const inspection = statements('inspection', {
  // All statements of the transaction see the same moment. Has to be its first.
  oneMoment: `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY`,

  topics: `
    SELECT t.topic_id AS "topicId", t.topic, t.kind, t.partitions AS "partitionsOfLane",
           (SELECT coalesce(sum(b.bytes), 0)::bigint
              FROM @.ends e JOIN @.batches b USING (topic_id, partition)
             WHERE e.topic_id = t.topic_id AND b.base_offset >= e.first_offset) AS bytes,
           (SELECT count(*) FROM @.delayed d WHERE d.topic_id = t.topic_id) AS delayed,
           (SELECT count(*) FROM @.subscriptions s WHERE s.topic_id = t.topic_id) AS subscriptions
      FROM @.topics t ORDER BY t.topic COLLATE "C"`,

  partitions: `
    SELECT topic_id AS "topicId", partition, first_offset AS "firstOffset", next_offset AS "nextOffset"
      FROM @.ends WHERE $1::int IS NULL OR topic_id = $1
     ORDER BY topic_id, partition`,

  subscriptions: `
    SELECT s.subscription_id AS "subscriptionId", s.topic_id AS "topicId", t.topic, s.subscription, s.paused,
           newest.state,
           (SELECT count(*) FROM @.dead_letters d WHERE d.subscription_id = s.subscription_id) AS "deadLetters",
           (SELECT count(*) FROM @.dead_letters d
             WHERE d.subscription_id = s.subscription_id AND d.blocks) AS "blockedKeys"
      FROM @.subscriptions s JOIN @.topics t USING (topic_id)
     CROSS JOIN LATERAL (SELECT state FROM @.states
                          WHERE subscription_id = s.subscription_id ORDER BY version DESC LIMIT 1) newest
     WHERE $1::int IS NULL OR s.topic_id = $1
     ORDER BY t.topic COLLATE "C", s.subscription COLLATE "C"`,

  // Of what is set aside and not under lease.
  setAside: `
    SELECT subscription_id AS "subscriptionId", status, count(*) AS messages
      FROM @.set_aside
     WHERE subscription_id = ANY($1::int[]) AND NOT row_id = ANY($2::bigint[])
     GROUP BY subscription_id, status`,

  // How many messages are cancelled from each of these places on, and how far one reaches that begins there.
  cancelledFrom: `
    SELECT place.topic_id AS "topicId", place.partition, place."offset",
           (SELECT count(*) FROM @.cancelled c
             WHERE c.topic_id = place.topic_id AND c.partition = place.partition
               AND c."offset" >= place."offset") AS cancelled,
           CASE WHEN here."offset" IS NULL THEN place."offset" ELSE
             (SELECT c."offset" + 1 FROM @.cancelled c
               WHERE c.topic_id = place.topic_id AND c.partition = place.partition AND c."offset" >= place."offset"
                 AND NOT EXISTS (SELECT FROM @.cancelled after
                                  WHERE after.topic_id = c.topic_id AND after.partition = c.partition
                                    AND after."offset" = c."offset" + 1)
               ORDER BY c."offset" LIMIT 1) END AS position
      FROM unnest($1::int[], $2::int[], $3::bigint[]) AS place(topic_id, partition, "offset")
      LEFT JOIN @.cancelled here
        ON here.topic_id = place.topic_id AND here.partition = place.partition AND here."offset" = place."offset"
     WHERE EXISTS (SELECT FROM @.cancelled c
                    WHERE c.topic_id = place.topic_id AND c.partition = place.partition
                      AND c."offset" >= place."offset")`,

  // When the batches were published that hold these places.
  publishedAt: `
    SELECT place.number, batch.first_time_ms AS "timeMs"
      FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[]) AS place(topic_id, partition, "offset", number)
     CROSS JOIN LATERAL (SELECT first_time_ms FROM @.batches b
                          WHERE b.topic_id = place.topic_id AND b.partition = place.partition
                            AND b.base_offset <= place."offset"
                          ORDER BY b.base_offset DESC LIMIT 1) batch`,

  consumers: `
    SELECT session_id AS id, host, pid, started_at_ms AS "startedAtMs", beaten_at_ms + lease_ms AS "leaseUntilMs"
      FROM @.sessions WHERE consumes ORDER BY started_at_ms, session_id`,

  states: `
    SELECT s.subscription_id AS "subscriptionId", s.topic_id AS "topicId", t.topic, s.subscription, newest.state
      FROM @.subscriptions s JOIN @.topics t USING (topic_id)
     CROSS JOIN LATERAL (SELECT state FROM @.states
                          WHERE subscription_id = s.subscription_id ORDER BY version DESC LIMIT 1) newest
     WHERE $1::int IS NULL OR s.topic_id = $1
     ORDER BY s.subscription_id`,

  // A stretch of batches from one place on, up to about $4 bytes, for the check of integrity.
  batchesAfter: `
    SELECT topic_id AS "topicId", partition, base_offset AS "baseOffset", count, checksum, shared, data
      FROM (SELECT *, sum(bytes) OVER (ORDER BY topic_id, partition, base_offset) - bytes AS bytes_before
              FROM @.batches WHERE (topic_id, partition, base_offset) > ($1::int, $2::int, $3::bigint)
             ORDER BY topic_id, partition, base_offset LIMIT ${BATCHES_AT_ONCE}) stretch
     WHERE bytes_before < $4
     ORDER BY topic_id, partition, base_offset`,

  topicNames: `SELECT topic_id AS "topicId", topic FROM @.topics`,

  rowCounts: `
    SELECT subscription_id AS "subscriptionId", count(*) AS messages FROM @.set_aside GROUP BY subscription_id`,

  // Of rows that leases name, those that are there.
  rowsThere: `
    SELECT row_id AS "rowId", subscription_id AS "subscriptionId" FROM @.set_aside WHERE row_id = ANY($1::bigint[])`,
})

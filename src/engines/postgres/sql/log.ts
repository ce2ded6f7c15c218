import { statements } from '../database/statement.ts'

export const log = statements('log', {
  heads: `
    SELECT e.topic_id AS "topicId", e.partition, e.next_offset AS "nextOffset"
      FROM unnest($1::int[], $2::int[]) AS wanted(topic_id, partition)
      JOIN @.ends e ON e.topic_id = wanted.topic_id AND e.partition = wanted.partition`,

  ends: `
    SELECT topic_id AS "topicId", partition, first_offset AS "firstOffset", next_offset AS "nextOffset"
      FROM @.ends WHERE topic_id = ANY($1::int[]) ORDER BY topic_id, partition`,

  insert: `
    INSERT INTO @.batches
      (topic_id, partition, base_offset, count, first_time_ms, last_time_ms, bytes, checksum, shared, data)
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::bigint[], $6::bigint[], $7::int[],
                         $8::bigint[], $9::text[], $10::text[])`,

  // Returns those that are new, or whose time was over.
  remember: `
    INSERT INTO @.ids (topic_id, id_hash, expires_at_ms)
    SELECT * FROM unnest($1::int[], $2::uuid[], $3::bigint[])
        ON CONFLICT (topic_id, id_hash) DO UPDATE SET expires_at_ms = excluded.expires_at_ms
     WHERE ids.expires_at_ms <= $4
    RETURNING topic_id AS "topicId", replace(id_hash::text, '-', '') AS "idHash"`,

  delay: `
    INSERT INTO @.delayed (topic_id, partition, id_hash, deliver_at_ms, time_ms, shared, own)
    SELECT * FROM unnest($1::int[], $2::int[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[], $7::text[])`,

  // How far each subscription of the topics has come.
  cursors: `
    SELECT s.topic_id AS "topicId", newest.cursors
      FROM @.subscriptions s
     CROSS JOIN LATERAL (SELECT state::json -> 'cursors' AS cursors FROM @.states
                          WHERE subscription_id = s.subscription_id
                          ORDER BY version DESC LIMIT 1) newest
     WHERE s.topic_id = ANY($1::int[])`,

  withCancelled: `SELECT topic_id AS "topicId" FROM @.topics WHERE topic_id = ANY($1::int[]) AND has_cancelled`,

  cancelledFrom: `
    SELECT wanted.topic_id AS "topicId", wanted.partition, c."offset"
      FROM unnest($1::int[], $2::int[], $3::bigint[]) AS wanted(topic_id, partition, from_offset)
     CROSS JOIN LATERAL (SELECT "offset" FROM @.cancelled
                          WHERE topic_id = wanted.topic_id AND partition = wanted.partition
                            AND "offset" >= wanted.from_offset) c`,

  cancelled: `
    SELECT c.topic_id AS "topicId", c.partition, c."offset"
      FROM @.cancelled c JOIN @.topics t USING (topic_id) WHERE c.topic_id = ANY($1::int[]) AND t.has_cancelled`,

  // Batches from the one that holds an offset on, of all partitions of a topic: those that "known" does not name, from
  // the first that is kept. A row without a batch where there are none. No batch holds more than 1,000 messages. "known"
  // is looked up by its keys, `topic/partition`: to join it would take the square of the partitions.
  describe: `
    SELECT e.topic_id AS "topicId", e.partition, e.first_offset AS "firstOffset", e.next_offset AS "nextOffset",
           b.base_offset AS "baseOffset", b.count, b.bytes
      FROM @.ends e
     CROSS JOIN LATERAL (SELECT greatest(($2::jsonb ->> (e.topic_id || '/' || e.partition))::bigint, e.first_offset)
                                  AS from_offset) wanted
      LEFT JOIN LATERAL (
             SELECT base_offset, count, bytes FROM @.batches
              WHERE topic_id = e.topic_id AND partition = e.partition
                AND base_offset >= coalesce(
                      (SELECT base_offset FROM @.batches
                        WHERE topic_id = e.topic_id AND partition = e.partition
                          AND base_offset <= wanted.from_offset AND base_offset > wanted.from_offset - 1000
                          AND base_offset >= e.first_offset
                        ORDER BY base_offset DESC LIMIT 1), wanted.from_offset)
              ORDER BY base_offset LIMIT $3) b ON true
     WHERE e.topic_id = ANY($1::int[])
     ORDER BY e.topic_id, e.partition, b.base_offset`,

  // The batches that hold messages of the ranges, each once. What is below the floor is long gone. OFFSET 0 keeps the
  // planner from joining the ranges with the whole log.
  read: `
    SELECT DISTINCT ON (b.topic_id, b.partition, b.base_offset)
           b.topic_id AS "topicId", b.partition, b.base_offset AS "baseOffset", b.count, b.bytes, b.checksum, b.shared, b.data
      FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[]) AS wanted(topic_id, partition, from_offset, to_offset)
     CROSS JOIN LATERAL (
             SELECT * FROM @.batches
              WHERE topic_id = wanted.topic_id AND partition = wanted.partition AND base_offset < wanted.to_offset
                AND base_offset >= coalesce(
                      (SELECT base_offset FROM @.batches
                        WHERE topic_id = wanted.topic_id AND partition = wanted.partition
                          AND base_offset <= wanted.from_offset AND base_offset > wanted.from_offset - 1000
                        ORDER BY base_offset DESC LIMIT 1), wanted.from_offset)
             OFFSET 0) b
     ORDER BY b.topic_id, b.partition, b.base_offset`,

  // Of each partition, the first batch with a message of that time or later.
  atTime: `
    SELECT e.partition, b.base_offset AS "baseOffset", b.count
      FROM @.ends e
     CROSS JOIN LATERAL (SELECT base_offset, count FROM @.batches
                          WHERE topic_id = e.topic_id AND partition = e.partition
                            AND base_offset >= e.first_offset AND last_time_ms >= $2
                          ORDER BY base_offset LIMIT 1) b
     WHERE e.topic_id = $1`,

  // One process at a time moves what is due.
  lockDelayed: `SELECT pg_try_advisory_xact_lock(hashtext('@.delayed')) AS locked`,

  // Above a bound: what was moved already may still stand in the index, below it.
  dueDelayed: `
    SELECT delayed_id AS "delayedId", topic_id AS "topicId", deliver_at_ms AS "deliverAtMs" FROM @.delayed
     WHERE (deliver_at_ms, delayed_id) > ($1::bigint, $2::bigint) AND deliver_at_ms <= $3
     ORDER BY deliver_at_ms, delayed_id LIMIT $4`,

  takeDelayed: `
    DELETE FROM @.delayed WHERE delayed_id = ANY($1::bigint[])
    RETURNING delayed_id AS "delayedId", topic_id AS "topicId", partition, deliver_at_ms AS "deliverAtMs",
              time_ms AS "timeMs", shared, own`,

  nextDelayed: `
    SELECT deliver_at_ms AS "deliverAtMs" FROM @.delayed WHERE deliver_at_ms > $1 ORDER BY deliver_at_ms LIMIT 1`,
})

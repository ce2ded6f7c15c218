import { statements } from '../database/statement.ts'

/** `PostgresMoveTarget` fills a store that nobody uses. */
export const moving = statements('moving', {
  // Also what an earlier run, which was killed, may still be about to commit, is waited for.
  lockMoves: `LOCK TABLE @.moves IN EXCLUSIVE MODE`,

  // Nobody adds a topic while it is looked whether there are any.
  lockTopics: `LOCK TABLE @.topics IN SHARE ROW EXCLUSIVE MODE`,

  moves: `
    SELECT store_id AS "storeId", store, topic_ids AS "topicIds", finished_at_ms AS "finishedAtMs", fingerprint, counts
      FROM @.moves`,

  unfinished: `SELECT store AS moved FROM @.moves WHERE finished_at_ms IS NULL LIMIT 1`,

  keepMove: `
    INSERT INTO @.moves (store_id, store, topic_ids) VALUES ($1, $2, $3)
        ON CONFLICT (store_id) DO UPDATE SET store = excluded.store, topic_ids = excluded.topic_ids`,

  finishMove: `
    UPDATE @.moves SET finished_at_ms = $2, fingerprint = $3, counts = $4 WHERE store_id = $1`,

  topicNames: `SELECT topic FROM @.topics ORDER BY topic LIMIT 4`,

  living: `SELECT host, pid FROM @.sessions WHERE beaten_at_ms + lease_ms > $1 ORDER BY host, pid LIMIT 10`,

  newTopicIds: `
    SELECT nextval(pg_get_serial_sequence('@.topics', 'topic_id')) AS "topicId" FROM generate_series(1, $1::int)`,

  summary: `
    SELECT count(*) AS batches, coalesce(sum(count), 0)::bigint AS messages, coalesce(min(base_offset), 0) AS "from",
           coalesce(max(base_offset + count), 0) AS "to"
      FROM @.batches WHERE topic_id = $1 AND partition = $2`,

  // Of topics that are none of these, nor somebody's who has just begun to use the store.
  strangers: `
    SELECT topic_id AS "topicId", partition, min(base_offset) AS "from", max(base_offset) + 1 AS "to"
      FROM @.batches LEFT JOIN @.topics USING (topic_id)
     WHERE NOT topic_id = ANY($1::int[]) AND topic IS NULL
     GROUP BY topic_id, partition`,

  dropStretch: `
    DELETE FROM @.batches WHERE topic_id = $1 AND partition = $2 AND base_offset >= $3 AND base_offset < $4`,

  addBatches: `
    INSERT INTO @.batches
      (topic_id, partition, base_offset, count, first_time_ms, last_time_ms, bytes, checksum, shared, data)
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::bigint[], $6::bigint[], $7::int[],
                         $8::bigint[], $9::text[], $10::text[])
        ON CONFLICT DO NOTHING`,

  addTopics: `
    INSERT INTO @.topics
      (topic_id, topic, kind, partitions, deduplication_window_ms, max_age_ms, max_bytes, drop_unread, max_backlog,
       had_subscription, has_cancelled)
    OVERRIDING SYSTEM VALUE
    SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[],
                         $8::boolean[], $9::bigint[], $10::boolean[], $11::boolean[])`,

  addPartitions: `
    INSERT INTO @.partitions (topic_id, partition)
    SELECT * FROM unnest($1::int[], $2::int[])`,

  addFloors: `
    INSERT INTO @.floors (topic_id, partition, first_offset)
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[])`,

  addSubscriptions: `
    INSERT INTO @.subscriptions (topic_id, subscription, ordered, max_crashes, max_parked, paused)
    SELECT * FROM unnest($1::int[], $2::text[], $3::boolean[], $4::int[], $5::bigint[], $6::boolean[])
    RETURNING subscription_id AS "subscriptionId", topic_id AS "topicId", subscription`,

  addStates: `
    INSERT INTO @.states (subscription_id, version, state)
    SELECT subscription_id, 1, state FROM unnest($1::int[], $2::text[]) AS added(subscription_id, state)`,

  addSetAside: `
    INSERT INTO @.set_aside
      (subscription_id, partition, "offset", key, wait, due_at_ms, status, attempt, crashes, failures, event, id_hash)
    SELECT subscription_id, partition, "offset", key, wait, due_at_ms, status, attempt, crashes, failures, event, id_hash
      FROM unnest($1::int[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::int[],
                  $9::int[], $10::text[], $11::text[], $12::uuid[]) WITH ORDINALITY
           AS added(subscription_id, partition, "offset", key, wait, due_at_ms, status, attempt, crashes, failures,
                    event, id_hash, place)
     ORDER BY place`,

  addDeadLetters: `
    INSERT INTO @.dead_letters
      (dead_letter_id, subscription_id, partition, "offset", key, blocks, reason, dead_at_ms, attempts, crashes, failures,
       event, id_hash)
    OVERRIDING SYSTEM VALUE
    SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[], $5::text[], $6::boolean[], $7::text[],
                         $8::bigint[], $9::int[], $10::int[], $11::text[], $12::text[], $13::uuid[])`,

  // The ids that were brought along are taken.
  skipDeadLetterIds: `
    SELECT setval(pg_get_serial_sequence('@.dead_letters', 'dead_letter_id'), max(dead_letter_id))
      FROM @.dead_letters HAVING max(dead_letter_id) > 0`,

  addSteps: `
    INSERT INTO @.steps (subscription_id, partition, "offset", name, result)
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::text[], $5::text[])`,

  addDelayed: `
    INSERT INTO @.delayed (topic_id, partition, id_hash, deliver_at_ms, time_ms, shared, own)
    SELECT topic_id, partition, id_hash, deliver_at_ms, time_ms, shared, own
      FROM unnest($1::int[], $2::int[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[], $7::text[]) WITH ORDINALITY
           AS added(topic_id, partition, id_hash, deliver_at_ms, time_ms, shared, own, place)
     ORDER BY place`,

  addCancelled: `
    INSERT INTO @.cancelled (topic_id, partition, "offset")
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[])`,

  addIds: `
    INSERT INTO @.ids (topic_id, id_hash, expires_at_ms)
    SELECT * FROM unnest($1::int[], $2::uuid[], $3::bigint[])`,

  counts: `
    SELECT (SELECT count(*) FROM @.topics) AS topics,
           (SELECT count(*) FROM @.partitions) AS partitions,
           (SELECT count(*) FROM @.batches) AS batches,
           (SELECT coalesce(sum(count), 0)::bigint FROM @.batches) AS messages,
           (SELECT count(*) FROM @.delayed) AS delayed,
           (SELECT count(*) FROM @.cancelled) AS cancelled,
           (SELECT count(*) FROM @.ids) AS ids,
           (SELECT count(*) FROM @.subscriptions) AS subscriptions,
           (SELECT count(*) FROM @.set_aside) AS "setAside",
           (SELECT count(*) FROM @.dead_letters) AS "deadLetters",
           (SELECT count(*) FROM @.steps) AS steps`,

  states: `SELECT state FROM @.states`,
})

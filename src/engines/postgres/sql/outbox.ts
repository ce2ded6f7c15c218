import { statements } from '../database/statement.ts'

/**
 * Statements for connections of the user's, which come as whole texts through all kinds of libraries: every parameter is
 * a text or a boolean with its type beside it, no question mark stands in them, and each answers with one JSON text.
 */
export const publishing = statements('publishing', {
  // Holds until the end of the transaction, which without BEGIN is that of this statement.
  mark: `
    SELECT json_build_object(
             'marked', set_config('posthorn.transaction', pg_current_xact_id()::text, true),
             'outbox', to_regclass($1::text)::text, 'readOnly', current_setting('transaction_read_only') = 'on')::text AS answer`,

  // $1 topic, $2 group, $3 hashes of the ids that publishers gave (JSON), $4 installation, $5 whether a transaction is
  // known to be open, $6 whether the backlog was looked at, $7 now, $8 channel or nothing, $9 what is said there, $10 the
  // mark that must be that of the transaction, if there is one. What does not insert leaves a mark. Serializable
  // transactions that look at ids of others which have just been inserted would keep each other from committing.
  insert: `
    WITH place AS (
      SELECT topic_id, max_backlog FROM @.topics WHERE topic = $1::text
    ), hashes AS (
      SELECT hash, hash::uuid AS id_hash FROM json_array_elements_text($3::text::json) AS given(hash)
    ), known AS (
      SELECT hash FROM hashes
       WHERE EXISTS (SELECT FROM @.ids, place
                      WHERE ids.topic_id = place.topic_id AND ids.id_hash = hashes.id_hash
                        AND ids.expires_at_ms > $7::text::bigint)
          OR current_setting('transaction_isolation') <> 'serializable'
             AND EXISTS (SELECT FROM @.outbox_ids
                          WHERE outbox_ids.id_hash = hashes.id_hash AND outbox_ids.topic = $1::text)
    ), checks AS (
      SELECT CASE WHEN $10::text <> '' THEN coalesce(current_setting('posthorn.transaction', true) = $10::text, false)
                  ELSE $5::boolean OR coalesce(current_setting('posthorn.transaction', true)
                                               = pg_current_xact_id_if_assigned()::text, false) END AS inside,
             (SELECT installation_id || '/' || d.oid FROM @.installation, pg_database d
               WHERE d.datname = current_database()) = $4::text AS ours,
             EXISTS (SELECT FROM place) AS topic,
             EXISTS (SELECT FROM place WHERE max_backlog IS NOT NULL AND NOT $6::boolean) AS limited,
             (SELECT coalesce(json_agg(hash), '[]') FROM known) AS known
    ), stored AS (
      INSERT INTO @.outbox (topic, "group")
      SELECT $1::text, $2::text FROM checks
       WHERE inside AND ours AND topic AND NOT limited AND NOT EXISTS (SELECT FROM known)
      RETURNING outbox_id
    ), remembered AS (
      INSERT INTO @.outbox_ids (outbox_id, id_hash, topic)
      SELECT outbox_id, id_hash, $1::text FROM stored, hashes
    ), told AS (
      SELECT pg_notify($8::text, $9::text) FROM stored WHERE $8::text <> ''
    )
    SELECT json_build_object('inside', inside, 'ours', ours, 'topic', topic, 'limited', limited, 'known', known,
                             'stored', EXISTS (SELECT FROM stored), 'told', (SELECT count(*) FROM told),
                             'marked', CASE WHEN inside AND NOT EXISTS (SELECT FROM stored) THEN
                                 set_config('posthorn.transaction', pg_current_xact_id()::text, true) END)::text AS answer
      FROM checks`,
})

export const outbox = statements('outbox', {
  installation: `
    SELECT installation_id || '/' || d.oid AS installation
      FROM @.installation, pg_database d WHERE d.datname = current_database()`,

  // Whether the handler's transaction is still the one that was marked.
  inside: `
    SELECT coalesce(current_setting('posthorn.transaction', true) = pg_current_xact_id_if_assigned()::text, false)
             AS inside`,

  // Who serves the transaction.
  server: 'SELECT pg_backend_pid() AS pid',

  // What the user's constraints have put off until the end of the transaction.
  checkDeferred: 'SET CONSTRAINTS ALL IMMEDIATE',

  // Some time after it, what was cancelled has ended.
  cancel: 'SELECT pg_cancel_backend($1), pg_sleep(0.01)',

  // For the transaction. The planner takes the outbox to be as large as the space that its dead rows take up, and would
  // rather read all of it than find the few rows by the index.
  plan: `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`,

  // The turn to relay, until the end of the transaction, and the plan.
  tryTurn: `
    SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS mine,
           set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`,

  waitForTurn: `
    SELECT pg_advisory_xact_lock(hashtextextended($1, 0)), true AS mine,
           set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`,

  newest: `
    SELECT version, relayed_by AS "relayedBy" FROM @.relay ORDER BY version DESC LIMIT 1`,

  // What the newest snapshot did not see and this statement's does: of transactions that were under way then, and of
  // those begun since. A snapshot from the future is of another cluster's time, from which the tables were restored.
  candidates: `
    WITH newest AS (
      SELECT version, relayed_by, snapshot::pg_snapshot AS snapshot FROM @.relay ORDER BY version DESC LIMIT 1
    ), seen AS (
      SELECT snapshot FROM newest
       WHERE NOT $1::boolean AND pg_snapshot_xmax(snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
    ), candidates AS (
      SELECT outbox_id, octet_length("group") AS bytes FROM @.outbox
       WHERE transaction_id >= coalesce((SELECT pg_snapshot_xmax(snapshot) FROM seen), '0'::xid8)
       UNION ALL
      SELECT outbox_id, octet_length("group") FROM @.outbox
       WHERE transaction_id = ANY (ARRAY (SELECT pg_snapshot_xip(snapshot) FROM seen))
    )
    SELECT newest.version, newest.relayed_by AS "relayedBy", pg_current_snapshot()::text AS snapshot,
           first.outbox_id AS "outboxId", first.bytes
      FROM (VALUES (true)) AS always(here)
      LEFT JOIN newest ON true
      LEFT JOIN (SELECT outbox_id, bytes FROM candidates ORDER BY outbox_id LIMIT $2) first ON true
     ORDER BY first.outbox_id`,

  // Whether something is left of what the newest snapshot has seen.
  missed: `
    WITH newest AS (
      SELECT snapshot::pg_snapshot AS snapshot FROM @.relay ORDER BY version DESC LIMIT 1
    )
    SELECT EXISTS (SELECT FROM @.outbox, newest
                    WHERE transaction_id < pg_snapshot_xmax(snapshot)
                      AND pg_visible_in_snapshot(transaction_id, snapshot)) AS missed`,

  take: `
    WITH taken AS (
      DELETE FROM @.outbox WHERE outbox_id = ANY($1::bigint[]) RETURNING outbox_id, topic, "group"
    ), forgotten AS (
      DELETE FROM @.outbox_ids WHERE outbox_id = ANY($1::bigint[])
    )
    SELECT outbox_id AS "outboxId", topic, "group" FROM taken ORDER BY outbox_id`,

  save: 'INSERT INTO @.relay (version, snapshot, relayed_by) VALUES ($1, $2, $3)',

  // A stretch with two ends, as with the states of subscriptions.
  prune: 'DELETE FROM @.relay WHERE version >= $1 AND version < $2',

  strand: `
    INSERT INTO @.stranded (outbox_id, topic, "group", code, problem)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])`,

  // What waited for its topic to be made again, and was put aside while it was made.
  refloat: `
    WITH back AS (
      DELETE FROM @.stranded USING @.topics
       WHERE stranded.topic = topics.topic AND stranded.code = 'POSTHORN_TOPIC_NOT_FOUND'
      RETURNING stranded.outbox_id, stranded.topic, stranded."group"
    )
    INSERT INTO @.outbox (topic, "group") SELECT topic, "group" FROM back ORDER BY outbox_id`,

  // Together with the making of the topic, so that nothing newer comes before.
  refloatInto: `
    WITH back AS (
      DELETE FROM @.stranded WHERE topic = $1 AND code = 'POSTHORN_TOPIC_NOT_FOUND'
      RETURNING outbox_id, topic, "group"
    )
    INSERT INTO @.outbox (topic, "group") SELECT topic, "group" FROM back ORDER BY outbox_id`,

  // When a topic is purged or deleted: what was committed belongs to it already.
  discard: `
    WITH gone AS (
      DELETE FROM @.outbox WHERE topic = $1 RETURNING outbox_id, "group"
    ), stranded_too AS (
      DELETE FROM @.stranded WHERE topic = $1 RETURNING "group"
    ), forgotten AS (
      DELETE FROM @.outbox_ids USING gone WHERE outbox_ids.outbox_id = gone.outbox_id
    )
    SELECT "group" FROM gone UNION ALL SELECT "group" FROM stranded_too`,

  stranded: `
    SELECT topic, code, count(*) AS groups FROM @.stranded GROUP BY topic, code ORDER BY topic, code`,
})

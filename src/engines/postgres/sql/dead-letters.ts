import { statements } from '../database/statement.ts'

const CHOSEN = `subscription_id = $1 AND dead_letter_id = ANY($2::bigint[])`

export const deadLetters = statements('dead_letters', {
  page: `
    SELECT dead_letter_id AS id, partition, "offset", reason, dead_at_ms AS "deadAtMs", blocks AS blocking, attempts,
           crashes, failures, event
      FROM @.dead_letters WHERE subscription_id = $1 AND dead_letter_id > $2
     ORDER BY dead_letter_id LIMIT $3`,

  newest: `SELECT coalesce(max(dead_letter_id), 0) AS id FROM @.dead_letters WHERE subscription_id = $1`,

  // Some, behind a place, of those up to $5.
  some: `
    SELECT dead_letter_id AS id, partition, "offset" FROM @.dead_letters
     WHERE subscription_id = $1 AND (partition, "offset", dead_letter_id) > ($2::int, $3::bigint, $4::bigint)
       AND dead_letter_id <= $5
     ORDER BY partition, "offset", dead_letter_id LIMIT $6`,

  // From $3 on, one each $4 milliseconds. What says why there is no result of a step ($5) is forgotten.
  redrive: `
    WITH taken AS (
      DELETE FROM @.dead_letters WHERE ${CHOSEN} AND event IS NOT NULL
      RETURNING dead_letter_id, partition, "offset", key, event, id_hash),
    forgotten AS (
      DELETE FROM @.steps s USING taken
       WHERE s.subscription_id = $1 AND s.partition = taken.partition AND s."offset" = taken."offset"
         AND starts_with(s.result, $5)),
    added AS (
      INSERT INTO @.set_aside
             (subscription_id, partition, "offset", key, wait, due_at_ms, status, attempt, crashes, failures, event, id_hash)
      SELECT $1::int, partition, "offset", key, 'time',
             $3::bigint + floor((row_number() OVER (ORDER BY dead_letter_id) - 1) * $4::float8)::bigint,
             'retrying', 1, 0, '[]', event, id_hash
        FROM taken
      RETURNING partition, key, "offset")
    SELECT partition, key, min("offset") AS "offset", count(*) AS messages FROM added GROUP BY partition, key`,

  delete: `DELETE FROM @.dead_letters WHERE ${CHOSEN} RETURNING partition, key, "offset"`,

  unblock: `
    UPDATE @.dead_letters SET blocks = false
     WHERE subscription_id = $1 AND partition = $2 AND "offset" >= $3 AND blocks`,
})

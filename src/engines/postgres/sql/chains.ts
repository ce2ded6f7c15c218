import { statements } from '../database/statement.ts'

/** Whether the row `r` of subscription $1 waits behind a dead letter that blocks its key. */
const IS_BLOCKED = `
  EXISTS (SELECT FROM @.dead_letters d
           WHERE d.subscription_id = $1 AND d.partition = r.partition AND md5(d.key) = md5(r.key) AND d.key = r.key
             AND d.blocks)`

const BEFORE_IT = `
  SELECT FROM @.set_aside earlier
   WHERE earlier.subscription_id = $1 AND earlier.partition = r.partition AND md5(earlier.key) = md5(r.key)
     AND earlier.key = r.key AND earlier."offset" < r."offset"`

const LET_GO = `wait = 'grant', status = 'retrying'`
const HOLD = `wait = 'turn', due_at_ms = NULL, status = 'parked'`

export const chains = statements('chains', {
  // Of rows that were to wait behind what their key has, those that find nothing of it.
  letLoneGo: `
    UPDATE @.set_aside r SET ${LET_GO}, due_at_ms = $2
      FROM unnest($3::int[], $4::bigint[]) AS parked(partition, "offset")
     WHERE r.subscription_id = $1 AND r.partition = parked.partition AND r."offset" = parked."offset"
       AND r.wait = 'turn' AND (r.key IS NULL OR (NOT EXISTS (${BEFORE_IT}) AND NOT ${IS_BLOCKED}))`,

  // Of rows that came back, those that were let go with others which are to come before them again.
  holdReturned: `
    UPDATE @.set_aside r SET ${HOLD}
     WHERE r.row_id = ANY($2::bigint[]) AND r.wait = 'grant' AND r.key IS NOT NULL
       AND (${IS_BLOCKED} OR EXISTS (${BEFORE_IT} AND earlier.wait <> 'grant'
            AND earlier.row_id NOT IN (SELECT unnest($3::bigint[]))))`,

  holdBehind: `
    UPDATE @.set_aside r SET ${HOLD}
      FROM unnest($2::int[], $3::text[], $4::bigint[]) AS first(partition, key, "offset")
     WHERE r.subscription_id = $1 AND r.partition = first.partition AND md5(r.key) = md5(first.key)
       AND r.key = first.key AND r."offset" > first."offset" AND r.wait = 'grant'
       AND r.row_id NOT IN (SELECT unnest($5::bigint[]))`,

  // The first $6 rows of each chain, up to the first that waits for something else, or stands at or behind "before".
  advance: `
    UPDATE @.set_aside SET ${LET_GO}, due_at_ms = $2
     WHERE row_id IN (
       SELECT head.row_id
         FROM unnest($3::int[], $4::text[], $5::bigint[]) AS chain(partition, key, before)
        CROSS JOIN LATERAL (
              SELECT row_id, bool_and(wait = 'turn' AND "offset" < chain.before
                                      AND row_id NOT IN (SELECT unnest($7::bigint[])))
                             OVER (ORDER BY "offset", row_id) AS is_let_go
                FROM (SELECT row_id, "offset", wait FROM @.set_aside r
                       WHERE r.subscription_id = $1 AND r.partition = chain.partition
                         AND md5(r.key) = md5(chain.key) AND r.key = chain.key
                       ORDER BY r."offset", r.row_id LIMIT $6) AS first_rows) AS head
        WHERE head.is_let_go
          AND NOT EXISTS (SELECT FROM @.dead_letters d
                           WHERE d.subscription_id = $1 AND d.partition = chain.partition
                             AND md5(d.key) = md5(chain.key) AND d.key = chain.key AND d.blocks))`,

  // The same for all chains of a partition.
  advanceAll: `
    UPDATE @.set_aside SET ${LET_GO}, due_at_ms = $2
     WHERE row_id IN (
       SELECT r.row_id
         FROM (SELECT row_id, partition, key,
                      row_number() OVER chain AS place,
                      bool_and(wait = 'turn' AND row_id NOT IN (SELECT unnest($5::bigint[]))) OVER chain AS is_let_go
                 FROM @.set_aside
                WHERE subscription_id = $1 AND partition = $3 AND key IS NOT NULL
               WINDOW chain AS (PARTITION BY key ORDER BY "offset", row_id)) AS r
        WHERE r.is_let_go AND r.place <= $4 AND NOT ${IS_BLOCKED})`,

  dissolve: `
    UPDATE @.set_aside SET ${LET_GO}, due_at_ms = $2 WHERE subscription_id = $1 AND wait = 'turn'`,

  ofPartition: `
    SELECT key, min("offset") AS "firstOffset", max("offset") AS "lastOffset"
      FROM (SELECT key, "offset" FROM @.set_aside
             WHERE subscription_id = $1 AND partition = $2 AND key IS NOT NULL
             UNION ALL
            SELECT key, "offset" FROM @.dead_letters
             WHERE subscription_id = $1 AND partition = $2 AND blocks) AS members
     GROUP BY key`,
})

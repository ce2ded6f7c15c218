import { statements } from '../database/statement.ts'

const ROW = `
  r.row_id AS "rowId", r.partition, r."offset", r.key, r.attempt, r.crashes, r.failures, r.event,
  r.due_at_ms AS "dueAtMs"`

/** Due in subscription $1 at $3, and in nobody's hands ($4). Nothing is due before $2: what is dead there is passed by. */
const IS_DUE = `
  r.subscription_id = $1 AND r.wait <> 'turn' AND r.due_at_ms >= $2 AND r.due_at_ms <= $3
  AND r.row_id NOT IN (SELECT unnest($4::bigint[]))`

const NO_SUSPECT = `r.crashes < $5`
// "crashes > 0" says nothing new; it lets the index of those few be used.
const SUSPECT = `r.crashes > 0 AND r.crashes >= $5`

const IS_BLOCKED = `
  EXISTS (SELECT FROM @.dead_letters d
           WHERE d.subscription_id = $1 AND d.partition = r.partition AND md5(d.key) = md5(r.key) AND d.key = r.key
             AND d.blocks)`

const BEFORE_IT = `
  SELECT FROM @.set_aside earlier
   WHERE earlier.subscription_id = $1 AND earlier.partition = r.partition AND md5(earlier.key) = md5(r.key)
     AND earlier.key = r.key AND earlier."offset" < r."offset"`

const IS_WAITING = `earlier.row_id NOT IN (SELECT unnest($4::bigint[]))`

/** What is before it of its key may be in somebody's hands, if it was let go together with that; or goes out before it. */
const IS_FREE = `
  (r.key IS NULL OR (NOT ${IS_BLOCKED} AND NOT EXISTS (${BEFORE_IT}
     AND (r.wait = 'time' OR (${IS_WAITING} AND
          (earlier.wait <> 'grant' OR earlier.due_at_ms > r.due_at_ms OR earlier.crashes >= $5))))))`

const SUSPECT_IS_FREE = `
  (r.key IS NULL OR (NOT ${IS_BLOCKED} AND NOT EXISTS (${BEFORE_IT} AND (r.wait = 'time' OR ${IS_WAITING}))))`

/** A list of failures as JSON with one more. */
function withFailure(failures: string, failure: string): string {
  return `CASE WHEN ${failures} = '[]' THEN '[' || ${failure} || ']'
               ELSE left(${failures}, -1) || ',' || ${failure} || ']' END`
}

export const settlement = statements('settlement', {
  rows: `
    SELECT row_id AS "rowId", key, attempt, event IS NOT NULL AS "hasCopy"
      FROM @.set_aside WHERE row_id = ANY($1::bigint[])`,

  // Those that were set aside before give their history and their copy.
  bury: `
    INSERT INTO @.dead_letters
           (subscription_id, partition, "offset", key, blocks, reason, dead_at_ms, attempts, crashes, failures, event, id_hash)
    SELECT $1::int, dead.partition, dead."offset", dead.key, dead.blocks, dead.reason, $2::bigint, coalesce(r.attempt, 1), dead.crashes,
           ${withFailure(`coalesce(r.failures, '[]')`, 'dead.failure')}, coalesce(r.event, dead.event),
           coalesce(r.id_hash, dead.id_hash)
      FROM unnest($3::bigint[], $4::int[], $5::bigint[], $6::text[], $7::boolean[], $8::text[], $9::int[], $10::text[],
                  $11::text[], $12::uuid[]) WITH ORDINALITY
           AS dead(row_id, partition, "offset", key, blocks, reason, crashes, failure, event, id_hash, place)
      LEFT JOIN @.set_aside r ON r.row_id = dead.row_id
     ORDER BY dead.place`,

  remove: `DELETE FROM @.set_aside WHERE row_id = ANY($1::bigint[])`,

  // It failed again, or waits for something else. Its crashes go with a failure.
  waitOn: `
    UPDATE @.set_aside r
       SET wait = news.wait, due_at_ms = news.due_at_ms, status = news.status, crashes = news.crashes,
           failed_under = news.failed_under,
           attempt = r.attempt + CASE WHEN news.failure IS NULL THEN 0 ELSE 1 END,
           failures = CASE WHEN news.failure IS NULL THEN r.failures
                           ELSE ${withFailure('r.failures', 'news.failure')} END
      FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::int[], $6::bigint[], $7::text[])
           AS news(row_id, wait, due_at_ms, status, crashes, failed_under, failure)
     WHERE r.row_id = news.row_id`,

  add: `
    INSERT INTO @.set_aside
           (subscription_id, partition, "offset", key, wait, due_at_ms, status, attempt, crashes, failed_under, failures)
    SELECT $1::int, news.partition, news."offset", news.key, news.wait, news.due_at_ms, news.status,
           CASE WHEN news.failure IS NULL THEN 1 ELSE 2 END, news.crashes, news.failed_under,
           CASE WHEN news.failure IS NULL THEN '[]' ELSE '[' || news.failure || ']' END
      FROM unnest($2::int[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::int[], $9::bigint[],
                  $10::text[])
           AS news(partition, "offset", key, wait, due_at_ms, status, crashes, failed_under, failure)`,

  // They wait for what they waited for before they were leased.
  giveBack: `
    UPDATE @.set_aside r SET crashes = back.crashes, status = 'returned', failed_under = NULL
      FROM unnest($1::bigint[], $2::int[]) AS back(row_id, crashes)
     WHERE r.row_id = back.row_id
    RETURNING r.due_at_ms AS "dueAtMs"`,

  due: `
    (SELECT ${ROW} FROM @.set_aside r WHERE ${IS_DUE} AND ${SUSPECT} ORDER BY r.due_at_ms, r."offset" LIMIT 1)
    UNION ALL
    (SELECT ${ROW} FROM @.set_aside r WHERE ${IS_DUE} AND ${NO_SUSPECT} ORDER BY r.due_at_ms, r."offset" LIMIT $6)`,

  dueInOrder: `
    (SELECT ${ROW} FROM @.set_aside r
      WHERE ${IS_DUE} AND ${SUSPECT} AND r.partition = ANY($7::int[]) AND ${SUSPECT_IS_FREE}
      ORDER BY r.due_at_ms, r."offset" LIMIT 1)
    UNION ALL
    (SELECT ${ROW} FROM @.set_aside r
      WHERE ${IS_DUE} AND ${NO_SUSPECT} AND r.partition = ANY($7::int[]) AND ${IS_FREE}
      ORDER BY r.due_at_ms, r."offset" LIMIT $6)`,

  // The first that is due at $2 or later.
  nextDue: `
    SELECT due_at_ms AS "dueAtMs" FROM @.set_aside
     WHERE subscription_id = $1 AND wait <> 'turn' AND due_at_ms >= $2
       AND row_id NOT IN (SELECT unnest($3::bigint[]))
     ORDER BY due_at_ms LIMIT 1`,

  // Of a message that failed under the lease, and has waited ever since.
  failedUnder: `
    SELECT partition FROM @.set_aside
     WHERE subscription_id = $1 AND partition = ANY($2::int[]) AND "offset" = $3 AND failed_under = $4
       AND row_id NOT IN (SELECT unnest($5::bigint[]))`,

  removeAt: `
    DELETE FROM @.set_aside WHERE subscription_id = $1 AND partition = $2 AND "offset" = $3 RETURNING key`,

  removeFrom: `DELETE FROM @.set_aside WHERE subscription_id = $1 AND partition = $2 AND "offset" >= $3`,

  removeAll: `DELETE FROM @.set_aside WHERE subscription_id = $1`,
})

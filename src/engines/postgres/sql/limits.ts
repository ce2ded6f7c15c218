import { statements } from '../database/statement.ts'

export const counters = statements('counters', {
  // Until the end of the transaction. A lock on a row would be one with what waits for the turns of the subscription.
  lock: `SELECT pg_advisory_xact_lock(hashtextextended('@.counters' || $1::int, 0))`,

  // From the newest end, past no dead row.
  read: `
    SELECT asked.counter, newest.version, newest.kept_from AS "keptFrom", newest.kept,
           newest.full_at_ms AS "fullAtMs", newest.places
      FROM unnest($2::text[]) AS asked(counter)
     CROSS JOIN LATERAL (SELECT version, kept_from, kept, full_at_ms, places FROM @.counters
                          WHERE subscription_id = $1 AND counter = asked.counter
                          ORDER BY version DESC LIMIT 1) newest`,

  living: `SELECT session_id AS "sessionId" FROM @.sessions`,

  write: `
    INSERT INTO @.counters (subscription_id, counter, version, kept_from, kept, full_at_ms, places)
    SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::int[], $6::double precision[], $7::text[])`,

  // A stretch with two ends: an index scan that begins at the first version would have to pass what is long dead.
  prune: `
    DELETE FROM @.counters USING unnest($2::text[], $3::bigint[], $4::bigint[]) AS old(counter, from_version, to_version)
     WHERE subscription_id = $1 AND counters.counter = old.counter
       AND version BETWEEN old.from_version AND old.to_version`,

  forgetFull: `DELETE FROM @.counters WHERE full_at_ms >= $1 AND full_at_ms < $2`,
})

export const breakers = statements('breakers', {
  report: `
    INSERT INTO @.breakers (subscription_id, source, report) VALUES ($1, $2, $3)
        ON CONFLICT (subscription_id, source) DO UPDATE SET report = excluded.report`,

  close: `DELETE FROM @.breakers WHERE subscription_id = $1 AND source = $2`,

  closeOfSession: `DELETE FROM @.breakers WHERE starts_with(source, $1)`,

  list: `
    SELECT subscription_id AS "subscriptionId", source, report FROM @.breakers
     WHERE subscription_id = ANY($1::int[]) ORDER BY subscription_id, source`,
})

import { statements } from '../database/statement.ts'

export const sessions = statements('sessions', {
  // The server makes the id: what is random here may be seeded, and two processes alike.
  start: `
    INSERT INTO @.sessions (session_id, beat, beaten_at_ms, started_at_ms, lease_ms, host, pid)
    VALUES (left(replace(gen_random_uuid()::text, '-', ''), 16), 0, $1, $1, $2, $3, $4)
    RETURNING session_id AS "sessionId"`,

  renew: `UPDATE @.sessions SET beat = beat + 1, beaten_at_ms = $2 WHERE session_id = $1`,

  // The lock keeps the row from being deleted before the transaction is over.
  keep: `SELECT consumes FROM @.sessions WHERE session_id = $1 FOR KEY SHARE`,

  consume: `UPDATE @.sessions SET consumes = true WHERE session_id = $1`,

  find: `SELECT 1 FROM @.sessions WHERE session_id = $1`,

  look: `
    SELECT session_id AS "sessionId", beat, beaten_at_ms AS "beatenAtMs", lease_ms AS "leaseMs" FROM @.sessions`,

  pause: `SELECT pg_sleep($1)`,

  // Whoever has it knows that no source of the session is added anywhere.
  lock: `SELECT beat FROM @.sessions WHERE session_id = $1 FOR UPDATE`,

  end: `DELETE FROM @.sessions WHERE session_id = $1`,

  // By the names of sources, which begin with that of their session.
  subscriptionsOf: `
    SELECT s.subscription_id AS "subscriptionId"
      FROM @.subscriptions s
     CROSS JOIN LATERAL (SELECT state FROM @.states WHERE subscription_id = s.subscription_id
                          ORDER BY version DESC LIMIT 1) newest
     WHERE strpos(newest.state, '"' || $1 || '/') > 0`,

  // Of sources that are enlisted though their session is not there.
  orphaned: `
    SELECT DISTINCT split_part(enlisted.source, '/', 1) AS "sessionId"
      FROM @.subscriptions s
     CROSS JOIN LATERAL (SELECT state FROM @.states WHERE subscription_id = s.subscription_id
                          ORDER BY version DESC LIMIT 1) newest
     CROSS JOIN LATERAL jsonb_array_elements_text(newest.state::jsonb -> 'sources') AS enlisted(source)
     WHERE NOT EXISTS (SELECT FROM @.sessions WHERE session_id = split_part(enlisted.source, '/', 1))`,
})

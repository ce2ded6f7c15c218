import { statements } from '../database/statement.ts'

const SUBSCRIPTION = `
  s.subscription_id AS "subscriptionId", s.topic_id AS "topicId", t.topic, s.subscription, t.kind, t.partitions,
  t.generation, t.has_cancelled AS "hasCancelled", s.ordered, s.max_crashes AS "maxCrashes",
  s.max_parked AS "maxParked", s.paused`

export const turns = statements('turns', {
  // In the order of their ids, so that no two processes wait for each other.
  lock: `
    SELECT ${SUBSCRIPTION}
      FROM @.subscriptions s JOIN @.topics t USING (topic_id)
     WHERE s.subscription_id = ANY($1::int[])
     ORDER BY s.subscription_id
       FOR NO KEY UPDATE OF s`,

  // From the newest end, past no dead row. The text only where it is not the version that is known. And what may have
  // changed of the topic while the locks were waited for: `lock` sees it as it was before. A server that was started at
  // another time may be another one, or have lost what it had.
  load: `
    SELECT known.subscription_id AS "subscriptionId", newest.version, t.generation, t.has_cancelled AS "hasCancelled",
           CASE WHEN newest.version = known.version THEN NULL ELSE newest.state END AS state,
           extract(epoch FROM pg_postmaster_start_time())::text AS server
      FROM unnest($1::int[], $2::bigint[]) AS known(subscription_id, version)
      JOIN @.subscriptions s ON s.subscription_id = known.subscription_id
      JOIN @.topics t USING (topic_id)
     CROSS JOIN LATERAL (SELECT version, state FROM @.states
                          WHERE subscription_id = known.subscription_id
                          ORDER BY version DESC LIMIT 1) newest`,

  cancelledIn: `
    SELECT wanted.partition, c."offset"
      FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS wanted(partition, from_offset, to_offset)
     CROSS JOIN LATERAL (
             SELECT "offset" FROM @.cancelled
              WHERE topic_id = $1 AND partition = wanted.partition
                AND "offset" >= wanted.from_offset AND "offset" < wanted.to_offset) c`,

  cancelledBetween: `
    SELECT "offset" FROM @.cancelled WHERE topic_id = $1 AND partition = $2 AND "offset" >= $3 AND "offset" < $4`,

  save: `
    INSERT INTO @.states (subscription_id, version, state)
    SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[])`,

  // A stretch with two ends: an index scan that begins at the first version would have to pass what is long dead.
  prune: `
    DELETE FROM @.states USING unnest($1::int[], $2::bigint[], $3::bigint[]) AS old(subscription_id, from_version, to_version)
     WHERE states.subscription_id = old.subscription_id
       AND states.version >= old.from_version AND states.version < old.to_version`,
})

import { statements } from '../database/statement.ts'

/** Of messages that are no dead letters, not set aside, and not within these ranges. */
const OF_NO_USE = `
       AND NOT EXISTS (SELECT FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS kept(partition, from_offset, to_offset)
                        WHERE kept.partition = s.partition AND s."offset" >= kept.from_offset
                          AND s."offset" < kept.to_offset)
       AND NOT EXISTS (SELECT FROM @.set_aside r
                        WHERE r.subscription_id = $1 AND r.partition = s.partition AND r."offset" = s."offset")
       AND NOT EXISTS (SELECT FROM @.dead_letters d
                        WHERE d.subscription_id = $1 AND d.partition = s.partition AND d."offset" = s."offset")`

export const steps = statements('steps', {
  read: `SELECT name, result FROM @.steps WHERE subscription_id = $1 AND partition = $2 AND "offset" = $3`,

  record: `
    INSERT INTO @.steps (subscription_id, partition, "offset", name, result) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (subscription_id, partition, "offset", name) DO UPDATE SET result = excluded.result`,

  forget: `
    DELETE FROM @.steps s USING unnest($2::int[], $3::bigint[]) AS done(partition, "offset")
     WHERE s.subscription_id = $1 AND s.partition = done.partition AND s."offset" = done."offset"`,

  withSteps: `
    SELECT subscription_id AS "subscriptionId" FROM @.subscriptions s
     WHERE EXISTS (SELECT FROM @.steps WHERE steps.subscription_id = s.subscription_id)`,

  sweep: `DELETE FROM @.steps s WHERE s.subscription_id = $1 ${OF_NO_USE}`,

  sweepPlaces: `
    DELETE FROM @.steps s USING (SELECT DISTINCT * FROM unnest($5::int[], $6::bigint[])) AS place(partition, "offset")
     WHERE s.subscription_id = $1 AND s.partition = place.partition AND s."offset" = place."offset" ${OF_NO_USE}`,
})

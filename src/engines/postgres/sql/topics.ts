import { statements } from '../database/statement.ts'

const TOPIC = `
  topic_id AS "topicId", topic, kind, partitions, deduplication_window_ms AS "deduplicationWindowMs",
  max_age_ms AS "maxAgeMs", max_bytes AS "maxBytes", drop_unread AS "dropUnread", max_backlog AS "maxBacklog",
  had_subscription AS "hadSubscription", generation, has_cancelled AS "hasCancelled"`

const SUBSCRIPTION = `
  s.subscription_id AS "subscriptionId", s.ordered, s.max_crashes AS "maxCrashes", s.max_parked AS "maxParked"`

export const topics = statements('topics', {
  find: `SELECT ${TOPIC} FROM @.topics WHERE topic = ANY($1::text[])`,

  nameOf: `SELECT topic FROM @.topics WHERE topic_id = $1`,

  // In the order of their ids, so that no two processes wait for each other. Whoever has to wait sees them as they are then.
  lock: `SELECT ${TOPIC} FROM @.topics WHERE topic_id = ANY($1::int[]) ORDER BY topic_id FOR NO KEY UPDATE`,

  insert: `
    INSERT INTO @.topics (topic, kind, partitions, deduplication_window_ms, max_age_ms, max_bytes, drop_unread, max_backlog)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (topic) DO NOTHING RETURNING topic_id AS "topicId"`,

  configure: `
    UPDATE @.topics
       SET deduplication_window_ms = $2, max_age_ms = $3, max_bytes = $4, drop_unread = $5, max_backlog = $6
     WHERE topic_id = $1`,

  addLanes: `
    INSERT INTO @.partitions (topic_id, partition)
    SELECT lane.topic_id, lane.first_partition + step
      FROM unnest($1::int[], $2::int[], $3::int[]) AS lane(topic_id, first_partition, partitions)
     CROSS JOIN generate_series(0, lane.partitions - 1) AS step
        ON CONFLICT DO NOTHING`,

  // One row while the topic exists.
  findSubscription: `
    SELECT t.topic_id AS "topicId", ${SUBSCRIPTION}
      FROM @.topics t LEFT JOIN @.subscriptions s ON s.topic_id = t.topic_id AND s.subscription = $2
     WHERE t.topic = $1`,

  anySubscription: `SELECT 1 AS found FROM @.subscriptions WHERE topic_id = $1 LIMIT 1`,

  insertSubscription: `
    INSERT INTO @.subscriptions (topic_id, subscription, ordered, max_crashes, max_parked)
    VALUES ($1, $2, $3, $4, $5) RETURNING subscription_id AS "subscriptionId"`,

  configureSubscription: `
    UPDATE @.subscriptions SET ordered = $2, max_crashes = $3, max_parked = $4 WHERE subscription_id = $1`,

  firstState: `INSERT INTO @.states (subscription_id, version, state) VALUES ($1, 1, $2)`,

  markHadSubscription: `UPDATE @.topics SET had_subscription = true WHERE topic_id = $1 AND NOT had_subscription`,
})

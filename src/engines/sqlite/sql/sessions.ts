export const INSERT_SESSION = `
INSERT INTO posthorn_sessions (host, pid, started_at_ms, lease_until_ms) VALUES (?, ?, ?, ?)`

export const RENEW_SESSION = `UPDATE posthorn_sessions SET lease_until_ms = ?, prolonged = 0 WHERE session_id = ?`

/** Each time, the file is free for a moment: who lives renews his session in one of so many. */
const PROLONGED_MAX = 10

export const PROLONG_SESSIONS = `
UPDATE posthorn_sessions SET lease_until_ms = ?1, prolonged = prolonged + 1
 WHERE lease_until_ms < ?1 AND prolonged < ${PROLONGED_MAX}`

export const FIND_SESSION = `SELECT 1 AS found FROM posthorn_sessions WHERE session_id = ?`

export const LOST_SESSIONS = `
SELECT session_id AS sessionId FROM posthorn_sessions WHERE lease_until_ms <= ? AND session_id <> ?`

export const IS_LOST = `SELECT 1 AS found FROM posthorn_sessions WHERE session_id = ? AND lease_until_ms <= ?`

export const NEXT_LOSS = `SELECT min(lease_until_ms) AS atMs FROM posthorn_sessions WHERE session_id <> ?`

export const DELETE_SESSION = `DELETE FROM posthorn_sessions WHERE session_id = ?`

export const DELETE_SESSION_SUBSCRIPTIONS = `DELETE FROM posthorn_session_subscriptions WHERE session_id = ?`

export const ADD_SESSION_SUBSCRIPTION = `
INSERT OR IGNORE INTO posthorn_session_subscriptions (session_id, source, subscription_id) VALUES (?, ?, ?)`

export const REMOVE_SESSION_SUBSCRIPTION = `
DELETE FROM posthorn_session_subscriptions WHERE session_id = ? AND source = ?`

export const LIMITS_OF_SUBSCRIPTION = `
SELECT topic_id AS topicId, max_crashes AS maxCrashes FROM posthorn_subscriptions WHERE subscription_id = ?`

export const LIST_SESSIONS = `
SELECT session_id AS sessionId, host, pid, started_at_ms AS startedAtMs, lease_until_ms AS leaseUntilMs
  FROM posthorn_sessions ORDER BY session_id`

export const SUBSCRIPTIONS_OF_SESSION = `
SELECT DISTINCT topics.name AS topic, subscriptions.name AS subscription
  FROM posthorn_session_subscriptions
  JOIN posthorn_subscriptions AS subscriptions USING (subscription_id)
  JOIN posthorn_topics AS topics USING (topic_id)
 WHERE session_id = ? ORDER BY topics.name, subscriptions.name`

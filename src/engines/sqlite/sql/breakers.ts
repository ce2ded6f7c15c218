export const REPORT_BREAKER = `
UPDATE posthorn_session_subscriptions SET breaker = ? WHERE session_id = ? AND source = ?`

export const LIST_BREAKERS = `
SELECT session_id AS sessionId, breaker FROM posthorn_session_subscriptions
 WHERE subscription_id = ? AND breaker IS NOT NULL ORDER BY session_id, source`

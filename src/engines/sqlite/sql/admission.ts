export const READ_RATE = `
SELECT next_at_ms AS nextAtMs FROM posthorn_rates WHERE subscription_id = ? AND limit_name = ? AND bucket = ?`

export const WRITE_RATE = `
INSERT INTO posthorn_rates (subscription_id, limit_name, bucket, next_at_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET next_at_ms = excluded.next_at_ms`

// A few at a time, so that no publisher waits long for the write lock.
export const DELETE_IDLE_RATES = `
DELETE FROM posthorn_rates WHERE (subscription_id, limit_name, bucket) IN
  (SELECT subscription_id, limit_name, bucket FROM posthorn_rates WHERE next_at_ms < ?1 LIMIT ?2)`

export const COUNT_PLACES = `
SELECT coalesce(sum(held), 0) AS held FROM posthorn_in_flight
 WHERE subscription_id = ? AND limit_name = ? AND bucket = ?`

export const TAKE_PLACES = `
INSERT INTO posthorn_in_flight (subscription_id, limit_name, bucket, session_id, source, held) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET held = held + excluded.held`

export const FREE_PLACES = `
UPDATE posthorn_in_flight SET held = held - ?6
 WHERE subscription_id = ?1 AND limit_name = ?2 AND bucket = ?3 AND session_id = ?4 AND source = ?5
RETURNING held`

export const DELETE_PLACES = `
DELETE FROM posthorn_in_flight
 WHERE subscription_id = ?1 AND limit_name = ?2 AND bucket = ?3 AND session_id = ?4 AND source = ?5`

export const DELETE_PLACES_OF_SOURCE = `DELETE FROM posthorn_in_flight WHERE session_id = ? AND source = ?`
export const DELETE_PLACES_OF_SESSION = `DELETE FROM posthorn_in_flight WHERE session_id = ?`
export const DELETE_PLACES_OF_SUBSCRIPTION = `DELETE FROM posthorn_in_flight WHERE subscription_id = ?`
export const DELETE_RATES_OF_SUBSCRIPTION = `DELETE FROM posthorn_rates WHERE subscription_id = ?`

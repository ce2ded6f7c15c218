import { NEVER_MS, PARKED } from './chains.ts'
import { SUSPECT_FROM } from './subscriptions.ts'

const COLUMNS = `retry_id AS retryId, subscription_id AS subscriptionId, partition, offset, attempt, crashes, isolated,
       failures, event, message_key AS key`

export const INSERT_RETRY = `
INSERT INTO posthorn_retries
  (subscription_id, partition, offset, due_at_ms, attempt, crashes, failures, event, message_key, message_id, parked,
   lease_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// Both walk their index in its own order, and pass over what the other one is for without reading its row.
export const DUE_RETRIES = `
SELECT ${COLUMNS} FROM posthorn_retries
 WHERE subscription_id = ?1 AND session_id IS NULL AND due_at_ms <= ?2 AND crashes < ${SUSPECT_FROM}
 ORDER BY due_at_ms, crashes, retry_id LIMIT ?3`

// "crashes > 0" says nothing new; it lets SQLite use the index of those few.
export const DUE_SUSPECTS = `
SELECT ${COLUMNS} FROM posthorn_retries
 WHERE subscription_id = ?1 AND session_id IS NULL AND due_at_ms <= ?2 AND crashes > 0 AND crashes >= ${SUSPECT_FROM}
 ORDER BY due_at_ms, crashes, retry_id LIMIT ?3`

/**
 * Of a row `due` of subscription ?1, which is ordered, and nobody's: whether it is due at ?2, and may be granted. A row
 * that came back from somebody's hands may be due while the one before it is not any more: then it has to wait for it.
 */
export const MAY_BE_GRANTED = `
       due.subscription_id = ?1 AND due.session_id IS NULL AND due.due_at_ms <= ?2
   AND NOT EXISTS (SELECT 1 FROM posthorn_retries AS earlier
                    WHERE earlier.subscription_id = ?1 AND earlier.partition = due.partition
                      AND earlier.message_key = due.message_key AND earlier.offset < due.offset
                      AND earlier.session_id IS NULL AND earlier.due_at_ms > due.due_at_ms)
   AND NOT EXISTS (SELECT 1 FROM posthorn_dead_letters AS blocker INDEXED BY posthorn_dead_letters_blocking
                    WHERE blocker.subscription_id = ?1 AND blocker.partition = due.partition
                      AND blocker.message_key = due.message_key AND blocker.blocks = 1
                      AND blocker.offset < due.offset)`

// As above, for one partition of an ordered subscription, and in offset order where they fell due together.
export const DUE_IN_PARTITION = `
SELECT ${COLUMNS}, crashes >= ${SUSPECT_FROM} AS suspect FROM posthorn_retries AS due
 WHERE ${MAY_BE_GRANTED} AND due.partition = ?3
 ORDER BY due_at_ms, offset LIMIT ?4`

export const NEXT_RETRY = `
SELECT min(due_at_ms) AS dueAtMs FROM posthorn_retries
 WHERE subscription_id = ? AND session_id IS NULL AND due_at_ms < ${NEVER_MS}`

export const LEASE_RETRY = `
UPDATE posthorn_retries SET lease_id = ?, session_id = ?, isolated = ?, parked = ${PARKED.not} WHERE retry_id = ?`

export const FIND_LEASED_RETRY = `
SELECT ${COLUMNS} FROM posthorn_retries WHERE lease_id = ? AND session_id = ?`

// Its lease_id stays, as that of the attempt that failed.
export const RETRY_AGAIN = `
UPDATE posthorn_retries
   SET due_at_ms = ?, attempt = attempt + 1, crashes = 0, isolated = 0, failures = ?, session_id = NULL
 WHERE retry_id = ?`

// Partition by partition, for which there is an index.
export const FIND_FAILED_RETRY = `
SELECT ${COLUMNS} FROM posthorn_retries
 WHERE subscription_id = ?1 AND partition IN (SELECT partition FROM posthorn_cursors WHERE subscription_id = ?1)
   AND offset = ?2 AND lease_id = ?3 AND session_id IS NULL`

export const PARK_AGAIN = `
UPDATE posthorn_retries
   SET due_at_ms = ?, parked = ?, isolated = 0, lease_id = NULL, session_id = NULL
 WHERE retry_id = ?`

export const RELEASE_RETRY = `
UPDATE posthorn_retries SET lease_id = NULL, session_id = NULL, isolated = 0 WHERE retry_id = ?`

export const DELETE_RETRY = `DELETE FROM posthorn_retries WHERE retry_id = ?`

export const RETURN_RETRY = `
UPDATE posthorn_retries SET lease_id = NULL, session_id = NULL, isolated = 0 WHERE lease_id = ? AND session_id = ?`

export const RETURN_RETRIES_OF_SESSION = `
UPDATE posthorn_retries SET lease_id = NULL, session_id = NULL, isolated = 0 WHERE session_id = ?`

export const RETRIES_OF_SESSION = `SELECT ${COLUMNS} FROM posthorn_retries WHERE session_id = ?`

export const RETURN_LOST_RETRIES = `
UPDATE posthorn_retries SET lease_id = NULL, session_id = NULL, isolated = 0, crashes = crashes + 1 WHERE session_id = ?`

export const DELETE_RETRIES_FROM_OFFSET = `
DELETE FROM posthorn_retries WHERE subscription_id = ? AND partition = ? AND offset >= ? AND event IS NULL`

export const DELETE_ALL_RETRIES = `DELETE FROM posthorn_retries WHERE subscription_id = ?`

const DEAD_COLUMNS = `dead_letter_id AS id, partition, offset, reason, dead_at_ms AS deadAtMs, attempts, crashes,
       failures, event, message_key AS key, blocks`

export const INSERT_DEAD_LETTER = `
INSERT INTO posthorn_dead_letters
  (subscription_id, partition, offset, reason, dead_at_ms, attempts, crashes, failures, event, message_key, blocks)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

export const LIST_DEAD_LETTERS = `
SELECT ${DEAD_COLUMNS} FROM posthorn_dead_letters
 WHERE subscription_id = ? AND dead_letter_id > ? ORDER BY dead_letter_id LIMIT ?`

export const FIND_DEAD_LETTER = `
SELECT ${DEAD_COLUMNS} FROM posthorn_dead_letters WHERE subscription_id = ? AND dead_letter_id = ?`

export const DELETE_DEAD_LETTER = `DELETE FROM posthorn_dead_letters WHERE subscription_id = ? AND dead_letter_id = ?`

export const BLOCKING_DEAD_LETTERS = `
SELECT DISTINCT partition, message_key AS key FROM posthorn_dead_letters WHERE subscription_id = ? AND blocks = 1`

export const FIND_BLOCKING_DEAD_LETTER = `
SELECT partition, message_key AS key FROM posthorn_dead_letters
 WHERE dead_letter_id = ?2 AND subscription_id = ?1 AND blocks = 1`

export const DELETE_ALL_DEAD_LETTERS = `DELETE FROM posthorn_dead_letters WHERE subscription_id = ?`

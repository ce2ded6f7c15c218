/** Of a row that waits for no time, but for what is before it in its chain: beyond all time. */
export const NEVER_MS = Number.MAX_SAFE_INTEGER

/** What a row waits for, as it is stored in the column `parked`. */
export const PARKED = { not: 0, untilTurn: 1, untilFreed: 2, untilTime: 3 } as const

/** What nothing but the chain keeps waiting. */
const BEHIND = `(${PARKED.untilTurn}, ${PARKED.untilFreed})`

// By a dead letter before an offset of its key: what is before that one need not wait for it.
const IS_BLOCKED = `EXISTS (SELECT 1 FROM posthorn_dead_letters AS d INDEXED BY posthorn_dead_letters_blocking
  WHERE d.subscription_id = ?1 AND d.partition = ?2 AND d.message_key = ?3 AND d.blocks = 1 AND d.offset < ?4)`

export const FIND_BLOCKER = `SELECT 1 AS found WHERE ${IS_BLOCKED}`

// Whether something stands before an offset in its key's chain.
export const HAS_PREDECESSOR = `
SELECT 1 AS found
 WHERE EXISTS (SELECT 1 FROM posthorn_retries
                WHERE subscription_id = ?1 AND partition = ?2 AND message_key = ?3 AND offset < ?4)
    OR ${IS_BLOCKED}`

export const FIRST_OF_CHAIN = `
SELECT parked, offset FROM posthorn_retries
 WHERE subscription_id = ?1 AND partition = ?2 AND message_key = ?3 ORDER BY offset LIMIT 1`

// The first rows of a chain, as far as nothing but the chain keeps them waiting.
export const WAKE_CHAIN = `
UPDATE posthorn_retries SET parked = ${PARKED.not}, due_at_ms = ?4
 WHERE parked IN ${BEHIND} AND retry_id IN
       (SELECT retry_id FROM posthorn_retries
         WHERE subscription_id = ?1 AND partition = ?2 AND message_key = ?3
           AND offset < coalesce((SELECT min(offset) FROM (
                 SELECT offset, parked FROM posthorn_retries
                  WHERE subscription_id = ?1 AND partition = ?2 AND message_key = ?3 ORDER BY offset LIMIT ?5)
                                   WHERE parked NOT IN ${BEHIND}), 9e15)
         ORDER BY offset LIMIT ?5)`

// What is behind an offset and in nobody's hands waits again.
export const PARK_BEHIND = `
UPDATE posthorn_retries SET parked = ${PARKED.untilTurn}, due_at_ms = ${NEVER_MS}
 WHERE subscription_id = ?1 AND partition = ?2 AND message_key = ?3 AND offset > ?4
   AND session_id IS NULL AND parked IN (${PARKED.not}, ${PARKED.untilTime})`

// For a new owner: the first of each chain, unless it has a time of its own or a dead letter blocks the key.
export const WAKE_FIRSTS = `
UPDATE posthorn_retries AS row SET parked = ${PARKED.not}, due_at_ms = ?3
 WHERE subscription_id = ?1 AND partition = ?2 AND message_key IS NOT NULL AND parked IN ${BEHIND}
   AND NOT EXISTS (SELECT 1 FROM posthorn_retries AS earlier
                    WHERE earlier.subscription_id = ?1 AND earlier.partition = ?2
                      AND earlier.message_key = row.message_key AND earlier.offset < row.offset)
   AND NOT EXISTS (SELECT 1 FROM posthorn_dead_letters AS d INDEXED BY posthorn_dead_letters_blocking
                    WHERE d.subscription_id = ?1 AND d.partition = ?2 AND d.message_key = row.message_key
                      AND d.blocks = 1 AND d.offset < row.offset)`

export const UNBLOCK_FROM_OFFSET = `
UPDATE posthorn_dead_letters SET blocks = 0
 WHERE subscription_id = ? AND partition = ? AND blocks = 1 AND offset >= ?`

// The subscription is ordered no longer: what waited for its turn is due, the oldest first.
export const WAKE_ALL = `
UPDATE posthorn_retries SET parked = ${PARKED.not}, due_at_ms = 0 WHERE subscription_id = ? AND parked IN ${BEHIND}`

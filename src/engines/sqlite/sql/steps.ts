import { STEP_PROBLEM } from '../../step-problem.ts'

export const READ_STEPS = `
SELECT name, result FROM posthorn_steps WHERE subscription_id = ? AND partition = ? AND offset = ?`

export const RECORD_STEP = `
INSERT OR REPLACE INTO posthorn_steps (subscription_id, partition, offset, name, result) VALUES (?, ?, ?, ?, ?)`

export const FORGET_STEPS = `DELETE FROM posthorn_steps WHERE subscription_id = ? AND partition = ? AND offset = ?`

export const FORGET_STEP_PROBLEMS = `
DELETE FROM posthorn_steps
 WHERE subscription_id = ? AND partition = ? AND offset = ? AND substr(result, 1, ${STEP_PROBLEM.length}) = '${STEP_PROBLEM}'`

export const DELETE_ALL_STEPS = `DELETE FROM posthorn_steps WHERE subscription_id = ?`

// Dead letters keep theirs: a redrive skips what was finished.
export const PURGE_STEPS = `
DELETE FROM posthorn_steps WHERE subscription_id = ?1 AND NOT EXISTS
  (SELECT 1 FROM posthorn_dead_letters AS d
    WHERE d.subscription_id = ?1 AND d.partition = posthorn_steps.partition AND d.offset = posthorn_steps.offset)`

// The next messages with steps, in the order of the table.
export const NEXT_MESSAGES_WITH_STEPS = `
SELECT DISTINCT subscription_id AS subscriptionId, partition, offset FROM posthorn_steps
 WHERE (subscription_id, partition, offset) > (?, ?, ?)
 ORDER BY subscription_id, partition, offset LIMIT ?`

// Apart from what is within a range.
export const MAY_RETURN = `
SELECT 1 AS found
 WHERE EXISTS (SELECT 1 FROM posthorn_cursors WHERE subscription_id = ?1 AND partition = ?2 AND next_offset <= ?3)
    OR EXISTS (SELECT 1 FROM posthorn_retries WHERE subscription_id = ?1 AND partition = ?2 AND offset = ?3)
    OR EXISTS (SELECT 1 FROM posthorn_dead_letters WHERE subscription_id = ?1 AND partition = ?2 AND offset = ?3)`

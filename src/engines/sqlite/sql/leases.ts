import { SUSPECT_FROM } from './subscriptions.ts'

const COLUMNS = `lease_id AS leaseId, subscription_id AS subscriptionId, partition, from_offset AS fromOffset,
       to_offset AS toOffset, settled, crashes, isolated`

export const RESERVE_LEASE_IDS = `
INSERT INTO posthorn_meta (name, value) VALUES ('lease_block', 1)
    ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value AS block`

export const INSERT_LEASE = `
INSERT INTO posthorn_leases
  (lease_id, subscription_id, partition, from_offset, to_offset, settled, session_id, crashes, isolated)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

export const FIND_LEASE = `SELECT ${COLUMNS} FROM posthorn_leases WHERE lease_id = ? AND session_id = ?`

// Suspects last: they are many ranges of one message, and only one of them can be handed out.
export const RETURNED_RANGES = `
SELECT ${COLUMNS}, crashes >= ${SUSPECT_FROM} AS suspect FROM posthorn_leases
 WHERE subscription_id = ?1 AND session_id IS NULL ORDER BY suspect, partition, from_offset LIMIT 256`

/** Read of a partition at a time. */
export const RETURNED_MAX = 64

export const RETURNED_RANGES_OF_PARTITION = `
SELECT ${COLUMNS}, crashes >= ${SUSPECT_FROM} AS suspect FROM posthorn_leases
 WHERE subscription_id = ?1 AND partition = ?2 AND session_id IS NULL ORDER BY from_offset LIMIT ${RETURNED_MAX}`

export const FIND_RETURNED_RANGE = `
SELECT 1 AS found FROM posthorn_leases WHERE subscription_id = ? AND partition = ? AND session_id IS NULL LIMIT 1`

export const UPDATE_LEASE = `UPDATE posthorn_leases SET from_offset = ?, to_offset = ?, settled = ? WHERE lease_id = ?`

export const DELETE_LEASE = `DELETE FROM posthorn_leases WHERE lease_id = ?`

export const DELETE_WHOLE_LEASE = `
DELETE FROM posthorn_leases WHERE lease_id = ? AND session_id = ? AND from_offset >= ? AND to_offset <= ?`

export const SUSPECT_IS_OUT = `
SELECT 1 AS found WHERE EXISTS (SELECT 1 FROM posthorn_leases WHERE session_id = ?1 AND isolated = 1)
                     OR EXISTS (SELECT 1 FROM posthorn_retries WHERE session_id = ?1 AND isolated = 1)`

export const RETURN_LEASE = `
UPDATE posthorn_leases SET session_id = NULL, isolated = 0 WHERE lease_id = ? AND session_id = ?`

export const RETURN_LEASES_OF_SESSION = `
UPDATE posthorn_leases SET session_id = NULL, isolated = 0 WHERE session_id = ?`

export const LEASES_OF_SESSION = `SELECT ${COLUMNS} FROM posthorn_leases WHERE session_id = ?`

export const LEASE_IDS_OF_SESSION = `
SELECT lease_id AS leaseId FROM posthorn_leases WHERE session_id = ?1
 UNION ALL SELECT lease_id FROM posthorn_retries WHERE session_id = ?1
 UNION ALL SELECT lease_id FROM posthorn_cancel_notices WHERE session_id = ?1`

export const RETURN_LOST_LEASES = `
UPDATE posthorn_leases SET session_id = NULL, isolated = 0, crashes = crashes + 1 WHERE session_id = ?`

export const LEASES_FROM_OFFSET = `
SELECT ${COLUMNS} FROM posthorn_leases WHERE subscription_id = ? AND partition = ? AND to_offset > ?`

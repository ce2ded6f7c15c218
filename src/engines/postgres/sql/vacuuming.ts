/**
 * How the tables are cleaned up. The defaults of Postgres wait until a fifth of a table is dead rows: right for tables
 * that are large and change little, and these are neither. They are settings of the tables, for anybody to change by
 * ALTER TABLE.
 *
 * - Small tables of which something is inserted and deleted all the time: states, counters and what is on its way through
 *   the outbox. They are cleaned after some thousand dead rows, whatever their size. The space that this frees is used
 *   again at once, so the files are not made smaller, which would take a lock that keeps everybody out.
 * - Tables of which what is old is deleted: the log, ids, what was set aside. A fiftieth of dead rows is enough, so that
 *   the space of what retention deletes is used again before the table has grown by much. The long texts of batches are
 *   in a table behind theirs ("toast."), which is cleaned by settings of its own.
 * - Sessions are a row for each process, which is updated with each renewal. With room on the page the update touches no
 *   index, and its dead rows go without any vacuum.
 */
const SMALL_AND_BUSY = `
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_threshold = -1,
  vacuum_truncate = false`

const LARGE_AND_DELETED_FROM = `
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, vacuum_truncate = false`

/** For those that have one. */
const TEXTS_BEHIND = `toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 1000,
  toast.vacuum_truncate = false`
const BUSY_TEXTS_BEHIND = `toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 2000,
  toast.autovacuum_vacuum_insert_threshold = -1, toast.vacuum_truncate = false`

export const SET_VACUUMING = `
ALTER TABLE @.states SET (${SMALL_AND_BUSY}, ${BUSY_TEXTS_BEHIND});
ALTER TABLE @.counters SET (${SMALL_AND_BUSY}, ${BUSY_TEXTS_BEHIND});
ALTER TABLE @.outbox SET (${SMALL_AND_BUSY}, ${BUSY_TEXTS_BEHIND});
ALTER TABLE @.outbox_ids SET (${SMALL_AND_BUSY});
ALTER TABLE @.relay SET (${SMALL_AND_BUSY}, ${BUSY_TEXTS_BEHIND});
ALTER TABLE @.floors SET (${SMALL_AND_BUSY});

ALTER TABLE @.batches SET (${LARGE_AND_DELETED_FROM}, ${TEXTS_BEHIND});
ALTER TABLE @.ids SET (${LARGE_AND_DELETED_FROM});
ALTER TABLE @.delayed SET (${LARGE_AND_DELETED_FROM}, ${TEXTS_BEHIND});
ALTER TABLE @.set_aside SET (${LARGE_AND_DELETED_FROM}, ${TEXTS_BEHIND});
ALTER TABLE @.dead_letters SET (${LARGE_AND_DELETED_FROM}, ${TEXTS_BEHIND});
ALTER TABLE @.steps SET (${LARGE_AND_DELETED_FROM}, ${TEXTS_BEHIND});
ALTER TABLE @.cancelled SET (${LARGE_AND_DELETED_FROM});

ALTER TABLE @.sessions SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
  vacuum_truncate = false);
`

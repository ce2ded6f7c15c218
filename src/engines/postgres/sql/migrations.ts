import { statements } from '../database/statement.ts'
import { CREATE_TABLES } from './schema.ts'
import { SET_VACUUMING } from './vacuuming.ts'
import { CREATE_VIEWS } from './views.ts'

/**
 * One step of the schema. What was released is never changed again: a step leads from the schema as it was to the schema
 * as it was then, and says everything itself. Each runs in a transaction of its own, in which it must not have to wait
 * long for a lock, nor hold one: no table is rewritten, and no index built on one that may be large.
 *
 * While a deployment is rolled out, processes of the version before go on working. So a step adds what they can do without
 * noticing, and what they use is taken away by a later version's step. Where that cannot be, older processes are told
 * to stop before the step is taken. One that hangs may not have heard it: such a step renames what the older ones write to,
 * so that their statements fail.
 */
export interface Migration {
  readonly text: string
  /** The oldest version of the schema whose processes can work with what this step leads to. */
  readonly compatibleFrom: number
}

/** Each brings a schema of version `index` to the next one; 0 is nothing at all. */
export const MIGRATIONS: readonly Migration[] = [
  { text: CREATE_TABLES + SET_VACUUMING + CREATE_VIEWS, compatibleFrom: 1 },
]

/** Read from the catalog: `to_regclass` may not see, in a transaction that had to wait, what was created meanwhile. */
export const FIND_VERSION = `
SELECT EXISTS (
  SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
   WHERE relname = 'schema_version' AND nspname = $1
) AS found`
export const READ_VERSION = `SELECT version, compatible_from AS "compatibleFrom" FROM @.schema_version`
export const schema = statements('schema', { version: READ_VERSION })

export const FIND_SCHEMA = 'SELECT FROM pg_namespace WHERE nspname = $1'
export const CREATE_SCHEMA = 'CREATE SCHEMA $schema'

/** The schema of the tables, in one row. */
export const CREATE_VERSION = `
CREATE TABLE @.schema_version (
  version         integer NOT NULL,
  -- Processes that know at least this version may work with the tables.
  compatible_from integer NOT NULL
);
INSERT INTO @.schema_version VALUES (0, 0)`

export const WRITE_VERSION = `
WITH told AS (SELECT pg_notify($3, $4))
UPDATE @.schema_version SET version = $1, compatible_from = $2 FROM told`

/** One process migrates at a time; the lock ends with the transaction. */
export const LOCK_MIGRATIONS = `SELECT pg_advisory_xact_lock(hashtextextended('posthorn migrations of @.', 0))`
/**
 * The role may have limits that are meant for others: another process's step can take long, and so can a step itself. But
 * whoever does nothing keeps everybody waiting, who may be halted, or cut off from a server that does not notice.
 */
export const SET_LIMITS = `
SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
       set_config('idle_in_transaction_session_timeout', $1, true)`
export const LIMIT_LOCK_WAIT = `SELECT set_config('lock_timeout', $1, true)`
export const PAUSE = 'SELECT pg_sleep($1)'

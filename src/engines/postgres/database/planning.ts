/**
 * How the server plans what is sent over the engine's own connections, and how long it bears with them.
 *
 * Each statement is planned once a connection: to plan a small one costs more than to carry it out, and the server does so
 * time and again as long as it takes a plan for the values at hand to be cheaper. Such a plan stays while tables grow that
 * were empty when it was made, so it must not be one that reads a whole table where there is an index, or a whole index to
 * join it with the few rows that are wanted: every statement of the engine's begins with those, and follows an index
 * from each. And none is worth being compiled.
 *
 * A process that stands still within a transaction, halted or with its event loop blocked, would keep locks that all others
 * need; the server ends the transaction then, which is done again. And nobody waits for a lock for longer than for an
 * answer.
 *
 * Statements of the user's, in transactions of handlers, are planned as the user's server, database or role says.
 */

const PLANNING = {
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
  enable_hashjoin: 'off',
  enable_mergejoin: 'off',
  jit: 'off',
}

/** What statements rely on, whatever is set for the role. */
const RELIED_ON = {
  default_transaction_isolation: 'read committed',
  array_nulls: 'on',
  extra_float_digits: '1',
}

const PATIENCE = {
  idle_in_transaction_session_timeout: '5s',
  lock_timeout: '20s',
}

/** Until the connection ends. */
export const ENGINE_PLANNING = `SELECT ${Object.entries({ ...PLANNING, ...RELIED_ON, ...PATIENCE })
  .map(([name, value]) => `set_config('${name}', '${value}', false)`)
  .join(', ')}`

/** Until the transaction ends. */
const USER_PLANNING = lifted({ ...PLANNING, ...RELIED_ON, ...PATIENCE })

function lifted(settings: Readonly<Record<string, string>>): string {
  return Object.keys(settings)
    .map((name) => `SET LOCAL ${name} TO DEFAULT`)
    .join('; ')
}

/** Undoes what somebody has set on a connection of ours. What was set for the transaction alone goes, too. */
const RESET = 'RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL'
/** Drops what would be there still when somebody else is given the connection: it may be in his way, or he in its. */
const LEFT_BEHIND = 'CLOSE ALL; DISCARD TEMP; UNLISTEN *'
/** Of the session: behind a pooler they may be anybody's. */
const UNLOCK = 'SELECT pg_advisory_unlock_all()'

const SETTINGS_ONCE = Object.entries({ ...RELIED_ON, ...PATIENCE })
  .map(([name, value]) => `SET LOCAL ${name} = '${value}'`)
  .join('; ')

const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED'

/** What is sent at the turns of a transaction, on connections of ours or on those that a pooler gives to anybody. */
export const sessionPhrases = {
  begin: BEGIN,
  /** A handler may have locked what is not part of its transaction. */
  rollback: `ROLLBACK; ${UNLOCK}`,
  /** From here on, statements are the user's. */
  lend: USER_PLANNING,
  /** From here on, they are the engine's again. */
  takeBack: `${RESET}; ${LEFT_BEHIND}; ${UNLOCK}; ${ENGINE_PLANNING}`,
}
export const pooledPhrases: typeof sessionPhrases = {
  begin: `${BEGIN}; ${SETTINGS_ONCE}`,
  rollback: 'ROLLBACK',
  lend: lifted({ ...RELIED_ON, ...PATIENCE }),
  takeBack: `${RESET}; ${LEFT_BEHIND}; ${SETTINGS_ONCE}`,
}

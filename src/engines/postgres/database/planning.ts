/**
 * How the server plans what is sent over the engine's own connections.
 *
 * Each statement is planned once a connection: to plan a small one costs more than to carry it out, and the server does so
 * time and again as long as it takes a plan for the values at hand to be cheaper. Such a plan stays while tables grow that
 * were empty when it was made, so it must not be one that reads a whole table where there is an index, or a whole index to
 * join it with the few rows that are wanted: every statement of the engine's begins with those, and follows an index
 * from each. And none is worth being compiled.
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

/** Until the connection ends. */
export const ENGINE_PLANNING = `SELECT ${Object.entries(PLANNING)
  .map(([name, value]) => `set_config('${name}', '${value}', false)`)
  .join(', ')}`

/** Until the transaction ends. */
export const USER_PLANNING = Object.keys(PLANNING)
  .map((name) => `SET LOCAL ${name} TO DEFAULT`)
  .join('; ')

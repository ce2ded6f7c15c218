/**
 * How the server plans what is sent over the engine's own connections.
 *
 * Each statement is planned once a connection: to plan a small one costs more than to carry it out, and the server does so
 * time and again as long as it takes a plan for the values at hand to be cheaper. Such a plan stays while tables grow that
 * were empty when it was made, so it must not be one that reads a whole table where there is an index. And no statement
 * of the engine's is worth being compiled.
 *
 * Statements of the user's, in transactions of handlers, are planned as the user's server, database or role says.
 */

/** Until the connection ends. */
export const ENGINE_PLANNING = `
SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false)`

/** Until the transaction ends. */
export const USER_PLANNING =
  'SET LOCAL plan_cache_mode TO DEFAULT; SET LOCAL enable_seqscan TO DEFAULT; SET LOCAL jit TO DEFAULT'

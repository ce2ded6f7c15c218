import { type Duration, describe, parseDuration } from '../../message/duration.ts'
import { checkOptionNames, invalidOption } from '../../message/options.ts'
import { type RetryOptions, readRetry } from '../retry-options.ts'
import type { RetryPolicy } from '../retry-policy.ts'

/** What the function of a step is told. */
export interface StepContext {
  /**
   * Aborts with the handler's signal, and when the step has outrun its own `timeout` (POSTHORN_STEP_TIMEOUT). What the
   * step does afterwards has no effect here: its result is not kept.
   */
  readonly signal: AbortSignal
  /** 1 for the first call of the step within this call of the handler, and one more for each of its `retry`. */
  readonly attempt: number
  /**
   * The message's `idempotencyKey` and the step's name: the same whenever this step of this message is tried. Give it to
   * a service that knows such keys, and the effect happens once even if the process dies before its result is kept.
   */
  readonly idempotencyKey: string
}

export interface StepOptions {
  /**
   * Tries again within this call of the handler. Default: once, because the handler's own retry skips the steps that
   * are finished. A delay that would pass the handler's deadline is not waited for: the step fails at once.
   */
  readonly retry?: StepRetryOptions
  /** How long one call of the function may take. Default: as long as the handler. */
  readonly timeout?: Duration
}

export interface StepRetryOptions extends RetryOptions {
  /** Attempts in all, the first included, within one call of the handler. */
  readonly attempts: number
}

/** Step options, checked. */
export interface StepSettings {
  readonly retry: RetryPolicy
  readonly timeoutMs: number | undefined
}

const NAME_LENGTH_MAX = 200

const optionNames = new Set(['retry', 'timeout'])

/** Throws POSTHORN_INVALID_OPTION. */
export function readStepOptions(options: StepOptions): StepSettings {
  checkOptionNames('step options', options, optionNames)
  const { retry = { attempts: 1 }, timeout } = options
  return {
    retry: readRetry(retry, undefined),
    timeoutMs: timeout === undefined ? undefined : parseDuration(timeout, 'timeout', 1),
  }
}

/** Throws POSTHORN_INVALID_OPTION. */
export function checkStep(name: unknown, work: unknown): void {
  if (typeof name !== 'string' || name.length === 0 || name.length > NAME_LENGTH_MAX || !name.isWellFormed()) {
    const problem = `it is ${describe(name)}; expected a text of 1 to ${NAME_LENGTH_MAX} characters`
    throw invalidOption('step name', problem)
  }
  if (typeof work !== 'function') throw invalidOption('step', `it is ${describe(work)}; expected a function`)
}

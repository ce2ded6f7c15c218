/**
 * The steps of one delivery: pieces of a handler whose results are kept, so that the next attempt does not run them
 * again.
 *
 * States of a step: begun (its name is taken for this call of the handler); then known, when the store has its result;
 * or running, once or several times; then run, when its effect has happened and its result is on the way to the store;
 * then finished. Only then its caller goes on, with what the store has, read back: so the first attempt and later ones
 * see the same.
 *
 * State: the names begun, how many of them are not over, the results that the store had when the first step began, and
 * whether it may have any now. Once the handler has failed none is begun any more: the next attempt may run beside it.
 *
 * Failure: what the function throws is the step's outcome, after its own retries. A result that JSON has no form for
 * fails the step after its effect, so that is kept too, and later attempts fail without the effect. When the store fails
 * between effect and finish, it is asked again for as long as the handler may run, because giving up means to have the
 * effect twice. A lost lease ends that: the store takes no results from who has lost the message. After a timeout that
 * is followed by a retry it does, until the next attempt is granted, so a step that ends in between is not run again.
 */
import type { LeaseId, Source } from '../../engine.ts'
import { type Environment, linkSignals, pause } from '../../environment/index.ts'
import { PosthornError } from '../../errors.ts'
import { exceedsBytes } from '../../message/encode.ts'
import { trySerialize } from '../../message/serialize.ts'
import { Discard, RetryAfter } from '../outcomes.ts'
import { outageDelayMs, type RetryPolicy, retryDelayMs } from '../retry-policy.ts'
import type { ConsumerSettings } from '../settings.ts'
import { isInstance } from '../settlement/failure.ts'
import { Abortable } from './abortable.ts'
import { checkStep, readStepOptions, type StepContext, type StepOptions, type StepSettings } from './step-options.ts'

/** Where results are kept. */
export type StepStore = Pick<Source, 'steps' | 'recordStep'>

export interface StepTools {
  readonly settings: ConsumerSettings
  readonly environment: Environment
  readonly stepStore: StepStore
}

/** What steps need to know of their delivery. */
export interface SteppedDelivery {
  readonly lease: LeaseId
  readonly offset: number
  readonly signal: AbortSignal
  readonly aborted: boolean
  readonly deadline: number
  /** Defined once the handler has failed. */
  readonly failure: object | undefined
  idempotencyKeyFor(step: string): string
}

type StepWork = (context: StepContext) => unknown

const RESULT_BYTES_MAX = 1024 * 1024

export class Steps {
  /** The store may have results, which are of no more use once the message is acknowledged. */
  kept = false
  readonly #delivery: SteppedDelivery
  readonly #tools: StepTools
  readonly #begun = new Set<string>()
  #known: Promise<ReadonlyMap<string, string>> | undefined
  #running = 0
  #onIdle: (() => void) | undefined = undefined

  constructor(delivery: SteppedDelivery, tools: StepTools) {
    this.#delivery = delivery
    this.#tools = tools
  }

  async run(name: string, work: StepWork, options: StepOptions = {}): Promise<unknown> {
    checkStep(name, work)
    const settings = readStepOptions(options)
    this.#begin(name)
    this.#running++
    try {
      return this.#valueOf(name, await this.#resultOf(name, work, settings))
    } finally {
      if (--this.#running === 0) this.#onIdle?.()
    }
  }

  /** Resolves once no step is under way; undefined when that is so now. */
  unfinished(): Promise<void> | undefined {
    if (this.#running === 0) return undefined
    return new Promise((resolve) => {
      this.#onIdle = resolve
    })
  }

  async #resultOf(name: string, work: StepWork, settings: StepSettings): Promise<string> {
    const known = (await this.#load()).get(name)
    if (known !== undefined) return known
    const result = resultOf(await this.#runToEnd(name, work, settings))
    await this.#keep(name, result)
    return result
  }

  #begin(name: string): void {
    const { subscription } = this.#tools.settings
    if (this.#delivery.failure !== undefined) {
      const reason = `the call of the handler had failed when it began step ${name}`
      throw new PosthornError('POSTHORN_LEASE_LOST', { subscription, reason })
    }
    if (this.#begun.has(name)) throw new PosthornError('POSTHORN_STEP_CONFLICT', { step: name, subscription })
    this.#begun.add(name)
  }

  #load(): Promise<ReadonlyMap<string, string>> {
    const { lease, offset } = this.#delivery
    this.#known ??= this.#insist(() => this.#tools.stepStore.steps(lease, offset)).then((results) => {
      if (results.size > 0) this.kept = true
      return results
    })
    return this.#known
  }

  async #keep(name: string, result: string): Promise<void> {
    const { lease, offset } = this.#delivery
    this.kept = true
    await this.#insist(() => this.#tools.stepStore.recordStep(lease, offset, name, result))
  }

  async #insist<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    for (let failures = 1; ; failures++) {
      try {
        return await ask()
      } catch (error) {
        if (!isRetryable(error) || this.#delivery.aborted) throw error
      }
      await pause(this.#tools.environment.clock, outageDelayMs(failures), this.#delivery.signal)
    }
  }

  async #runToEnd(name: string, work: StepWork, { retry, timeoutMs }: StepSettings): Promise<unknown> {
    for (let attempt = 1; ; attempt++) {
      // Nothing new is begun for a message that is given up.
      this.#delivery.signal.throwIfAborted()
      const call = new StepCall(this.#delivery, name, attempt)
      try {
        return await (timeoutMs === undefined ? work(call) : this.#runInTime(name, work, call, timeoutMs))
      } catch (error) {
        const delayMs = this.#retryDelayMs(error, attempt, retry)
        if (delayMs === undefined) throw error
        await pause(this.#tools.environment.clock, delayMs, this.#delivery.signal)
      }
    }
  }

  async #runInTime(name: string, work: StepWork, call: StepCall, timeoutMs: number): Promise<unknown> {
    const { settings, environment } = this.#tools
    const { promise: late, reject } = Promise.withResolvers<never>()
    const timer = environment.clock.setTimer(timeoutMs, () => {
      const { subscription } = settings
      const error = new PosthornError('POSTHORN_STEP_TIMEOUT', { step: name, subscription, timeoutMs })
      reject(error)
      call.timeout.abort(error)
    })
    try {
      return await Promise.race([late, work(call)])
    } finally {
      timer.cancel()
    }
  }

  /** Undefined: not again. */
  #retryDelayMs(thrown: unknown, attempt: number, { attempts, backoff }: RetryPolicy): number | undefined {
    if (attempt >= attempts || isInstance(thrown, Discard) || isInstance(thrown, RetryAfter)) return undefined
    const { clock, random } = this.#tools.environment
    const delayMs = retryDelayMs(backoff, attempt, random)
    return clock.now() + delayMs < this.#delivery.deadline ? delayMs : undefined
  }

  #valueOf(name: string, result: string): unknown {
    const { value, problem } = parse(result)
    if (problem === undefined) return value
    const { subscription } = this.#tools.settings
    throw new PosthornError('POSTHORN_UNSERIALIZABLE_STEP', { step: name, subscription, problem })
  }
}

/** One call of a step's function. */
class StepCall implements StepContext {
  readonly timeout = new Abortable()
  readonly attempt: number
  readonly #delivery: SteppedDelivery
  readonly #name: string
  #signal: AbortSignal | undefined

  constructor(delivery: SteppedDelivery, name: string, attempt: number) {
    this.#delivery = delivery
    this.#name = name
    this.attempt = attempt
  }

  get signal(): AbortSignal {
    this.#signal ??= linkSignals(this.#delivery.signal, this.timeout.signal).signal
    return this.#signal
  }

  get idempotencyKey(): string {
    return this.#delivery.idempotencyKeyFor(this.#name)
  }
}

/**
 * What is kept of a step: a value, if it gave one, or why what it gave is lost. With such a problem the step has had its
 * effect; only an operator may want that again, so a redrive makes the store forget it (see `Source.recordStep`).
 */
interface Result {
  readonly value?: unknown
  readonly problem?: string
}

function parse(result: string): Result {
  return JSON.parse(result) as Result
}

function resultOf(value: unknown): string {
  if (value === undefined) return '{}'
  const written = trySerialize(value, 'it', 'result')
  if (!('json' in written)) return JSON.stringify({ problem: written.problem })
  const { json } = written
  if (!exceedsBytes(json, RESULT_BYTES_MAX)) return `{"value":${json}}`
  const problem = `it takes ${Buffer.byteLength(json)} bytes, and the limit is ${RESULT_BYTES_MAX}`
  return JSON.stringify({ problem })
}

function isRetryable(error: unknown): boolean {
  return isInstance(error, PosthornError) && error.retryable
}

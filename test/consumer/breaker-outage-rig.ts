/**
 * A source, a downstream and a consumer on a virtual clock, which keep account of what becomes of 10,000 messages and of
 * what the downstream is asked.
 */
import type { BreakerSettings } from '../../src/consumer/breaker/settings.ts'
import { type ConsumerSettings, EventLoopWatch, type Handlers, startConsumer } from '../../src/consumer/consumer.ts'
import type { Grant, LeaseId, Settlement } from '../../src/engine.ts'
import { type Environment, pause, type Random, seededRandom } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { engineOf, FakeSource, grantOf, offsets, offsetsIn, type Pull } from './fake-source.ts'
import { defaultSettings, RecordingLogger } from './harness.ts'

export const MINUTE_MS = 60_000
export const MESSAGES = 10_000
const RANGE = 500

/** Grants ranges of messages, and retries when they are due, before all else; keeps account of what became of them. */
export class CountingSource extends FakeSource {
  readonly handled = new Set<number>()
  /** Of those whose failures were counted: the attempt that comes next. */
  readonly attempts = new Map<number, number>()
  readonly dead: number[] = []
  readonly #clock: VirtualClock
  readonly #firstAttempt: number
  readonly #due: Grant[] = []
  #next = 0
  #lease = 0

  /** `firstAttempt`: the attempt that all messages wait for. */
  constructor(clock: VirtualClock, firstAttempt: number) {
    super()
    this.#clock = clock
    this.#firstAttempt = firstAttempt
  }

  override async pull(limits: Pull, signal: AbortSignal): Promise<readonly Grant[]> {
    if (this.#due.length > 0) return this.#due.splice(0, limits.messagesMax)
    if (this.#next === MESSAGES) return super.pull(limits, signal)
    const from = this.#next
    this.#next = Math.min(MESSAGES, from + limits.messagesMax, from + RANGE)
    const range = offsets(from, this.#next)
    return this.#firstAttempt === 1 ? [this.#grant(range)] : range.map((offset) => this.#grant([offset]))
  }

  override async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    for (const { acked, exceptions } of settlements) {
      for (const offset of offsetsIn(acked)) this.handled.add(offset)
      for (const exception of exceptions) {
        if (exception.kind === 'retry')
          this.retry(exception.offset, this.#attemptOf(exception.offset) + 1, exception.dueAtMs)
        else if (exception.kind === 'dead') this.dead.push(exception.offset)
        else this.#makeDue(exception.offset)
      }
    }
    return []
  }

  retry(offset: number, attempt: number, dueAtMs: number): void {
    this.attempts.set(offset, attempt)
    this.#clock.setTimer(dueAtMs - this.#clock.now(), () => this.#makeDue(offset))
  }

  #makeDue(offset: number): void {
    const grant = this.#grant([offset])
    if (this.#next === MESSAGES) this.offer(grant)
    else this.#due.push(grant)
  }

  #attemptOf(offset: number): number {
    return this.attempts.get(offset) ?? this.#firstAttempt
  }

  #grant(range: readonly number[]): Grant {
    return grantOf(range, { lease: ++this.#lease, attempt: this.#attemptOf(range[0]!) })
  }
}

/** Something that handlers call, which takes 5 to 45 ms to answer, or to refuse. */
export class Downstream {
  readonly callsAtMs: number[] = []
  readonly runningAtStart: { atMs: number; running: number }[] = []
  #running = 0
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #refuses: (nowMs: number, offset: number) => boolean

  constructor(clock: VirtualClock, random: Random, refuses: (nowMs: number, offset: number) => boolean) {
    this.#clock = clock
    this.#random = random
    this.#refuses = refuses
  }

  async call(offset: number): Promise<void> {
    this.callsAtMs.push(this.#clock.now())
    this.runningAtStart.push({ atMs: this.#clock.now(), running: ++this.#running })
    await pause(this.#clock, 5 + Math.floor(this.#random.number() * 40))
    this.#running--
    if (this.#refuses(this.#clock.now(), offset)) throw Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })
  }

  callsBetween(fromMs: number, untilMs: number): number {
    return this.callsAtMs.filter((atMs) => atMs >= fromMs && atMs < untilMs).length
  }
}

export interface Situation {
  readonly seed: number
  readonly breaker: BreakerSettings | undefined
  /** When the downstream goes away, from the start; default: never. */
  readonly awayAfterMs?: number
  readonly awayMs?: number
  /** Messages whose own host is dead. */
  readonly deadHost?: (offset: number) => boolean
  readonly firstAttempt?: number
  readonly changes?: Partial<ConsumerSettings>
  handlersOf?(downstream: Downstream): Handlers
  /** Called before the consumer starts. */
  prepare?(source: CountingSource, clock: VirtualClock): void
}

export const single = (downstream: Downstream): Handlers => ({
  handle: (event) => downstream.call(event.data as number),
})

export const batched = (downstream: Downstream): Handlers => ({
  handleBatch: (events) => downstream.call(events[0]!.data as number),
})

/** Runs until all messages with a living host are handled, for an hour at most. */
export async function simulate(situation: Situation) {
  const { seed, breaker, deadHost = () => false, firstAttempt = 1, changes, handlersOf = single } = situation
  const clock = new VirtualClock()
  const startMs = clock.now() + (situation.awayAfterMs ?? 0)
  const endMs = startMs + (situation.awayMs ?? 0)
  const environment = { clock, random: seededRandom(seed), logger: new RecordingLogger() } satisfies Environment
  const source = new CountingSource(clock, firstAttempt)
  situation.prepare?.(source, clock)
  const isAway = (nowMs: number) => nowMs >= startMs && nowMs < endMs
  const refuses = (nowMs: number, offset: number) => isAway(nowMs) || deadHost(offset)
  const downstream = new Downstream(clock, seededRandom(seed + 1), refuses)
  const settings = { ...defaultSettings, ...(breaker === undefined ? {} : { breaker }), ...changes }
  const watch = new EventLoopWatch(environment)
  const consumer = startConsumer(engineOf(source), environment, settings, handlersOf(downstream), watch)
  await consumer.ready
  await clock.advance(endMs - clock.now())
  const handledBefore = source.handled.size
  const healthy = offsets(0, MESSAGES).filter((offset) => !deadHost(offset))
  while (healthy.some((offset) => !source.handled.has(offset)) && clock.now() < endMs + 60 * MINUTE_MS)
    await clock.advance(250)
  const drainedMs = clock.now() - endMs
  const closed = consumer.close()
  await clock.advance(MINUTE_MS)
  await closed
  const { logger } = environment
  const openings = logger.matching('warn', 'A breaker opened').length
  return { source, downstream, startMs, endMs, handledBefore, healthy, drainedMs, openings, logger }
}

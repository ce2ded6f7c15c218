/**
 * A downstream that is away for twenty minutes, on a virtual clock: what it costs the messages that wait for it, and
 * what it is asked meanwhile.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { readBreaker } from '../../src/consumer/breaker/settings.ts'
import { type ConsumerSettings, EventLoopWatch, type Handlers, startConsumer } from '../../src/consumer/consumer.ts'
import type { Grant, LeaseId, Settlement } from '../../src/engine.ts'
import { type Environment, pause, type Random, seededRandom } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { engineOf, FakeSource, grantOf, offsetsIn, type Pull, settleDown } from './fake-source.ts'
import { defaultSettings, RecordingLogger } from './harness.ts'

const MINUTE_MS = 60_000
const OUTAGE_MS = 20 * MINUTE_MS
const MESSAGES = 10_000
const RANGE = 500

/** Grants so many messages in ranges, retries when they are due, and keeps account of what became of them. */
class CountingSource extends FakeSource {
  readonly handled = new Set<number>()
  readonly attempts = new Map<number, number>()
  dead = 0
  readonly #clock: VirtualClock
  #next = 0
  #lease = 0

  constructor(clock: VirtualClock) {
    super()
    this.#clock = clock
  }

  override async pull(limits: Pull, signal: AbortSignal): Promise<readonly Grant[]> {
    if (this.#next === MESSAGES) return super.pull(limits, signal)
    const from = this.#next
    this.#next = Math.min(MESSAGES, from + limits.messagesMax, from + RANGE)
    return [this.#grant(Array.from({ length: this.#next - from }, (_, index) => from + index))]
  }

  override async settle(settlements: readonly Settlement[]): Promise<readonly LeaseId[]> {
    for (const { acked, exceptions } of settlements) {
      for (const offset of offsetsIn(acked)) this.handled.add(offset)
      for (const exception of exceptions) {
        if (exception.kind === 'retry') this.#retry(exception.offset, exception.dueAtMs)
        else if (exception.kind === 'dead') this.dead++
        else this.offer(this.#grant([exception.offset]))
      }
    }
    return []
  }

  #retry(offset: number, dueAtMs: number): void {
    this.attempts.set(offset, (this.attempts.get(offset) ?? 1) + 1)
    this.#clock.setTimer(dueAtMs - this.#clock.now(), () => this.offer(this.#grant([offset])))
  }

  #grant(offsets: readonly number[]): Grant {
    return grantOf(offsets, { lease: ++this.#lease, attempt: this.attempts.get(offsets[0]!) ?? 1 })
  }
}

/** Something that handlers call, which takes 5 to 45 ms to answer, or to refuse. */
class Downstream {
  readonly callsAtMs: number[] = []
  readonly runningAtStart: { atMs: number; running: number }[] = []
  #running = 0
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #refuses: (nowMs: number) => boolean

  constructor(clock: VirtualClock, random: Random, refuses: (nowMs: number) => boolean) {
    this.#clock = clock
    this.#random = random
    this.#refuses = refuses
  }

  async call(): Promise<void> {
    this.callsAtMs.push(this.#clock.now())
    this.runningAtStart.push({ atMs: this.#clock.now(), running: ++this.#running })
    await pause(this.#clock, 5 + Math.floor(this.#random.number() * 40))
    this.#running--
    if (this.#refuses(this.#clock.now())) throw Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })
  }

  callsBetween(fromMs: number, untilMs: number): number {
    return this.callsAtMs.filter((atMs) => atMs >= fromMs && atMs < untilMs).length
  }
}

async function simulate(
  seed: number,
  handlersOf: (downstream: Downstream) => Handlers,
  changes: Partial<ConsumerSettings>,
) {
  const clock = new VirtualClock()
  const startMs = clock.now() + 200
  const endMs = startMs + OUTAGE_MS
  const random = seededRandom(seed)
  const environment = { clock, random, logger: new RecordingLogger() } satisfies Environment
  const source = new CountingSource(clock)
  const downstream = new Downstream(clock, seededRandom(seed + 1), (nowMs) => nowMs >= startMs && nowMs < endMs)
  const settings = { ...defaultSettings, ...changes }
  const watch = new EventLoopWatch(environment)
  const consumer = startConsumer(engineOf(source), environment, settings, handlersOf(downstream), watch)
  await consumer.ready
  await clock.advance(endMs - clock.now())
  const handledBefore = source.handled.size
  for (let minute = 0; minute < 5 && source.handled.size < MESSAGES; minute++) await clock.advance(MINUTE_MS)
  await consumer.close()
  await settleDown()
  return { source, downstream, startMs, endMs, handledBefore, logger: environment.logger }
}

const breaker = readBreaker(true)!
const single = (downstream: Downstream): Handlers => ({ handle: () => downstream.call() })
const batched = (downstream: Downstream): Handlers => ({ handleBatch: () => downstream.call() })

describe('twenty minutes without the downstream', () => {
  for (const [kind, handlersOf, changes] of [
    ['single', single, { breaker }],
    ['batch', batched, { breaker, batch: { size: 10, waitMs: 20 } }],
  ] as const) {
    for (const seed of [1, 2, 3]) {
      test(`cost no message an attempt (${kind} handlers, seed ${seed})`, async () => {
        const run = await simulate(seed, handlersOf, changes)
        assert.ok(run.handledBefore > 0 && run.handledBefore < MESSAGES, 'it went away in the middle')
        assert.equal(run.source.handled.size, MESSAGES)
        assert.equal(run.source.dead, 0)
        assert.deepEqual([...run.source.attempts], [], 'every message was handled at its first attempt')

        // At most what was running, and then a probe at each of 1, 2, 4, 8 and 16 s, and each 30 s, half of it off.
        const during = run.downstream.callsBetween(run.startMs, run.endMs)
        assert.ok(during <= 2 * 10 + 10 + OUTAGE_MS / 15_000, `${during} calls while it was away`)
        const [first, ...later] = run.downstream.runningAtStart.filter(({ atMs }) => atMs >= run.endMs)
        assert.equal(first?.running, 1)
        const peaks = later.slice(0, 15).map(({ running }) => running)
        assert.ok(Math.max(...peaks.slice(0, 2)) <= 2, `it was begun with little: ${peaks}`)
        assert.equal(Math.max(...later.map(({ running }) => running)), 10)
        assert.equal(run.source.breakerReports.at(-1), undefined)
        assert.equal(run.logger.matching('warn', 'A breaker opened').length, 1)
        assert.equal(run.logger.matching('info', 'A breaker closed').length, 1)
      })
    }
  }

  test('without a breaker cost them everything', async () => {
    const run = await simulate(1, single, {})
    assert.ok(run.source.dead > MESSAGES / 2)
  })
})

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Discard } from '../../src/consumer/outcomes.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { boundedShrinking } from '../model/bounded-shrinking.ts'
import { settleDown } from './fake-source.ts'
import { defaultSettings, type Rig, START_MS, startRigOn } from './harness.ts'
import { OrderedEngine } from './ordered-engine.ts'

const KEYS = ['a', 'b', 'c', undefined] as const

interface Story {
  readonly keys: readonly (string | undefined)[]
  /** What happens, step by step. */
  readonly steps: readonly Step[]
  readonly onExhausted: 'dead-letter' | 'block'
  readonly attempts: number
  readonly late: 'recorded' | 'answered' | undefined
  readonly concurrency: number
  readonly grantMax: number
  readonly limited: boolean
  readonly batched: boolean
}

const RARE_STEPS = [
  'discard',
  'pass time',
  'refuse settlement',
  'lose session',
  'restart',
  'cancel',
  'skip',
  'redrive',
] as const

type Step = 'succeed' | 'fail' | (typeof RARE_STEPS)[number]

const stories: fc.Arbitrary<Story> = fc.record({
  keys: fc.array(fc.constantFrom(...KEYS), { minLength: 1, maxLength: 24, size: 'max' }),
  steps: fc.array(
    fc.oneof(
      { weight: 12, arbitrary: fc.constant('succeed' as const) },
      { weight: 5, arbitrary: fc.constant('fail' as const) },
      { weight: 8, arbitrary: fc.constantFrom(...RARE_STEPS) },
    ),
    { maxLength: 60, size: 'max' },
  ),
  onExhausted: fc.constantFrom('dead-letter', 'block'),
  attempts: fc.integer({ min: 1, max: 3 }),
  late: fc.constantFrom('recorded', 'answered', undefined),
  concurrency: fc.integer({ min: 1, max: 5 }),
  grantMax: fc.integer({ min: 1, max: 8 }),
  limited: fc.boolean(),
  batched: fc.boolean(),
})

async function tell(story: Story): Promise<void> {
  const world = new World(story)
  await world.start()
  for (const step of story.steps) await world.take(step)
  await world.finish()
}

describe('an ordered subscription, whatever happens', () => {
  test('begins no message before the earlier ones of its key are settled for good, and settles all of them', async () => {
    await fc.assert(fc.asyncProperty(stories, boundedShrinking(tell)), { numRuns: 300 })
  })
})

interface Call {
  readonly offset: number
  end(thrown?: unknown): void
}

class World {
  readonly #clock = new VirtualClock(START_MS)
  readonly #engine: OrderedEngine
  readonly #story: Story
  #rig: Rig | undefined
  #calls: Call[] = []
  #turn = 0
  readonly #faults: string[] = []

  constructor(story: Story) {
    this.#story = story
    this.#engine = new OrderedEngine(this.#clock, story.keys)
    this.#engine.grantMax = story.grantMax
    this.#engine.late = story.late
  }

  async start(): Promise<void> {
    const { onExhausted, attempts, concurrency, limited, batched } = this.#story
    const handlers = batched
      ? {
          handleBatch: (events: readonly { data: unknown }[]) => this.#handle(events.map(({ data }) => data as number)),
        }
      : { handle: ({ data }: { data: unknown }) => this.#handle([data as number]) }
    this.#rig = await startRigOn(this.#engine, handlers, this.#clock, {
      ...defaultSettings,
      ordered: { onExhausted },
      retry: { ...defaultSettings.retry, attempts },
      concurrency,
      limits: limited ? [{ kind: 'inFlight', name: 'in-flight', limit: 100, by: ({ subject }) => subject ?? '' }] : [],
      ...(batched ? { batch: { size: 3, waitMs: 0 } } : {}),
    })
    await this.#calm()
  }

  async take(step: Step): Promise<void> {
    switch (step) {
      case 'succeed':
        this.#endOne()
        break
      case 'fail':
        this.#endOne(new Error('no'))
        break
      case 'discard':
        this.#endOne(new Discard('never'))
        break
      case 'pass time':
        await this.#clock.advance(1_500)
        break
      case 'refuse settlement':
        this.#engine.refusals++
        break
      case 'lose session':
        this.#engine.loseSession()
        break
      case 'restart':
        await this.#close()
        await this.start()
        break
      case 'cancel':
        this.#cancelOne()
        break
      case 'skip':
        this.#engine.skip()
        break
      case 'redrive':
        this.#engine.redrive()
    }
    await this.#calm()
  }

  /** Lets everything succeed that is not skipped, and closes. */
  async finish(): Promise<void> {
    for (let round = 0; round < 200 && !this.#engine.done; round++) {
      while (this.#engine.skip());
      while (this.#calls.length > 0) this.#endOne()
      await this.#clock.advance(1_500)
      await this.#calm()
    }
    await this.#close()
    assert.deepEqual(this.#faults, [])
    assert.ok(this.#engine.done, `not settled: ${this.#rest()}`)
  }

  #rest(): string {
    const offsets = this.#story.keys.flatMap((key, offset) =>
      this.#engine.settled.has(offset) ? [] : `${offset} of ${key}`,
    )
    return `${offsets.join(', ')}; rows ${JSON.stringify([...this.#engine.rows.values()])}`
  }

  #handle(offsets: readonly number[]): Promise<void> {
    for (const offset of offsets) this.#checkTurn(offset)
    return new Promise((resolve, reject) => {
      const call: Call = {
        offset: offsets[0]!,
        end: (thrown) => {
          this.#calls = this.#calls.filter((other) => other !== call)
          if (thrown === undefined) resolve()
          else reject(thrown)
        },
      }
      this.#calls.push(call)
    })
  }

  // What a handler throws would be taken for its failure.
  #checkTurn(offset: number): void {
    const key = this.#story.keys[offset]
    if (key === undefined) return
    for (let earlier = 0; earlier < offset; earlier++) {
      if (this.#story.keys[earlier] !== key) continue
      if (!this.#engine.settled.has(earlier))
        this.#faults.push(`${offset} of ${key} began before ${earlier} was settled`)
    }
  }

  #endOne(thrown?: unknown): void {
    this.#calls[this.#turn++ % Math.max(1, this.#calls.length)]?.end(thrown)
  }

  #cancelOne(): void {
    const waiting = this.#story.keys.findIndex((_, offset) => !this.#engine.settled.has(offset))
    this.#engine.cancelOffset(waiting + (this.#turn++ % 3))
  }

  async #close(): Promise<void> {
    const closed = this.#rig!.consumer.close()
    await this.#calm()
    while (this.#calls.length > 0) this.#endOne()
    await this.#clock.advance(30_000)
    await closed
  }

  async #calm(): Promise<void> {
    this.#engine.wake()
    await settleDown()
    await this.#clock.advance(0)
  }
}

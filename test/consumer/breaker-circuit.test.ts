import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { Circuit, type Evidence } from '../../src/consumer/breaker/circuit.ts'
import { seededRandom } from '../../src/environment/index.ts'

const settings = { threshold: 3, concurrency: 10, probe: { delayMs: 1_000, maxMs: 8_000 } }
/** No jitter. */
const steady = { number: () => 0, fill: () => {} }

function circuitOf(changes: Partial<typeof settings> = {}): Circuit {
  return new Circuit({ ...settings, ...changes }, steady)
}

/** Starts a run and ends it. */
function run(circuit: Circuit, evidence: Evidence, nowMs: number, retryAfterMs?: number): void {
  assert.ok(circuit.mayStart(nowMs))
  circuit.end(circuit.start(), evidence, nowMs, retryAfterMs)
}

function opened(changes: Partial<typeof settings> = {}): Circuit {
  const circuit = circuitOf({ threshold: 1, ...changes })
  run(circuit, 'outage', 0)
  assert.equal(circuit.state, 'open')
  return circuit
}

describe('a circuit', () => {
  test('opens at so many outages in a row', () => {
    const circuit = circuitOf()
    for (const evidence of ['outage', 'outage', 'alive', 'outage', 'none', 'outage'] as const) run(circuit, evidence, 0)
    assert.equal(circuit.state, 'closed')
    run(circuit, 'outage', 0)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.mayStart(999), false)
    assert.equal(circuit.mayStart(1_000), true)
  })

  test('lets one probe run, and then twice as many at once after each round that went well', () => {
    const circuit = opened()
    const probe = circuit.start()
    assert.equal(circuit.mayStart(1_000), false)
    circuit.end(probe, 'alive', 1_000)
    const rounds: number[] = []
    while (circuit.state !== 'closed') {
      const runs: number[] = []
      while (circuit.mayStart(1_000)) runs.push(circuit.start())
      rounds.push(runs.length)
      for (const one of runs) circuit.end(one, 'alive', 1_000)
    }
    assert.deepEqual(rounds, [1, 2, 4, 8])
    assert.equal(circuit.state, 'closed')
  })

  test('closes with the probe when one at once is all there is', () => {
    const circuit = opened({ concurrency: 1 })
    run(circuit, 'alive', 1_000)
    assert.equal(circuit.state, 'closed')
  })

  test('waits twice as long after each probe that fails, up to the longest delay, and starts over once it closed', () => {
    const circuit = opened({ concurrency: 1 })
    let nowMs = 0
    for (const delayMs of [1_000, 2_000, 4_000, 8_000, 8_000]) {
      assert.equal(circuit.probeAtMs, nowMs + delayMs)
      nowMs = circuit.probeAtMs
      run(circuit, 'outage', nowMs)
    }
    run(circuit, 'alive', circuit.probeAtMs)
    run(circuit, 'outage', 100_000)
    assert.equal(circuit.probeAtMs, 101_000)
  })

  test('waits twice as long when it opens while ramping', () => {
    const circuit = opened()
    run(circuit, 'alive', 1_000)
    assert.equal(circuit.state, 'ramping')
    run(circuit, 'outage', 1_000)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.probeAtMs, 3_000)
  })

  test('takes up to a half off each delay', () => {
    const circuit = new Circuit({ ...settings, threshold: 1 }, { number: () => 0.5, fill: () => {} })
    run(circuit, 'outage', 0)
    assert.equal(circuit.probeAtMs, 750)
  })

  test('probes again at once when a probe told nothing', () => {
    const circuit = opened()
    run(circuit, 'none', 1_000)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.mayStart(1_000), true)
  })

  test('is not opened while ramping by messages that fail for themselves, unless they are many in a row', () => {
    const circuit = circuitOf({ threshold: 2 })
    for (const evidence of ['outage', 'outage'] as const) run(circuit, evidence, 0)
    run(circuit, 'alive', 1_000)
    for (const evidence of ['repeated', 'alive', 'repeated'] as const) run(circuit, evidence, 1_000)
    assert.equal(circuit.state, 'ramping')
    run(circuit, 'repeated', 1_000)
    assert.equal(circuit.state, 'open')
  })

  test('heeds Retry-After, also of outages before the one that opened it and of runs from before', () => {
    const circuit = circuitOf({ threshold: 2 })
    const late = circuit.start()
    run(circuit, 'outage', 0, 5_000)
    run(circuit, 'outage', 100)
    assert.equal(circuit.probeAtMs, 5_000)
    circuit.end(late, 'outage', 200, 60_000)
    assert.equal(circuit.probeAtMs, 60_200)
  })

  test('forgets a Retry-After when it hears a sign of life', () => {
    const circuit = circuitOf({ threshold: 2 })
    for (const evidence of ['outage', 'alive', 'outage', 'outage'] as const) run(circuit, evidence, 0, 5_000)
    assert.equal(circuit.probeAtMs, 5_000)
    const other = circuitOf({ threshold: 2 })
    run(other, 'outage', 0, 5_000)
    run(other, 'alive', 0)
    for (const evidence of ['outage', 'outage'] as const) run(other, evidence, 0)
    assert.equal(other.probeAtMs, 1_000)
  })

  test('is moved neither way by runs from before it opened', () => {
    const circuit = circuitOf({ threshold: 1 })
    const [first, second, third] = [circuit.start(), circuit.start(), circuit.start()]
    run(circuit, 'outage', 0)
    circuit.end(first, 'alive', 10)
    assert.equal(circuit.state, 'open')
    const probe = circuit.start()
    circuit.end(second, 'outage', 1_000)
    assert.equal(circuit.state, 'half-open')
    circuit.end(third, 'alive', 1_000)
    assert.equal(circuit.state, 'half-open')
    circuit.end(probe, 'alive', 1_000)
    assert.equal(circuit.state, 'ramping')
  })
})

type Step =
  | { readonly start: true }
  | { readonly pick: number; readonly evidence: Evidence }
  | { readonly waitMs: number }

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.constant({ start: true as const }) },
    {
      weight: 4,
      arbitrary: fc.record({
        pick: fc.nat({ max: 1_000 }),
        evidence: fc.constantFrom<Evidence>('alive', 'outage', 'outage', 'repeated', 'none'),
      }),
    },
    { weight: 1, arbitrary: fc.record({ waitMs: fc.nat({ max: 10_000 }) }) },
  ),
  { maxLength: 300 },
)

describe('whatever happens to a circuit', () => {
  test('it opens for a reason, and lets no more start than it says', () => {
    fc.assert(
      fc.property(
        steps,
        fc.nat(),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 20 }),
        (list, seed, threshold, concurrency) => {
          play(list, new Circuit({ ...settings, threshold, concurrency }, seededRandom(seed)), {
            threshold,
            concurrency,
          })
        },
      ),
      { numRuns: 500 },
    )
  })
})

interface Bounds {
  readonly threshold: number
  readonly concurrency: number
}

/** Drives the circuit as a runner does, and compares it with what was seen from outside. */
function play(list: readonly Step[], circuit: Circuit, { threshold, concurrency }: Bounds): void {
  let nowMs = 0
  let inRow = 0
  let openedAfter = 0
  const running: number[] = []
  for (const step of list) {
    const before = circuit.state
    if ('waitMs' in step) nowMs += step.waitMs
    else if ('start' in step) {
      if (running.length >= concurrency || !circuit.mayStart(nowMs)) continue
      if (before === 'open') assert.ok(nowMs >= circuit.probeAtMs, 'nothing starts before its time')
      running.push(circuit.start())
    } else if (running.length > 0) {
      const [ended] = running.splice(step.pick % running.length, 1) as [number]
      circuit.end(ended, step.evidence, nowMs)
      const fresh = ended > openedAfter
      const failed = step.evidence === 'outage' || step.evidence === 'repeated'
      if (!fresh) assert.equal(circuit.state, before, 'runs from before change nothing')
      if (fresh && step.evidence === 'alive') inRow = 0
      if (fresh && failed) inRow++
      if (before === 'closed') assert.equal(circuit.state === 'open', inRow >= threshold, 'opens at the threshold')
      if (before !== 'open' && circuit.state === 'open') {
        openedAfter = circuit.started
        if (step.evidence === 'outage' || inRow >= threshold) inRow = 0
      }
      if (before !== 'closed' && circuit.state === 'closed') assert.equal(step.evidence, 'alive', 'only success closes')
    }
    const fresh = running.filter((number) => number > openedAfter).length
    if (circuit.state === 'half-open') assert.equal(fresh, 1, 'one probe runs')
    if (circuit.state === 'ramping') assert.ok(fresh <= circuit.allowed && circuit.allowed < concurrency)
    if (circuit.state === 'open') assert.equal(fresh, 0, 'nothing runs that started since')
  }
}

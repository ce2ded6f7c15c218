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
  const { threshold = 1 } = changes
  return openedAfter(threshold, changes)
}

function openedAfter(threshold: number, changes: Partial<typeof settings> = {}): Circuit {
  const circuit = circuitOf({ ...changes, threshold })
  for (let failed = 0; failed < threshold; failed++) run(circuit, 'outage', 0)
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

  test('opens while ramping at as many outages in a row as are allowed at once, at two at least', () => {
    const circuit = openedAfter(5)
    run(circuit, 'alive', 1_000)
    assert.equal(circuit.allowed, 1)
    for (const evidence of ['outage', 'alive', 'alive', 'alive'] as const) run(circuit, evidence, 1_000)
    assert.equal(circuit.allowed, 4)
    for (const evidence of ['outage', 'outage', 'outage', 'alive', 'outage', 'outage', 'outage'] as const) {
      run(circuit, evidence, 1_000)
    }
    assert.equal(circuit.state, 'ramping')
    run(circuit, 'outage', 1_000)
    assert.equal(circuit.state, 'open')
  })

  test('opens while ramping at its threshold, where that is less', () => {
    const circuit = openedAfter(2)
    for (const evidence of ['alive', 'alive', 'alive', 'alive', 'outage'] as const) run(circuit, evidence, 1_000)
    assert.equal(circuit.allowed, 4)
    run(circuit, 'outage', 1_000)
    assert.equal(circuit.state, 'open')
  })

  test('is opened by messages that have failed before only when many fail in a row, for long', () => {
    for (const [atMs, state] of [
      [4_999, 'closed'],
      [5_000, 'open'],
    ] as const) {
      const circuit = circuitOf()
      for (let failed = 0; failed < 29; failed++) run(circuit, 'repeated', 0)
      run(circuit, 'repeated', atMs)
      assert.equal(circuit.state, state)
    }
    const few = circuitOf()
    for (let failed = 0; failed < 29; failed++) run(few, 'repeated', failed * 1_000)
    assert.equal(few.state, 'closed')
    run(few, 'alive', 29_000)
    run(few, 'repeated', 30_000)
    assert.equal(few.state, 'closed')
  })

  test('does not count these among the others', () => {
    const circuit = circuitOf()
    for (const evidence of ['outage', 'repeated', 'repeated', 'outage', 'repeated'] as const) run(circuit, evidence, 0)
    assert.equal(circuit.state, 'closed')
    run(circuit, 'outage', 0)
    assert.equal(circuit.state, 'open')
  })

  test('probes again at once when the probe had failed before, but not for ever', () => {
    const circuit = opened({ threshold: 2 })
    for (let failed = 0; failed < 3; failed++) run(circuit, 'repeated', 1_000)
    assert.equal(circuit.mayStart(1_000), true)
    run(circuit, 'repeated', 1_000)
    assert.equal(circuit.mayStart(1_000), false)
    assert.equal(circuit.probeAtMs, 3_000)
  })

  test('heeds the Retry-After of a message that has failed before only when it opens with it', () => {
    const circuit = opened({ threshold: 2 })
    for (let failed = 0; failed < 3; failed++) run(circuit, 'repeated', 1_000, 600_000)
    run(circuit, 'outage', 1_000)
    assert.equal(circuit.probeAtMs, 3_000)
    for (let failed = 0; failed < 4; failed++) run(circuit, 'repeated', 3_000, 60_000)
    assert.equal(circuit.probeAtMs, 63_000)
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
  let repeated: number[] = []
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
      if (!fresh) assert.equal(circuit.state, before, 'runs from before change nothing')
      if (fresh && step.evidence === 'alive') [inRow, repeated] = [0, []]
      if (fresh && step.evidence === 'outage') inRow++
      if (fresh && step.evidence === 'repeated') repeated.push(nowMs)
      const long = repeated.length >= 10 * threshold && nowMs - repeated[0]! >= 5_000
      const enough = (step.evidence === 'outage' && inRow >= threshold) || (step.evidence === 'repeated' && long)
      if (before === 'closed' && fresh) assert.equal(circuit.state === 'open', enough, 'opens at the threshold')
      if (before === 'half-open' && fresh && step.evidence === 'outage') assert.equal(circuit.state, 'open')
      const several = inRow >= Math.min(threshold, 2)
      if (before === 'ramping' && circuit.state === 'open') assert.ok(several || long, 'not at a single failure')
      if (before !== 'open' && circuit.state === 'open') {
        openedAfter = circuit.started
        // With a probe that told nothing it is open again, but its row goes on.
        if (circuit.failures === 0) [inRow, repeated] = [0, []]
      }
      if (before !== 'closed' && circuit.state === 'closed') assert.equal(step.evidence, 'alive', 'only success closes')
    }
    const fresh = running.filter((number) => number > openedAfter).length
    if (circuit.state === 'half-open') assert.equal(fresh, 1, 'one probe runs')
    if (circuit.state === 'ramping') assert.ok(fresh <= circuit.allowed && circuit.allowed < concurrency)
    if (circuit.state === 'open') assert.equal(fresh, 0, 'nothing runs that started since')
  }
}

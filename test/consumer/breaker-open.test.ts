import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { pause } from '../../src/environment/index.ts'
import { advance, PROBE_MS, refuse, refused, startGuarded, succeed } from './breaker-rig.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS } from './harness.ts'

describe('an open breaker', () => {
  test('starts nothing until its probe, and then one after the other, uncounted', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 2 }, { concurrency: 4 })
    const { source, consumer } = rig
    source.offer(grantOf(offsets(0, 8)))
    await settleDown()
    await refuse(handler, 1, 0)
    assert.deepEqual(handler.started, [0, 1, 2, 3, 4])
    await refuse(handler, 4, 3, 2)
    await advance(rig, PROBE_MS - 1)
    assert.equal(handler.calls.length, 5)
    await advance(rig, 1)
    assert.equal(handler.calls.length, 6)
    await advance(rig, 10_000)
    assert.equal(handler.calls.length, 6, 'one probe at once')
    const probe = handler.started[5] as number
    await refuse(handler, probe)
    await advance(rig, 2 * PROBE_MS)
    assert.equal(handler.calls.length, 7)
    assert.notEqual(handler.started[6], probe, 'the next probe is another message')
    assert.deepEqual(source.settlements, [])
    for (let ended = 6; ended < handler.calls.length; ended++) await succeed(handler, handler.started[ended] as number)
    assert.deepEqual(source.acked(), offsets(0, 8))
    assert.deepEqual(source.verdicts(), [])
    await consumer.close()
  })

  test('lets more and more run once a probe has worked', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 6 })
    rig.source.offer(grantOf(offsets(0, 100)))
    await settleDown()
    await refuse(handler, ...offsets(0, 6))
    await advance(rig, PROBE_MS)
    const rounds: number[] = []
    for (let ended = 6; rounds.length < 5; ) {
      const running = handler.started.slice(ended) as number[]
      ended = handler.calls.length
      rounds.push(running.length)
      await succeed(handler, ...running)
    }
    // While one round ends, what is free of it starts the next.
    assert.deepEqual(rounds.slice(0, 3), [1, 1, 2])
    assert.equal(rounds.at(-1), 6)
    assert.equal(rig.logger.matching('info', 'A breaker closed').length, 1)
    const running = handler.started.slice(-6) as number[]
    void rig.consumer.close()
    await succeed(handler, ...running)
  })

  test('tells operators how it is', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 2 })
    const { source } = rig
    source.offer(grantOf([0, 1, 2]))
    await settleDown()
    await refuse(handler, 0)
    await advance(rig, PROBE_MS)
    await refuse(handler, 0)
    await advance(rig, 2 * PROBE_MS)
    const reason = 'connect ECONNREFUSED'
    const common = { openedAtMs: START_MS, reason }
    assert.deepEqual(source.breakerReports, [
      { ...common, state: 'open', probeAtMs: START_MS + PROBE_MS },
      { ...common, state: 'half-open' },
      { ...common, state: 'open', probeAtMs: START_MS + 3 * PROBE_MS },
      { ...common, state: 'half-open' },
    ])
    const { lines } = rig.logger
    const opened = lines.find(({ message }) => message.startsWith('A breaker opened'))
    assert.equal(opened?.level, 'warn')
    const place = { topic: 'orders', subscription: 'billing' }
    assert.deepEqual(opened?.fields, { ...place, failures: 1, reason, retryInMs: PROBE_MS, code: 'ECONNREFUSED' })
    await succeed(handler, handler.started.at(-1) as number)
    await succeed(handler, handler.started.at(-1) as number)
    assert.deepEqual(source.breakerReports.slice(4), [{ ...common, state: 'ramping' }, undefined])
    void rig.consumer.close()
    await succeed(handler, 1, ...(handler.started.slice(-1) as number[]))
  })

  test('has at most one report under way, and minds none that fails', async () => {
    const handler = new HeldHandler()
    const rig = await startGuarded({ handle: handler.handle }, { threshold: 1 }, { concurrency: 1 })
    const { source, consumer, logger } = rig
    const answers: PromiseWithResolvers<void>[] = []
    source.reportBreaker = (report) => {
      source.breakerReports.push(report)
      answers.push(Promise.withResolvers<void>())
      return answers.at(-1)!.promise
    }
    source.offer(grantOf([0]))
    await settleDown()
    await refuse(handler, 0)
    await advance(rig, PROBE_MS)
    await succeed(handler, 0)
    assert.deepEqual(
      source.breakerReports.map((report) => report?.state),
      ['open'],
    )
    answers[0]!.reject(new Error('no connection'))
    await settleDown()
    assert.deepEqual(
      source.breakerReports.map((report) => report?.state),
      ['open', undefined],
    )
    assert.equal(logger.matching('debug', 'no connection').length, 1)
    await consumer.close()
  })

  test('fetches no more than it may hold', async () => {
    const rig = await startGuarded({ handle: () => Promise.reject(refused()) }, { threshold: 1 }, { concurrency: 2 })
    rig.source.offer(grantOf(offsets(0, 2_048)))
    await settleDown()
    const pulls = rig.source.pulls.length
    await advance(rig, 60_000)
    assert.equal(rig.source.pulls.length, pulls)
    await rig.consumer.close()
  })

  test('closes with its consumer at once', async () => {
    const rig = await startGuarded({ handle: () => Promise.reject(refused()) }, { threshold: 1 })
    rig.source.offer(grantOf([0, 1, 2]))
    await settleDown()
    const reports = rig.source.breakerReports.length
    await rig.consumer.close()
    assert.equal(rig.source.closes, 1)
    assert.deepEqual(rig.source.settlements, [])
    await advance(rig, 3_600_000)
    assert.equal(rig.source.breakerReports.length, reports)
  })

  test('is kept open by timeouts, of which the first ones open it', async () => {
    const rig = await startGuarded({ handle: () => new Promise(() => {}) }, { threshold: 2 }, { timeoutMs: 5_000 })
    rig.source.offer(grantOf([0, 1, 2]))
    await advance(rig, 5_000)
    assert.equal(rig.logger.matching('warn', 'A breaker opened').length, 1)
    await advance(rig, 60_000)
    assert.deepEqual(rig.source.verdicts(), [])
    await rig.consumer.close()
  })

  test('does not end a probe with a message that no handler saw', async () => {
    const checked: unknown[] = []
    const handled: unknown[] = []
    let works = false
    const rig = await startGuarded(
      {
        checkEvent: (event) => {
          checked.push(event.data)
          if (event.data === 1 && works) throw new Error('it has no name')
          return event
        },
        handle: (event) => {
          handled.push(event.data)
          if (!works) throw refused()
        },
      },
      { threshold: 2 },
      { concurrency: 2 },
    )
    rig.source.offer(grantOf([1, 0]), grantOf([2]))
    await settleDown()
    works = true
    await advance(rig, PROBE_MS)
    assert.deepEqual(rig.source.verdicts(), ['1 dead invalid'])
    assert.deepEqual(rig.source.acked(), [0, 2])
    assert.equal(rig.source.breakerReports.at(-1), undefined)
    assert.equal(rig.logger.matching('info', 'A breaker closed').length, 1)
    await rig.consumer.close()
  })
})

describe('one message that always fails like an outage', () => {
  test('is given up by its attempts, while the others are handled', async () => {
    const seen: unknown[] = []
    const rig = await startGuarded(
      {
        handle: async (event) => {
          seen.push(event.data)
          if (event.data === 0) throw refused()
        },
      },
      { threshold: 1 },
      { concurrency: 4 },
    )
    rig.source.offer(grantOf(offsets(0, 50)))
    await advance(rig, 60_000)
    assert.deepEqual(rig.source.acked(), offsets(1, 50))
    assert.deepEqual(rig.source.verdicts(), ['0 retry'])
    assert.ok(seen.filter((offset) => offset === 0).length <= 3)
    await rig.consumer.close()
  })
})

describe('messages that always fail like an outage, among others that work', () => {
  test('are given up by their attempts, and keep nothing from being handled, whatever the order', async () => {
    const messages = fc.array(fc.record({ fails: fc.boolean(), takesMs: fc.nat({ max: 3_000 }) }), {
      minLength: 1,
      maxLength: 40,
    })
    const limits = fc.record({ concurrency: fc.integer({ min: 1, max: 8 }), threshold: fc.integer({ min: 1, max: 6 }) })
    await fc.assert(
      fc.asyncProperty(messages, limits, async (list, { concurrency, threshold }) => {
        let calls = 0
        const { source, consumer, clock } = await startGuarded(
          {
            handle: async (event) => {
              calls++
              const message = list[event.data as number]
              await pause(clock, message?.takesMs ?? 0)
              if (message?.fails) throw refused()
            },
          },
          { threshold },
          { concurrency },
        )
        source.offer(grantOf(offsets(0, list.length)))
        // One that works comes along from time to time.
        for (let more = 0; more < 5; more++) {
          await clock.advance(120_000)
          source.offer(grantOf([1_000 + more]))
        }
        await clock.advance(120_000)
        const closed = consumer.close()
        await clock.advance(20_000)
        await closed
        const failing = offsets(0, list.length).filter((offset) => list[offset]!.fails)
        const working = offsets(0, list.length).filter((offset) => !list[offset]!.fails)
        assert.deepEqual(source.acked(), [...working, ...offsets(1_000, 1_005)])
        assert.deepEqual(
          source
            .exceptions()
            .map(({ offset, kind }) => `${offset} ${kind}`)
            .sort(),
          failing.map((offset) => `${offset} retry`).sort(),
        )
        assert.ok(calls <= working.length + 5 + 20 * failing.length, `${calls} calls`)
      }),
      { numRuns: 60 },
    )
  })
})

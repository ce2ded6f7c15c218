import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { StoredEvent } from '../../src/engine.ts'
import { pause } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'
import { grantOf, keyedGrant, offsets, settleDown } from './fake-source.ts'
import { HeldHandler, START_MS } from './harness.ts'
import { byTenant, inFlight, rate, recorder, sharedBy, startLimited } from './limited-rig.ts'

describe('buckets', () => {
  test('share the handlers: one with many messages does not keep the others waiting', async () => {
    const clock = new VirtualClock(START_MS)
    const { starts, handle } = recorder(clock)
    const { source, consumer } = await startLimited([inFlight(100, { by: byTenant })], { handle }, { concurrency: 1 })
    source.offer(keyedGrant(0, [...Array.from({ length: 50 }, () => 'noisy'), 'b', 'c', 'b']))
    await settleDown()
    const order = starts.map(({ tenant }) => tenant)
    assert.equal(order.length, 53)
    assert.ok(order.indexOf('b') <= 3 && order.indexOf('c') <= 3, order.join(' '))
    assert.ok(order.lastIndexOf('b') <= 6, order.join(' '))
    await consumer.close()
  })

  test('have limits of their own, each in all of its limits', async () => {
    const handler = new HeldHandler()
    const limits = [inFlight(3), inFlight(1, { name: 'each', by: byTenant })]
    const { source, consumer } = await startLimited(limits, { handle: handler.handle })
    source.offer(keyedGrant(0, ['a', 'a', 'b', 'b', 'c', 'd']))
    await settleDown()
    assert.deepEqual(handler.started.toSorted(), [0, 2, 4])
    handler.of(2).resolve()
    await settleDown()
    assert.deepEqual(handler.started.toSorted().length, 4)
    const closed = consumer.close()
    for (const call of handler.calls) call.resolve()
    await closed
  })

  test('that cannot be told make a dead letter', async () => {
    const by = ({ data }: StoredEvent) => {
      if (data === 0) throw new Error('no tenant')
      return (data === 1 ? 7 : 'a') as string
    }
    const { source, consumer } = await startLimited([inFlight(5, { by })], { handle: () => {} })
    source.offer(grantOf([0, 1, 2]))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead invalid', '1 dead invalid'])
    assert.deepEqual(source.acked(), [2])
    await consumer.close()
  })

  test('that are promised for later make a dead letter that says so', async () => {
    const by = (({ data }: StoredEvent) => Promise.reject(new Error(`no ${data}`))) as unknown as () => string
    const { source, consumer, logger } = await startLimited([inFlight(5, { by })], { handle: () => {} })
    source.offer(grantOf([0]))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead invalid'])
    assert.equal(logger.matching('warn', 'limit in-flight gave a promise; it has to return a string at once').length, 1)
    await consumer.close()
  })

  test("a crowd over its limit is set aside until about its turn, so that others' messages are fetched", async () => {
    const clock = new VirtualClock(START_MS)
    const { starts, handle } = recorder(clock)
    const { source, consumer } = await startLimited([rate(100, { by: byTenant })], { handle }, {}, sharedBy(clock))
    source.offer(
      keyedGrant(
        0,
        Array.from({ length: 2_500 }, () => 'noisy'),
      ),
      keyedGrant(2_500, ['quiet']),
    )
    await settleDown()
    assert.ok(starts.some(({ tenant }) => tenant === 'quiet'))
    const parks = source.exceptions().flatMap((exception) => (exception.kind === 'park' ? exception : []))
    assert.ok(parks.length >= 1_000)
    const waits = parks.map(({ until }) => (until as number) - START_MS)
    assert.deepEqual(
      waits,
      waits.toSorted((one, other) => one - other),
    )
    assert.ok(waits[0]! >= 1_000 && waits.at(-1)! <= 60_000 && waits.at(-1)! > 20_000, `${waits[0]} to ${waits.at(-1)}`)
    await consumer.close()
  })

  test('one that keeps all handlers busy within its limit does not keep the others from being fetched', async () => {
    const clock = new VirtualClock(START_MS)
    const started = new Set<string | undefined>()
    const handle = async ({ subject }: StoredEvent) => {
      started.add(subject)
      await pause(clock, 20)
    }
    const limits = [inFlight(100, { by: byTenant })]
    const { source, consumer } = await startLimited(limits, { handle }, { concurrency: 2 }, sharedBy(clock, limits[0]))
    for (let from = 0; from < 4_000 && !started.has('quiet'); from += 500) {
      source.offer(
        keyedGrant(
          from,
          Array.from({ length: 500 }, () => 'noisy'),
        ),
      )
      for (let step = 0; step < 10; step++) {
        await clock.advance(20)
        await settleDown()
      }
      if (from === 3_000) source.offer(keyedGrant(10_000, ['quiet']))
    }
    assert.ok(started.has('quiet'))
    assert.ok(source.parks().size > 1_000, 'most of the crowd was set aside')
    const closed = consumer.close()
    await clock.advance(20)
    await closed
  })

  test('nor does one that does so in an ordered subscription', async () => {
    const clock = new VirtualClock(START_MS)
    const started = new Set<string | undefined>()
    const handle = async ({ subject }: StoredEvent) => {
      started.add(subject)
      await pause(clock, 50)
    }
    const limits = [inFlight(20, { by: ({ subject = '' }) => subject.slice(0, 5) })]
    const changes = { concurrency: 2, ordered: { onExhausted: 'dead-letter' } } as const
    const { source, consumer } = await startLimited(limits, { handle }, changes, sharedBy(clock, limits[0]))
    // A message of each key waits for permission, the others fill the lanes.
    const noisy = Array.from({ length: 11_000 }, (_, index) => `noisy-${index % 200}`)
    source.offer(keyedGrant(0, noisy))
    await settleDown()
    const pulls = source.pulls.length
    for (let step = 0; step < 10; step++) {
      await clock.advance(50)
      await settleDown()
    }
    assert.ok(source.parks().size > 4_000, 'most of the crowd was set aside')
    assert.ok(source.pulls.length > pulls, 'the next messages were fetched')
    source.offer(keyedGrant(11_000, ['quiet']))
    for (let step = 0; step < 10; step++) {
      await clock.advance(50)
      await settleDown()
    }
    assert.ok(started.has('quiet'))
    const closed = consumer.close()
    await clock.advance(50)
    await closed
  })

  test('nor does one that is at its limit with a few keys there, and leaves handlers free', async () => {
    const clock = new VirtualClock(START_MS)
    const { starts, handle } = recorder(clock)
    const limit = rate(500, { by: ({ subject = '' }) => subject.slice(0, 5) })
    const changes = { ordered: { onExhausted: 'dead-letter' } } as const
    const { source, consumer } = await startLimited([limit], { handle }, changes, sharedBy(clock, limit))
    const noisy = Array.from({ length: 11_000 }, (_, index) => `noisy-${index % 40}`)
    source.offer(keyedGrant(0, noisy))
    await settleDown()
    const pulls = source.pulls.length
    for (let step = 0; step < 50; step++) {
      await clock.advance(20)
      await settleDown()
    }
    assert.ok(source.pulls.length > pulls, 'the next messages were fetched')
    source.offer(keyedGrant(11_000, ['quiet']))
    await clock.advance(100)
    await settleDown()
    assert.ok(starts.some(({ tenant }) => tenant === 'quiet'))
    await consumer.close()
  })

  test('so do many that have a message each and no room for it', async () => {
    const clock = new VirtualClock(START_MS)
    const limit = rate(1, { perMs: 60_000, by: ({ subject = '' }) => subject.slice(0, 1) })
    const { starts, handle } = recorder(clock)
    const { source, consumer } = await startLimited([limit], { handle }, {}, sharedBy(clock, limit))
    const tenants = Array.from({ length: 1_200 }, (_, index) => String.fromCodePoint(0x4e00 + index))
    source.offer(keyedGrant(0, [...tenants, ...tenants]), keyedGrant(2_400, ['quiet']))
    await clock.advance(100)
    assert.equal(starts.length, 1_201)
    assert.ok(source.parks().size >= 200)
    for (const until of source.parks().values()) assert.ok((until as number) > START_MS + 50_000)
    await consumer.close()
  })

  test('an outage whose message is still to be decided on holds no place', async () => {
    const handler = new HeldHandler()
    const breaker = { isOutage: () => true, threshold: 5, probe: { delayMs: 1_000, maxMs: 1_000 } }
    const { source, consumer, keeper } = await startLimited([inFlight(1)], { handle: handler.handle }, { breaker })
    source.offer(grantOf([0, 1]))
    await settleDown()
    handler.of(0).reject(new Error('down'))
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    assert.deepEqual(source.verdicts(), [])
    assert.equal(keeper.inFlight(''), 1)
    handler.of(1).resolve()
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry'], 'others worked')
    await consumer.close()
  })

  test('nothing is set aside when all wait for the same limit', async () => {
    const clock = new VirtualClock(START_MS)
    const { source, consumer } = await startLimited([rate(10)], { handle: () => {} }, {}, sharedBy(clock, rate(10)))
    source.offer(grantOf(offsets(0, 4_000)))
    await clock.advance(2_000)
    assert.deepEqual(source.verdicts(), [])
    await consumer.close()
  })
})

describe('messages that wait for permission', () => {
  const never = async (demands: readonly unknown[]) => demands.map(() => ({ startsInMs: [], againInMs: 1_000 }))

  test('are handed back when the consumer closes', async () => {
    const handler = new HeldHandler()
    const { source, consumer } = await startLimited([inFlight(1)], { handle: handler.handle })
    source.offer(grantOf([0, 1, 2]))
    await settleDown()
    const closed = consumer.close()
    handler.of(0).resolve()
    await closed
    assert.deepEqual(source.verdicts(), ['1 release', '2 release'])
  })

  test('are forgotten when they are cancelled or their lease is lost', async () => {
    const handler = new HeldHandler()
    const { source, consumer, keeper, clock } = await startLimited([inFlight(5)], { handle: handler.handle })
    source.answerAdmit = never
    source.offer(grantOf([0, 1, 2]), grantOf([3, 4]))
    await settleDown()
    source.cancel(0, 1)
    source.lose([3])
    keeper.serve(source)
    await clock.advance(1_000)
    await settleDown()
    assert.deepEqual(handler.started, [0, 2])
    for (const call of handler.calls) call.resolve()
    await settleDown()
    await consumer.close()
    assert.deepEqual(source.acked(), [0, 2])
    assert.equal(keeper.inFlight(''), 0)
  })

  test('a suspect needs permission as well, and nothing else is asked about meanwhile', async () => {
    const handler = new HeldHandler()
    const { source, consumer, keeper, clock } = await startLimited([inFlight(1)], { handle: handler.handle })
    source.answerAdmit = never
    source.offer(grantOf([0], { isolated: true, crashes: 1 }), grantOf([1, 2]))
    await settleDown()
    assert.deepEqual(source.admissions.at(-1)?.demands, [{ buckets: [''], starts: 1 }])
    keeper.serve(source)
    await clock.advance(1_000)
    await settleDown()
    assert.deepEqual(handler.started, [0])
    handler.of(0).resolve()
    await settleDown()
    assert.deepEqual(handler.started, [0, 1])
    const closed = consumer.close()
    handler.of(1).resolve()
    await closed
  })

  test('go into batches with one permission each', async () => {
    const batches: unknown[][] = []
    const { source, consumer, clock } = await startLimited(
      [rate(20, { burst: 5 })],
      { handleBatch: (events) => void batches.push(events.map(({ data }) => data)) },
      { batch: { size: 10, waitMs: 0 } },
    )
    source.offer(grantOf(offsets(0, 12)))
    await clock.advance(10)
    assert.deepEqual(batches, [offsets(0, 5)])
    await clock.advance(2_000)
    assert.deepEqual(batches.flat(), offsets(0, 12))
    await consumer.close()
  })

  test('in an ordered subscription: one of a key at a time, and those behind one that is set aside follow it', async () => {
    const clock = new VirtualClock(START_MS)
    const limits = [rate(100, { by: () => 'all' })]
    const { source, consumer } = await startLimited(
      limits,
      { handle: () => {} },
      { ordered: { onExhausted: 'dead-letter' } },
      sharedBy(clock),
    )
    const keys = Array.from({ length: 2_100 }, (_, index) => `key-${index}`)
    source.offer(keyedGrant(0, [...keys, ...keys]))
    await settleDown()
    const parks = source.parks()
    const first = offsets(0, 2_100).filter((offset) => typeof parks.get(offset) === 'number')
    assert.ok(first.length >= 1_000)
    for (const offset of first) assert.equal(parks.get(offset + 2_100), 'chain')
    assert.equal(parks.size, 2 * first.length)
    await consumer.close()
  })
})

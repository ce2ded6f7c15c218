/** Races, ends that come at the wrong moment, and threads that die. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Bench, coded, dataOf, eventually, HERE, newFile, SUBSCRIPTION, sql, TOPIC } from './bench.ts'

const SHORT_LEASE_MS = 400

describe('faults', { concurrency: 2 }, () => {
  test('when the writer thread dies, waiting and later calls fail with a coded error', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const reader = await bench.source()
    const waiting = reader.pull()
    const publishing = bench.publish(['a'])
    const refused = Promise.all([
      assert.rejects(waiting, coded('POSTHORN_STORAGE_FAILED')),
      publishing.catch(coded('POSTHORN_STORAGE_FAILED')),
    ])
    await bench.crash()
    await refused
    await assert.rejects(bench.publish(['b']), coded('POSTHORN_STORAGE_FAILED'))
    await assert.rejects(reader.pull(), coded('POSTHORN_STORAGE_FAILED'))
    await assert.rejects(bench.engine.admin.topics(), coded('POSTHORN_STORAGE_FAILED'))
  })

  test('closing answers waiting pulls with nothing, and later calls with a coded error', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const reader = await bench.source()
    const waiting = reader.pull()
    await bench.engine.close()
    assert.deepEqual(await waiting, [])
    assert.deepEqual(await reader.pull(), [])
    await assert.rejects(bench.publish(['a']), coded('POSTHORN_CLOSED'))
    await bench.engine.close()
  })

  test('grants that cross a given-up pull go back, whatever the next pull asks for', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const reader = await bench.source()
    for (let round = 0; round < 50; round++) {
      const giveUp = new AbortController()
      const pulling = reader.pull(10, giveUp.signal)
      const publishing = bench.publish(['a', 'b'])
      if (round % 2 === 0) await publishing
      giveUp.abort()
      const early = await pulling
      await publishing
      const next = await reader.pullNow(1)
      assert.ok(dataOf(next).length <= 1)
      await reader.ack([...early, ...next])
      await reader.take(2 - dataOf(early).length - dataOf(next).length)
    }
    await eventually(async () => {
      assert.partialDeepStrictEqual(await bench.state(), { leased: 0, returned: 0, backlog: 0 })
    })
  })

  test('a subscription whose leases make no sense fails its own pull only', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.subscription({ subscription: 'bad' })
    const [bad, good] = [await bench.source({ subscription: 'bad' }), await bench.source()]
    await bench.publish(['a'])
    await bad.pull()
    await good.take(1)
    sql(file, "UPDATE posthorn_leases SET settled = x'0000', session_id = NULL")
    const waiting = good.pull()
    await assert.rejects(bad.pull(), coded('POSTHORN_STORAGE_CORRUPT'))
    await bench.publish(['b'])
    assert.deepEqual(dataOf(await waiting), ['b'])
  })

  test('closing one of two sources of a subscription leaves the other its leases', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    await bench.publish(['a'])
    await bench.publish(['b'])
    const [one, other] = [await bench.source(), await bench.source()]
    const [mine, theirs] = [await one.pull(1), await other.pull(1)]
    await one.source.close()
    assert.deepEqual(await other.ack(theirs), [])
    assert.deepEqual(dataOf(await other.pull()), dataOf(mine))
    const [consumer] = await bench.engine.admin.consumers()
    assert.deepEqual(consumer?.subscriptions, [HERE])
  })

  test('a session that another process ended is replaced, its holder is told, and nothing stays leased', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.publish(['a'])
    const reader = await bench.source()
    const held = await reader.pull()
    // As the other process does it: in one transaction.
    sql(file, 'UPDATE posthorn_leases SET session_id = NULL, crashes = 1 RETURNING 1')
    sql(file, 'DELETE FROM posthorn_sessions RETURNING 1')
    await eventually(() => assert.deepEqual(reader.lost[0]?.leases, [held[0]!.lease]))
    assert.deepEqual(await reader.ack(held), [held[0]!.lease])
    assert.deepEqual(await reader.take(1), ['a'])
    assert.equal((await bench.engine.admin.consumers()).length, 1)
  })

  test('the holder of what an operator took back is told', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    const operator = await Bench.open(context, file)
    await bench.publish(['a', 'b'])
    const reader = await bench.source()
    const held = await reader.pull()
    await operator.engine.admin.purge(TOPIC)
    await eventually(() => assert.equal(reader.lost.length, 1))
    assert.match(reader.lost[0]!.reason, /operator/)
    assert.deepEqual(await reader.ack(held), [held[0]!.lease])
  })

  test('engines without a source can seek across leases, each of them', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.subscription({ subscription: 'other' })
    await bench.publish([0, 1, 2, 3])
    for (const subscription of [SUBSCRIPTION, 'other']) {
      await (await bench.source({ subscription })).pull()
      const operator = await Bench.open(context, file)
      await operator.engine.admin.seek({ topic: TOPIC, subscription }, { offset: 2 })
      const state = await operator.state(subscription)
      assert.partialDeepStrictEqual(state, { returned: 2, backlog: 2, leased: 0 })
    }
  })

  test('a subscription that is deleted rejects the pull that waits on it', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    const waiting = (await bench.source()).pull()
    const rejected = assert.rejects(waiting, coded('POSTHORN_SUBSCRIPTION_NOT_FOUND'))
    await (await Bench.open(context, file)).engine.admin.deleteSubscription(HERE)
    await rejected
  })

  test('a topic that is deleted takes its delayed messages along, and those of others come', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const retention = { maxAgeMs: 1e9, dropUnread: false }
    const config = { kind: 'topic', partitions: 1, deduplicationWindowMs: 1_000, retention } as const
    await bench.engine.ensureTopic({ topic: 'doomed', ...config })
    const deliverAtMs = Date.now() + 150
    await bench.publish(['lost'], { topic: 'doomed', deliverAtMs })
    await bench.publish(['kept'], { deliverAtMs })
    await bench.engine.admin.deleteTopic('doomed')
    assert.deepEqual(await (await bench.source()).take(1), ['kept'])
  })

  test('a topic made anew with fewer partitions refuses what was meant for the old one', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { partitions: 16 })
    const other = await Bench.open(context, file)
    await other.engine.admin.deleteTopic(TOPIC)
    await Bench.make(context, file)
    const keys = Array.from({ length: 8 }, (_, number) => `key-${number}`)
    const results = await Promise.allSettled(keys.map((key) => bench.publish([key], { key })))
    for (const result of results) if (result.status === 'rejected') coded('POSTHORN_TOPIC_CONFLICT')(result.reason)
    await Promise.all(keys.map((key) => bench.publish([key], { key })))
  })

  test('purge and replay during delivery: what is settled late changes nothing', async (context) => {
    const bench = await Bench.make(context, newFile(context))
    const reader = await bench.source()
    for (let round = 0; round < 20; round++) {
      await bench.publish([round, round])
      const pulling = reader.pull(1)
      const purging = bench.engine.admin.purge(TOPIC)
      const grants = await Promise.race([pulling, purging.then(() => bench.publish(['next'])).then(() => pulling)])
      await purging
      await reader.ack(grants)
    }
    await reader.pullNow().then((grants) => reader.ack(grants))
    assert.partialDeepStrictEqual(await bench.state(), { leased: 0, retrying: 0, deadLetters: 0 })
    assert.deepEqual(await bench.engine.admin.checkIntegrity(), [])
  })

  test('due retries of suspects do not keep other retries waiting', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(['s1', 's2', 's3', 'plain'])
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const failure = { attempt: 1, atMs: 1, name: 'Error', message: 'no' }
    const exceptions = [0, 1, 2, 3].map((offset) => ({ offset, kind: 'retry', dueAtMs: 1 + offset, failure }) as const)
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    sql(file, 'UPDATE posthorn_retries SET crashes = 1 WHERE offset < 3')
    const first = await reader.pull(1)
    assert.partialDeepStrictEqual(first[0], { isolated: true, attempt: 2 })
    assert.deepEqual(dataOf(await reader.pull(1)), ['plain'])
  })

  test('an operation that SQLite refuses fails alone, though others share its commit', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    const reader = await bench.source()
    sql(
      file,
      `CREATE TRIGGER refuse BEFORE INSERT ON posthorn_batches WHEN NEW.count = 2
               BEGIN SELECT RAISE(ABORT, 'refused'); END`,
    )
    const results = await Promise.allSettled([bench.publish([1]), bench.publish([1, 2]), bench.publish([3])])
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    )
    assert.deepEqual(await reader.take(2), [1, 3])
  })
})

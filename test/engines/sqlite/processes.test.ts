/** Several processes on one file: real ones, that are killed, stopped and blocked. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { describe, test } from 'node:test'
import { Bench, dataOf, eventually, HERE, newFile, sql } from './bench.ts'
import { Child } from './processes/child.ts'

const SHORT_LEASE_MS = 400
const ASLEEP_MS = 1_500

describe('several processes on one file', { concurrency: 2 }, () => {
  test('a message published by one wakes the pull that waits in another', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    const reader = await bench.source()
    const publisher = Child.start(context, { file, role: 'publish' })
    await publisher.reported('ready')
    const waiting = reader.pull()
    publisher.tell({ kind: 'publish', data: ['across'] })
    assert.deepEqual(dataOf(await waiting), ['across'])
    assert.ok(existsSync(`${file}-wake`))
  })

  test('what a killed consumer held comes to another together, as long as a crash more would bury nobody', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.subscription({ maxCrashes: 3 })
    const data = Array.from({ length: 500 }, (_, number) => number)
    await bench.publish(data)
    const victim = Child.start(context, { file, role: 'hold', leaseMs: SHORT_LEASE_MS, messagesMax: 500 })
    await victim.reported('granted')
    await victim.die()
    const grants = await (await bench.source()).pull(500)
    assert.deepEqual(dataOf(grants), data)
    for (const grant of grants) assert.partialDeepStrictEqual(grant, { attempt: 1, crashes: 1, isolated: false })
  })

  test('what a killed consumer held comes to another, singly, marked as suspect, with no attempt lost', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.publish(['a', 'b', 'c'])
    const victim = Child.start(context, { file, role: 'hold', leaseMs: SHORT_LEASE_MS })
    await victim.reported('granted')
    await victim.die()
    const reader = await bench.source()
    for (const expected of ['a', 'b', 'c']) {
      const grants = await reader.pull()
      assert.deepEqual(dataOf(grants), [expected])
      assert.partialDeepStrictEqual(grants[0], { attempt: 1, crashes: 1, isolated: true })
      assert.deepEqual(await reader.pullNow(), [], 'one suspect at a time')
      await reader.ack(grants)
    }
  })

  test('a message that kills its process every time is buried, and its neighbours are delivered at once', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.publish(['before', 'poison', 'after'])
    const delivered: unknown[] = []
    for (let deaths = 1; deaths <= 2; deaths++) {
      const victim = Child.start(context, { file, role: 'suicide', leaseMs: SHORT_LEASE_MS })
      await victim.exited()
      assert.equal(victim.process.signalCode, 'SIGKILL')
      for (const report of victim.reports) {
        if (report.kind !== 'granted') continue
        assert.equal(report.attempt, 1)
        if (!report.data.includes('poison')) delivered.push(...report.data)
      }
    }
    const letters = await eventually(async () => {
      const found = await bench.engine.admin.deadLetters(HERE, { limit: 10 })
      assert.equal(found.length, 1)
      return found
    })
    assert.partialDeepStrictEqual(letters[0], { reason: 'crashed', crashes: 2, attempts: 1, offset: 1 })
    assert.equal(letters[0]!.event?.data, 'poison')
    const reader = await bench.source()
    for (let left = 2 - delivered.length; left > 0; left--) {
      const grants = await reader.pull()
      assert.equal(grants[0]!.attempt, 1)
      delivered.push(...dataOf(grants))
      await reader.ack(grants)
    }
    assert.deepEqual(delivered.toSorted(), ['after', 'before'])
  })

  test('a consumer that was stopped for longer than its lease is told, and what it settles is fenced', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.publish(['a'])
    const sleeper = Child.start(context, { file, role: 'hold', leaseMs: SHORT_LEASE_MS })
    await sleeper.reported('granted')
    sleeper.process.kill('SIGSTOP')
    const reader = await bench.source()
    const taken = await reader.pull()
    assert.partialDeepStrictEqual(taken[0], { crashes: 1 })
    sleeper.process.kill('SIGCONT')
    sleeper.tell({ kind: 'settle' })
    assert.equal((await sleeper.reported('fenced'))[0]!.count, 1)
    const { reason } = (await sleeper.reported('lost'))[0]!
    assert.match(reason, /\d+ ms/)
    assert.deepEqual(await reader.ack(taken), [])
  })

  test('an event loop that is blocked for longer than any handler may run loses its leases', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.publish(['a'])
    const blocked = Child.start(context, { file, role: 'hold', leaseMs: SHORT_LEASE_MS, handlerTimeoutMs: 100 })
    await blocked.reported('granted')
    blocked.tell({ kind: 'block', durationMs: 2_500 })
    const reader = await bench.source()
    assert.deepEqual(dataOf(await reader.pull()), ['a'])
    const { reason } = (await blocked.reported('lost'))[0]!
    assert.match(reason, /event loop/)
  })

  test('an event loop that is blocked for less keeps its leases', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { leaseMs: SHORT_LEASE_MS })
    await bench.publish(['a'])
    const blocked = Child.start(context, { file, role: 'hold', leaseMs: SHORT_LEASE_MS, handlerTimeoutMs: 60_000 })
    await blocked.reported('granted')
    blocked.tell({ kind: 'block', durationMs: 3 * SHORT_LEASE_MS })
    blocked.tell({ kind: 'settle' })
    await eventually(async () => assert.equal((await bench.state()).leased, 0))
    assert.equal((await bench.state()).returned, 0)
    assert.deepEqual(
      blocked.reports.filter(({ kind }) => kind === 'lost' || kind === 'fenced'),
      [],
    )
  })

  test('a machine that slept longer than the leases accuses nobody', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file)
    await bench.publish(['a'])
    const holder = Child.start(context, { file, role: 'hold', leaseMs: SHORT_LEASE_MS })
    await holder.reported('granted')
    const rival = Child.start(context, { file, role: 'ack', leaseMs: SHORT_LEASE_MS })
    await rival.reported('ready')
    await bench.engine.close()
    for (const { process } of [holder, rival]) process.kill('SIGSTOP')
    const [row] = sql(file, 'SELECT max(lease_until_ms) AS until FROM posthorn_sessions')
    await eventually(() => assert.ok(Date.now() > Number(row!.until) + ASLEEP_MS, 'asleep'))
    for (const { process } of [rival, holder]) process.kill('SIGCONT')
    holder.tell({ kind: 'settle' })
    await eventually(() => assert.equal(sql(file, 'SELECT * FROM posthorn_leases').length, 0))
    assert.ok(![...holder.reports, ...rival.reports].some(({ kind }) => kind === 'lost' || kind === 'fenced'))
    assert.ok(!rival.reports.some(({ kind }) => kind === 'granted'))
  })

  test('processes that open and migrate a new file at the same moment all succeed', async (context) => {
    const file = newFile(context)
    const children = Array.from({ length: 3 }, () => Child.start(context, { file, role: 'open' }))
    await Promise.all(children.map((child) => child.reported('ready')))
    await Bench.make(context, file)
  })
})

/** What `pull` hands out and `settle` takes back while nothing goes wrong. */
import assert from 'node:assert/strict'
import type { Grant } from '../../src/engine.ts'
import { dataOf, failure } from './messages.ts'
import type { Guarantee } from './suite.ts'
import type { TestProcess } from './test-process.ts'

export const leases: Guarantee = (test) => {
  test('a first delivery says so', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b'])
    const [grant] = await (await process.subscribe()).pull()
    assert.partialDeepStrictEqual(grant, { partition: 0, attempt: 1, crashes: 0, isolated: false, failures: [] })
    assert.deepEqual(
      grant?.messages.map(({ offset }) => offset),
      [0, 1],
    )
  })

  test('a pull takes no more messages than it may, and the next goes on from there', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 2 })
    for (let number = 0; number < 10; number++) await process.publish([number], { key: `key-${number}` })
    const source = await process.subscribe()
    const sizes: number[] = []
    for (let grants = await source.pullNow(3); grants.length > 0; grants = await source.pullNow(3)) {
      sizes.push(dataOf(grants).length)
    }
    assert.ok(
      sizes.every((size) => size >= 1 && size <= 3),
      String(sizes),
    )
    assert.equal(
      sizes.reduce((total, size) => total + size, 0),
      10,
    )
  })

  test('messages come one by one, in order, when one is asked for', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b'])
    await process.publish(['c'])
    const source = await process.subscribe()
    for (const expected of ['a', 'b', 'c']) assert.deepEqual(dataOf([await source.pullOne()]), [expected])
    assert.deepEqual(await source.pullNow(1), [])
  })

  test('a pull stops near its limit of bytes, but always takes one message', async (world) => {
    const process = await world.process()
    await process.topic()
    const large = 'x'.repeat(10_000)
    for (let number = 0; number < 10; number++) await process.publish([large])
    const source = await process.subscribe()
    const few = dataOf(await source.pull({ bytesMax: 35_000 })).length
    assert.ok(few >= 2 && few <= 5, `${few} messages of 10,000 bytes for 35,000`)
    assert.equal(dataOf(await source.pull({ bytesMax: 1 })).length, 1)
  })

  test('the limit of bytes counts across partitions', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 8 })
    const large = 'x'.repeat(10_000)
    for (let number = 0; number < 16; number++) await process.publish([large], { key: `key-${number}` })
    const few = dataOf(await (await process.subscribe()).pull({ bytesMax: 15_000 })).length
    assert.ok(few >= 1 && few <= 3, `${few} messages of 10,000 bytes for 15,000`)
  })

  test('a grant holds messages of one partition, in offset order', async (world) => {
    const process = await world.process()
    await process.topic({ partitions: 4 })
    for (let number = 0; number < 40; number++) await process.publish([number], { key: `key-${number}` })
    const grants = await (await process.subscribe()).pullAll()
    assert.equal(new Set(grants.map(({ partition }) => partition)).size, 4)
    for (const grant of grants) assertRising(grant)
    assert.equal(dataOf(grants).length, 40)
  })

  test('sources that race for messages get each of them once', async (world) => {
    const processes = await Promise.all([world.process(), world.process(), world.process()])
    await processes[0]!.topic({ partitions: 2 })
    await processes[0]!.subscription()
    for (let number = 0; number < 120; number++) await processes[0]!.publish([number], { key: `key-${number}` })
    const racing = await Promise.all(processes.map((process) => pullBySevens(process)))
    const all = racing.flat() as number[]
    assert.deepEqual(
      all.toSorted((one, other) => one - other),
      Array.from({ length: 120 }, (_, number) => number),
    )
  })

  test('leases have ids of their own, across processes', async (world) => {
    const [one, other] = [await world.process(), await world.process()]
    await one.topic()
    await one.publish(['a', 'b', 'c', 'd'])
    const sources = [await one.subscribe(), await other.source()]
    const ids = new Set<number>()
    for (const source of [...sources, ...sources]) ids.add((await source.pullOne()).lease)
    assert.equal(ids.size, 4)
  })

  test('a pull with nothing to take waits until it is aborted, and then takes nothing', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const giveUp = new AbortController()
    const waiting = source.pull({}, giveUp.signal)
    await process.roundTrip()
    giveUp.abort()
    assert.deepEqual(await waiting, [])
    await process.publish(['later'])
    assert.deepEqual(dataOf(await source.pull()), ['later'])
  })

  test('a pull that is aborted beforehand takes nothing', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'])
    const source = await process.subscribe()
    assert.deepEqual(await source.pull({}, AbortSignal.abort()), [])
    assert.deepEqual(dataOf(await source.pull()), ['a'])
  })

  test('a waiting pull resolves with nothing when its source closes', async (world) => {
    const process = await world.process()
    await process.topic()
    const source = await process.subscribe()
    const waiting = source.pull()
    await process.roundTrip()
    await source.close()
    await source.close()
    assert.deepEqual(await waiting, [])
    assert.deepEqual(await source.pull(), [])
  })

  test('parts of a lease can be settled one after the other, in any order', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish([0, 1, 2, 3, 4])
    const source = await process.subscribe()
    const [{ lease }] = (await source.pull()) as [Grant]
    for (const acked of [
      [4, 5],
      [1, 2, 3, 4],
      [0, 1],
    ]) {
      assert.deepEqual(await source.source.settle([{ lease, acked, exceptions: [] }]), [])
    }
    assert.equal((await process.state()).leased, 1)
    assert.deepEqual(await source.source.settle([{ lease, acked: [2, 3], exceptions: [] }]), [])
    assert.equal((await process.state()).leased, 0)
  })

  test('acknowledged ranges may overlap, be empty, or be nothing at all', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish([0, 1, 2, 3])
    const source = await process.subscribe()
    const [{ lease }] = (await source.pull()) as [Grant]
    for (const acked of [[], [0, 0], [0, 2, 1, 3], [1, 3]]) {
      assert.deepEqual(await source.source.settle([{ lease, acked, exceptions: [] }]), [])
    }
    assert.equal((await process.state()).leased, 1)
  })

  test('the first settlement of a message counts', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish([0, 1, 2])
    const source = await process.subscribe()
    const [{ lease }] = (await source.pull()) as [Grant]
    const dueAtMs = world.clock.now()
    await source.source.settle([{ lease, acked: [0, 1], exceptions: [] }])
    const retry = { offset: 0, kind: 'retry', dueAtMs, failure: failure(1, dueAtMs) } as const
    assert.deepEqual(await source.source.settle([{ lease, acked: [], exceptions: [retry] }]), [])
    assert.partialDeepStrictEqual(await process.state(), { leased: 2, retrying: 0 })
    assert.deepEqual(await source.pullNow(), [])
  })

  test('offsets outside the lease are left alone', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish([0, 1, 2, 3, 4, 5])
    const source = await process.subscribe()
    await source.ack([await source.pullOne()])
    const [{ lease }] = (await source.pull({ messagesMax: 2 })) as [Grant]
    const stray = [0, 3, 5, -1, 1_000_000].map((offset) => ({ offset, kind: 'release' }) as const)
    await source.source.settle([{ lease, acked: [4, 1_000_000], exceptions: stray }])
    assert.partialDeepStrictEqual(await process.state(), { leased: 2, returned: 0, backlog: 3 })
    assert.deepEqual(dataOf(await source.pullAll()), [3, 4, 5])
  })

  test('a release brings the message back at once, here or elsewhere, as the same attempt', async (world) => {
    const [one, other] = [await world.process(), await world.process()]
    await one.topic()
    await one.publish(['a', 'b', 'c'])
    const source = await one.subscribe()
    const grants = await source.pull()
    const waiting = (await other.source()).pull()
    await other.roundTrip()
    await source.source.settle([
      { lease: grants[0]!.lease, acked: [0, 1, 2, 3], exceptions: [{ offset: 1, kind: 'release' }] },
    ])
    const [again] = await waiting
    assert.deepEqual(dataOf([again!]), ['b'])
    assert.partialDeepStrictEqual(again, { attempt: 1, crashes: 0, isolated: false })
  })

  test('a released retry keeps its attempt and its failures', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'])
    const source = await process.subscribe()
    await source.retry(await source.pull(), world.clock.now())
    await source.release([await source.pullOne()])
    const again = await source.pullOne()
    assert.equal(again.attempt, 2)
    assert.equal(again.failures.length, 1)
  })

  test('a retry comes when it is due and not before, alone, with the failures so far', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a', 'b'])
    const source = await process.subscribe()
    const failedAtMs = world.clock.now()
    await source.retry(await source.pull(), failedAtMs + 2_000)
    await world.advance(1_999)
    assert.deepEqual(await source.pullNow(), [])
    assert.partialDeepStrictEqual(await process.state(), { retrying: 2, leased: 0, backlog: 0 })
    await world.advance(1)
    const grants = await source.pullAll()
    assert.deepEqual(
      grants.map(({ messages }) => messages.length),
      [1, 1],
    )
    assert.deepEqual(dataOf(grants).toSorted(), ['a', 'b'])
    for (const grant of grants) {
      assert.partialDeepStrictEqual(grant, { attempt: 2, crashes: 0, failures: [failure(1, failedAtMs)] })
    }
  })

  test('a waiting pull wakes when a retry is due', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'])
    const source = await process.subscribe()
    await source.retry(await source.pull(), world.clock.now() + 500)
    const waiting = source.pull()
    await process.roundTrip()
    await world.advance(500)
    assert.equal((await waiting)[0]?.attempt, 2)
  })

  test('failures add up, oldest first', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(['a'])
    const source = await process.subscribe()
    for (let attempt = 1; attempt <= 4; attempt++) {
      const grant = await source.pullOne()
      assert.deepEqual(
        grant.failures.map((one) => one.attempt),
        Array.from({ length: attempt - 1 }, (_, step) => step + 1),
      )
      await source.retry([grant], world.clock.now())
    }
  })

  test('new messages get through beside a flood of retries', async (world) => {
    const process = await world.process()
    await process.topic()
    await process.publish(Array.from({ length: 50 }, () => 'old'))
    const source = await process.subscribe()
    await source.retry(await source.pullAll(), world.clock.now())
    await process.publish(['new'])
    const seen: unknown[] = []
    for (let pulls = 0; pulls < 25 && !seen.includes('new'); pulls++) {
      const grants = await source.pull({ messagesMax: 2 })
      seen.push(...dataOf(grants))
      await source.retry(grants, world.clock.now())
    }
    assert.ok(seen.includes('new'), 'the new message starved')
    assert.ok(seen.includes('old'), 'the retries starved')
  })
}

function assertRising(grant: Grant): void {
  const offsets = grant.messages.map(({ offset }) => offset)
  assert.deepEqual(
    offsets,
    offsets.toSorted((one, other) => one - other),
  )
  assert.equal(new Set(offsets).size, offsets.length)
}

async function pullBySevens(process: TestProcess): Promise<unknown[]> {
  const source = await process.source()
  const data: unknown[] = []
  for (let grants = await source.pullNow(7); grants.length > 0; grants = await source.pullNow(7)) {
    data.push(...dataOf(grants))
    await source.ack(grants)
  }
  return data
}

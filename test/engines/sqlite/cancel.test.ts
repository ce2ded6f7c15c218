/** Messages that are stopped by their id: wherever they are, and whichever way they are found. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { CancelOutcome, NewMessage } from '../../../src/engine.ts'
import { LOOK_THROUGH_BATCHES } from '../../../src/engines/sqlite/sql/cancellation.ts'
import type { Statements } from '../../../src/engines/sqlite/store/file/connection.ts'
import { MessageSearch } from '../../../src/engines/sqlite/store/operators/message-search.ts'
import { Store } from '../../../src/engines/sqlite/store/store.ts'
import { systemEnvironment } from '../../../src/environment/index.ts'
import { IdentifierSource } from '../../../src/message/identifier.ts'
import { failure, newGroup, newMessage } from '../../conformance/messages.ts'
import { Bench, coded, dataOf, eventually, folder, HERE, newFile, type Reader, sql, TOPIC } from './bench.ts'

const identifiers = new IdentifierSource(systemEnvironment.random)
const FAR_MS = 3_600_000
const FAR_FUTURE_MS = Date.parse('2100-01-01')

const outcome = (part: Partial<CancelOutcome>): CancelOutcome => ({ delayed: 0, waiting: 0, running: 0, ...part })

/** With an id of our own making, or with `id`; the engine has no row for it. */
function generated(data: unknown, id = identifiers.next(Date.now()), timeMs = Date.now()): NewMessage {
  return { id, timeMs, json: JSON.stringify({ id, time: new Date(timeMs).toISOString(), data }) }
}

async function publish(bench: Bench, messages: readonly NewMessage[]): Promise<string[]> {
  const [stored] = await bench.engine.append([newGroup(messages)])
  assert.ok(stored && 'receipts' in stored)
  return messages.map(({ id }) => id)
}

/** As if each of so many had been cancelled by itself. */
const CANCEL_OFFSETS = `
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?)
INSERT INTO posthorn_cancelled SELECT topic_id, 0, n FROM numbers, posthorn_topics`

const numbers = (count: number) => Array.from({ length: count }, (_, number) => number)

describe('cancel', { concurrency: 2 }, () => {
  test('a delayed message is deleted, whoever gave its id', async (context) => {
    const { bench, file } = await make(context)
    const deliverAtMs = Date.now() + FAR_MS
    await bench.publish(['a'], { id: 'given', deliverAtMs })
    const own = { ...generated('b'), deliverAtMs }
    await publish(bench, [own])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'given'), outcome({ delayed: 1 }))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, own.id), outcome({ delayed: 1 }))
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_delayed'), [])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, own.id), outcome({}))
  })

  test('a delayed message that was due is found in the log', async (context) => {
    const { bench } = await make(context)
    const deliverAtMs = Date.now() + 20
    await bench.publish(['a'], { id: 'given', deliverAtMs })
    await publish(bench, [{ ...generated('b', 'unknown'), deliverAtMs }])
    await eventually(async () => assert.equal((await bench.state()).backlog, 2))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'given'), outcome({ waiting: 1 }))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'unknown'), outcome({ waiting: 1 }))
    assert.deepEqual(dataOf(await (await bench.source()).pullNow()), [])
  })

  test('what no subscription has reached is passed over by all', async (context) => {
    const { bench } = await make(context)
    await bench.subscription({ subscription: 'other' })
    const ids = await publish(
      bench,
      ['a', 'b', 'c', 'd', 'e'].map((data) => generated(data)),
    )
    for (const place of [0, 2, 4]) {
      assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[place]!), outcome({ waiting: 2 }))
    }
    const readers = [await bench.source(), await bench.source({ subscription: 'other' })]
    for (const reader of readers) {
      assert.deepEqual(await reader.take(2), ['b', 'd'])
      assert.deepEqual(dataOf(await reader.pullNow()), [])
    }
  })

  test('a pull for one message passes over twenty thousand', async (context) => {
    const { bench, file } = await make(context)
    for (let round = 0; round < 20; round++) await bench.publish(numbers(1_000))
    sql(file, CANCEL_OFFSETS, 20_000)
    await bench.publish(['a', 'b'])
    const reader = await bench.source()
    assert.deepEqual(dataOf(await reader.pull(1)), ['a'])
    assert.deepEqual(dataOf(await reader.pull(1)), ['b'])
    assert.equal((await bench.state()).backlog, 0)
  })

  test('a message that nobody has subscribed to yet does not wait for the first who does', async (context) => {
    const bench = await Bench.make(context, newFile(context), { kind: 'queue' })
    await bench.engine.admin.deleteSubscription(HERE)
    const [id] = await publish(bench, [generated('a'), generated('b')])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({ waiting: 1 }))
    await bench.subscription()
    assert.deepEqual(await (await bench.source()).take(1), ['b'])
  })

  test('ids are found by their place, their time, and by looking through the backlog', async (context) => {
    const bench = await Bench.make(context, newFile(context), { partitions: 4 })
    const others = () => numbers(3).map((number) => generated(number))
    const ids: string[] = []
    for (const number of numbers(30)) {
      const message = number % 2 === 0 ? generated(number) : generated(number, `it's "${number}"\n☃`)
      await publish(bench, [...others(), message, ...others()])
      ids.push(message.id)
    }
    await bench.publish(['x'], { id: 'given' })
    for (const id of [...ids, 'given']) {
      assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id), outcome({ waiting: 1 }), id)
    }
    assert.equal((await (await bench.source()).take(180)).length, 180)
    assert.equal((await bench.state()).backlog, 0)
  })

  test('a large backlog is looked through to its end, and only for ids', async (context) => {
    const { bench } = await make(context)
    const filler = 'x'.repeat(100_000)
    for (const number of numbers(10))
      await publish(
        bench,
        numbers(5).map(() => generated({ number, filler })),
      )
    await publish(bench, [generated({ id: 'wanted' }), generated('wanted'), generated('found', 'wanted')])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'not there'), outcome({}))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'wanted'), outcome({ waiting: 1 }))
    const data = await (await bench.source()).take(52)
    assert.deepEqual(data.slice(50), [{ id: 'wanted' }, 'wanted'])
    assert.equal((await bench.state()).backlog, 0)
  })

  test('of several in a large backlog the youngest is meant', async (context) => {
    const { bench } = await make(context)
    const filler = 'x'.repeat(1_000_000)
    for (const data of ['old', 'older in time', 'young']) {
      const timeMs = Date.now() - (data === 'older in time' ? FAR_MS : 0)
      await publish(bench, [generated(data, 'twice', timeMs)])
      await publish(
        bench,
        numbers(3).map(() => generated(filler)),
      )
    }
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'twice'), outcome({ waiting: 1 }))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'twice'), outcome({}), 'it is still the youngest')
    const data = await (await bench.source()).take(11)
    assert.deepEqual(
      data.filter((item) => item !== filler),
      ['old', 'older in time'],
    )
  })

  test('an unknown topic is an error, an unknown id is not', async (context) => {
    const { bench } = await make(context)
    await assert.rejects(bench.engine.admin.cancel('nowhere', 'a'), coded('POSTHORN_TOPIC_NOT_FOUND'))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, identifiers.next(Date.now())), outcome({}))
  })

  test('what is settled is not touched', async (context) => {
    const { bench } = await make(context)
    const [id] = await publish(bench, [generated('a')])
    await bench.publish(['b'], { id: 'given' })
    const reader = await bench.source()
    await reader.take(2)
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({}))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, 'given'), outcome({}))
    await bench.engine.admin.seek(HERE, { at: 'earliest' })
    assert.deepEqual(await reader.take(2), ['a', 'b'])
  })

  test('a message of a range under lease counts as settled, and its holder is told', async (context) => {
    const { bench } = await make(context)
    const ids = await publish(
      bench,
      ['a', 'b', 'c'].map((data) => generated(data)),
    )
    const reader = await bench.source()
    const grants = await reader.pull()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[1]!), outcome({ running: 1 }))
    assert.deepEqual(reader.cancelled, [{ lease: grants[0]!.lease, offset: 1 }])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[1]!), outcome({}))
    assert.equal((await bench.state()).leased, 2)
    await reader.source.close()
    assert.deepEqual(await (await bench.source()).take(2), ['a', 'c'])
  })

  test('a lease that ends with the cancelled message is not lost, and its settlement no surprise', async (context) => {
    const { bench } = await make(context)
    const [id] = await publish(bench, [generated('a')])
    const reader = await bench.source()
    const grants = await reader.pull()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({ running: 1 }))
    assert.equal((await bench.state()).leased, 0)
    assert.deepEqual(await reader.ack(grants), [])
    assert.deepEqual(reader.lost, [])
    assert.deepEqual(await reader.ack(grants), [grants[0]!.lease], 'the lease is remembered for one settlement')
  })

  test('the holder in another process is told, even while it does not pull', async (context) => {
    const { bench, file } = await make(context)
    const ids = await publish(
      bench,
      ['a', 'b'].map((data) => generated(data)),
    )
    const holder = await Bench.open(context, file)
    const readers = [await holder.source(), await bench.source()]
    const grants = await readers[0]!.pull()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[0]!), outcome({ running: 1 }))
    const told = [{ lease: grants[0]!.lease, offset: 0 }]
    await eventually(() => assert.deepEqual(readers[0]!.cancelled, told))
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[1]!), outcome({ running: 1 }))
    told.push({ lease: grants[0]!.lease, offset: 1 })
    await eventually(() => assert.deepEqual(readers[0]!.cancelled, told))
    assert.deepEqual(await readers[0]!.ack(grants), [])
    assert.deepEqual(readers[1]!.cancelled, [])
    assert.deepEqual(readers[0]!.lost, [])
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_cancel_notices'), [])
  })

  test('the lease is not taken for lost when the session is renewed, before or after its holder is told', async (context) => {
    const { bench, file } = await make(context)
    const ids = await publish(bench, [generated('a'), generated('b')])
    const dead = await Bench.open(context, file)
    const [grant] = await (await dead.source()).pull(1)
    await dead.crash()
    await bench.engine.admin.cancel(TOPIC, ids[0]!)
    const [consumer] = await bench.engine.admin.consumers()
    withStore(file, ({ leases }) => assert.ok(leases.heldBy(Number(consumer!.id)).has(grant!.lease)))
    const holder = await Bench.open(context, file, 600)
    const reader = await holder.source()
    await reader.pull()
    await bench.engine.admin.cancel(TOPIC, ids[1]!)
    const renewals = async () => (await bench.engine.admin.consumers()).at(-1)!.leaseUntilMs
    await eventually(() => assert.equal(reader.cancelled.length, 1))
    const untilMs = await renewals()
    await eventually(async () => assert.ok((await renewals()) > untilMs + 300))
    assert.deepEqual(reader.lost, [])
  })

  test('a settlement that comes together with the cancellation is not fenced', async (context) => {
    const { bench } = await make(context)
    const reader = await bench.source()
    for (const number of numbers(10)) {
      const [id] = await publish(bench, [generated(number)])
      const grants = await reader.pull()
      const cancelling = bench.engine.admin.cancel(TOPIC, id!)
      assert.deepEqual(await reader.ack(grants), [])
      await cancelling
    }
    assert.deepEqual(reader.lost, [])
  })

  test('a settlement that is on its way is not fenced, though its holder does not know yet', async (context) => {
    const { bench, file } = await make(context)
    const [id] = await publish(bench, [generated('a')])
    const reader = await (await Bench.open(context, file)).source()
    const grants = await reader.pull()
    const [, fenced] = await Promise.all([
      bench.engine.admin.cancel(TOPIC, id!),
      cancelledThenAck(file, reader, grants),
    ])
    assert.deepEqual(fenced, [])
    assert.deepEqual(reader.lost, [])
  })

  for (const away of [false, true]) {
    test(`what waits for its key goes on, if ${away ? 'another' : 'the same'} process ended the lease before`, async (context) => {
      const { bench, file } = await make(context)
      await bench.subscription({ ordered: true })
      const messages = ['a', 'b'].map((data) => newMessage(data, Date.now(), { key: 'k' }))
      const [id] = await publish(bench, messages)
      const reader = await bench.source()
      const [grant] = await reader.pull()
      const exceptions = [{ offset: 1, kind: 'park', until: 'freed', key: 'k' }] as const
      await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
      await reader.source.recordStep(grant!.lease, 0, 'step', '1')
      await (away ? await Bench.open(context, file) : bench).engine.admin.cancel(TOPIC, id!)
      const settlement = { lease: grant!.lease, acked: [0, 1], exceptions: [], freed: ['k'], stepped: [0] } as const
      assert.deepEqual(await reader.source.settle([settlement]), [])
      assert.deepEqual(sql(file, 'SELECT * FROM posthorn_steps'), [])
      assert.deepEqual(await reader.take(1), ['b'])
    })
  }

  test('notices for a session that dies go with it', async (context) => {
    const { bench, file } = await make(context)
    const [id] = await publish(bench, [generated('a')])
    const holder = await Bench.open(context, file, 200)
    await (await holder.source()).pull()
    await holder.crash()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({ running: 1 }))
    await eventually(async () => assert.deepEqual(await bench.engine.admin.consumers(), []))
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_cancel_notices'), [])
    assert.deepEqual(dataOf(await (await bench.source()).pullNow()), [])
  })

  test('a returned message is not delivered again', async (context) => {
    const { bench } = await make(context)
    const ids = await publish(
      bench,
      ['a', 'b'].map((data) => generated(data)),
    )
    const holder = await bench.source()
    await holder.pull()
    await holder.source.close()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[0]!), outcome({ waiting: 1 }))
    assert.deepEqual(await (await bench.source()).take(1), ['b'])
    assert.equal((await bench.state()).returned, 0)
  })

  test('a retry that waits, and one that runs', async (context) => {
    const { bench } = await make(context)
    const ids = await publish(
      bench,
      ['a', 'b'].map((data) => generated(data)),
    )
    const reader = await bench.source()
    await retry(reader, [Date.now() + FAR_MS, 0])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[0]!), outcome({ waiting: 1 }))
    const [grant] = await reader.pull()
    assert.equal(grant!.attempt, 2)
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[1]!), outcome({ running: 1 }))
    assert.deepEqual(reader.cancelled, [{ lease: grant!.lease, offset: 1 }])
    const exceptions = [{ offset: 1, kind: 'retry', dueAtMs: 0, failure: failure(2, 0) }] as const
    assert.deepEqual(await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }]), [])
    const { retrying, leased, deadLetters } = await bench.state()
    assert.deepEqual([retrying, leased, deadLetters], [0, 0, 0])
  })

  test('what waits behind the first of its key goes on', async (context) => {
    const { bench } = await make(context)
    await bench.subscription({ ordered: true })
    const messages = ['a', 'b'].map((data) => newMessage(data, Date.now(), { key: 'k' }))
    const ids = await publish(bench, messages)
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const exceptions = [
      { offset: 0, kind: 'retry', dueAtMs: Date.now() + FAR_MS, failure: failure(1, 0), key: 'k' },
      { offset: 1, kind: 'park', until: 'chain', key: 'k' },
    ] as const
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    assert.deepEqual(dataOf(await reader.pullNow()), [])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[0]!), outcome({ waiting: 1 }))
    assert.deepEqual(await reader.take(1), ['b'])
  })

  test('a redriven message that the log has no longer', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { kind: 'queue' })
    const [id] = await publish(bench, [generated('a')])
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const exceptions = [{ offset: 0, kind: 'dead', reason: 'attempts', failure: failure(1, 0) }] as const
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({}), 'a dead letter is settled')
    assert.equal(await bench.engine.admin.redrive(HERE, {}), 1)
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_batches'), [])
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({ waiting: 1 }))
    assert.deepEqual(dataOf(await reader.pullNow()), [])
  })

  test('a redriven message that is nested more deeply than SQLite reads', async (context) => {
    const { bench } = await make(context)
    const deep = JSON.parse('['.repeat(1_100) + ']'.repeat(1_100)) as unknown
    const [id] = await publish(bench, [generated(deep)])
    const reader = await bench.source()
    const [grant] = await reader.pull()
    const exceptions = [{ offset: 0, kind: 'dead', reason: 'attempts', failure: failure(1, 0) }] as const
    await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }])
    assert.equal(await bench.engine.admin.redrive(HERE, {}), 1)
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, id!), outcome({ waiting: 1 }))
  })

  test('a queue deletes the message with its batch, and then what is known of it', async (context) => {
    const file = newFile(context)
    const bench = await Bench.make(context, file, { kind: 'queue' })
    const ids = await publish(
      bench,
      ['a', 'b'].map((data) => generated(data)),
    )
    const reader = await bench.source()
    const [grant] = await reader.pull()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, ids[0]!), outcome({ running: 1 }))
    await reader.source.settle([{ lease: grant!.lease, acked: [1, 2], exceptions: [] }])
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_batches'), [])
    const [last] = await publish(bench, [generated('c')])
    await reader.pull()
    assert.deepEqual(await bench.engine.admin.cancel(TOPIC, last!), outcome({ running: 1 }))
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_batches'), [])
    await publish(bench, [generated('d')])
    assert.deepEqual(await reader.take(1), ['d'])
    assert.deepEqual(sql(file, 'SELECT * FROM posthorn_cancelled'), [])
  })

  test('ids of our own making, and those given lately, are found without looking through the backlog', async (context) => {
    const { bench, file } = await make(context)
    const future = new IdentifierSource(systemEnvironment.random)
    const ids: string[] = []
    for (let timeMs = 0; timeMs < 300; timeMs++) {
      const messages = [1, 2].map(() => generated(timeMs, future.next(FAR_FUTURE_MS + timeMs)))
      ids.push(
        ...(await publish(
          bench,
          messages.map((message) => ({ ...message, timeMs: FAR_FUTURE_MS + timeMs })),
        )),
      )
    }
    await bench.publish(['given'], { id: 'given' })
    await bench.publish(['delayed'], { id: 'delayed', deliverAtMs: Date.now() + 20 })
    ids.push('given', 'delayed')
    await eventually(async () => assert.equal((await bench.state()).backlog, ids.length))
    withStore(file, (store) => {
      const used = new Set<string>()
      const search = new MessageSearch(recording(store.connection, used), store.log, store.subscriptionRows)
      const topic = store.log.topic(TOPIC)
      for (const [offset, id] of ids.entries()) {
        const found = search.find(topic, id, undefined)
        assert.ok('position' in found)
        assert.equal(found.position?.offset, offset)
      }
      assert.ok(!used.has(LOOK_THROUGH_BATCHES))
      assert.deepEqual(search.find(topic, 'unknown', undefined), { position: undefined })
      assert.ok(used.has(LOOK_THROUGH_BATCHES), 'this tests nothing')
    })
  })

  test('messages are found by SQL that uses an index', async (context) => {
    const { file } = await make(context)
    const statements = Object.entries(await import('../../../src/engines/sqlite/sql/cancellation.ts'))
    for (const [name, text] of statements) {
      const values = Array.from({ length: Math.max(...parameters(text)) }, () => 1)
      for (const { detail } of sql(file, `EXPLAIN QUERY PLAN ${text}`, ...values)) {
        assert.doesNotMatch(String(detail), /^SCAN (?!CONSTANT)/, name)
      }
    }
  })
})

function withStore(file: string, use: (store: Store) => void): void {
  const store = Store.open({ file })
  try {
    use(store)
  } finally {
    store.connection.close()
  }
}

function recording(statements: Statements, used: Set<string>): Statements {
  return {
    run: (text, ...values) => statements.run(text, ...values),
    get: (text, ...values) => {
      used.add(text)
      return statements.get(text, ...values)
    },
    all: (text, ...values) => {
      used.add(text)
      return statements.all(text, ...values)
    },
  }
}

function parameters(text: string): number[] {
  const places = [...text.matchAll(/\?(\d*)/g)]
  return places.map(([, number], place) => (number ? Number(number) : place + 1))
}

async function make(context: TestContext): Promise<{ bench: Bench; file: string }> {
  const file = `${folder(context)}/store.db`
  return { bench: await Bench.make(context, file), file }
}

async function retry(reader: Reader, dueAtMs: readonly number[]): Promise<void> {
  const [grant] = await reader.pull()
  const exceptions = dueAtMs.map((dueMs, offset) => {
    return { offset, kind: 'retry', dueAtMs: dueMs, failure: failure(1, 0) } as const
  })
  assert.deepEqual(await reader.source.settle([{ lease: grant!.lease, acked: [], exceptions }]), [])
}

// As soon as the lease is gone from the file; mostly that is before the holder's thread has looked at it.
async function cancelledThenAck(file: string, reader: Reader, grants: Parameters<Reader['ack']>[0]) {
  await eventually(() => assert.deepEqual(sql(file, 'SELECT * FROM posthorn_leases'), []))
  return reader.ack(grants)
}

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { PosthornError, topic } from 'posthorn'
import { z } from 'zod'
import { eventsOf } from './fake-engine.ts'
import { setUp } from './setup.ts'

const numbers = topic<number>('numbers')

function* upTo(count: number, taken: number[] = []): Generator<number> {
  for (let number = 0; number < count; number++) {
    taken.push(number)
    yield number
  }
}

async function* asynchronously<Payload>(payloads: Iterable<Payload>): AsyncGenerator<Payload> {
  yield* payloads
}

describe('publishAll', () => {
  for (const kind of ['iterable', 'async iterable']) {
    const sequence = (count: number) => (kind === 'iterable' ? upTo(count) : asynchronously(upTo(count)))

    test(`stores everything of an ${kind}, in order`, async () => {
      const { publisher, fake } = setUp({}, { automatic: true })
      const result = await publisher.publishAll(numbers, sequence(20_000), undefined)
      assert.deepEqual(result, { published: 20_000, duplicates: 0 })
      const stored = fake.appends.flatMap(({ groups }) => groups.flatMap(eventsOf)).map((event) => event.data)
      assert.deepEqual(stored, [...upTo(20_000)])
    })
  }

  test('takes no more than it has room for, whatever the length of the sequence', async () => {
    const { publisher, fake } = setUp()
    const taken: number[] = []
    const result = publisher.publishAll(numbers, upTo(50_000, taken), undefined)
    await fake.append(1)
    assert.ok(taken.length <= 8_001, `${taken.length} were taken before any was stored.`)
    fake.automatic = true
    for (const append of [...fake.appends]) append.store()
    assert.equal((await result).published, 50_000)
  })

  test('waits while the buffer is half full instead of failing', async () => {
    const { publisher } = setUp({ maxBufferedBytes: 2_000 }, { automatic: true })
    assert.equal((await publisher.publishAll(numbers, upTo(500), undefined)).published, 500)
  })

  test('is not held up by another topic whose backlog is full', async () => {
    const { publisher, fake } = setUp({ maxBufferedBytes: 2_000 })
    const waiting = topic<string>('waiting', { maxBacklog: 1, whenFull: 'wait' })
    const held = publisher.publish(waiting, 'x'.repeat(1_200), undefined)
    const first = await fake.append(0)
    const result = publisher.publishAll(numbers, [1, 2, 3], undefined)
    const refused = new PosthornError('POSTHORN_BACKLOG_FULL', { topic: 'waiting', backlog: 1, limit: 1 })
    first.answer([{ refused }])
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(fake.appends.length, 2)
    fake.appends[1]!.store()
    assert.equal((await result).published, 3)
    await Promise.all([assert.rejects(held, { code: 'POSTHORN_CLOSED' }), publisher.close()])
  })

  test('counts what its own full topic holds back', async () => {
    const { publisher, fake } = setUp({ maxBufferedBytes: 2_000 })
    const waiting = topic<number>('waiting', { maxBacklog: 1, whenFull: 'wait' })
    const taken: number[] = []
    const result = publisher.publishAll(waiting, upTo(1_000, taken), undefined)
    const refused = new PosthornError('POSTHORN_BACKLOG_FULL', { topic: 'waiting', backlog: 1, limit: 1 })
    ;(await fake.append(0)).answer([{ refused }])
    const closed = publisher.close()
    await assert.rejects(result, { code: 'POSTHORN_BULK_INTERRUPTED' })
    await closed
    assert.ok(taken.length < 20, `${taken.length} were taken.`)
  })

  test('counts duplicates', async () => {
    const { publisher, fake } = setUp()
    const result = publisher.publishAll(numbers, [1, 2, 3], ((number: number) => ({ id: `n${number}` })) as never)
    const append = await fake.append(0)
    assert.deepEqual(
      append.groups[0]!.messages.map(({ id, deduplicate }) => [id, deduplicate]),
      [
        ['n1', true],
        ['n2', true],
        ['n3', true],
      ],
    )
    const stored = { duplicate: false, partition: 0, offset: 0 }
    append.answer([{ receipts: [stored, { duplicate: true }, stored] }])
    assert.deepEqual(await result, { published: 2, duplicates: 1 })
  })

  test('applies options to every message, but no id and no transaction', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    await publisher.publishAll(numbers, [1, 2], { key: 'k', headers: { batch: 'b1' } })
    const events = eventsOf(fake.appends[0]!.groups[0]!)
    assert.deepEqual(
      events.map(({ subject, batch }) => [subject, batch]),
      [
        ['k', 'b1'],
        ['k', 'b1'],
      ],
    )
    const wrong = publisher.publishAll(numbers, [1], { id: 'same' } as never)
    await assert.rejects(wrong, { code: 'POSTHORN_INVALID_OPTION' })
  })

  test('stops at the first payload that does not fit, once all before it is stored', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    const positive = topic('positive', { schema: z.number().positive() })
    let ended = false
    const payloads = function* () {
      try {
        yield* [1, 2, -3, 4]
      } finally {
        ended = true
      }
    }
    await assert.rejects(publisher.publishAll(positive, payloads(), undefined), (error: PosthornError) => {
      assert.equal(error.code, 'POSTHORN_BULK_INTERRUPTED')
      assert.equal(error.details.published, 2)
      assert.equal((error.cause as PosthornError).code, 'POSTHORN_INVALID_MESSAGE')
      return true
    })
    assert.equal(ended, true)
    assert.equal(fake.appends[0]!.groups[0]!.messages.length, 2)
  })

  test('says exactly how many were stored when storage fails', async () => {
    const { publisher, fake } = setUp()
    const taken: number[] = []
    const result = publisher.publishAll(numbers, upTo(50_000, taken), undefined)
    const first = await fake.append(0)
    const second = await fake.append(1)
    second.fail(new PosthornError('POSTHORN_STORAGE_FULL', { store: 'fake' }))
    fake.automatic = true
    first.store()
    await assert.rejects(result, (error: PosthornError) => {
      assert.equal(error.details.published, taken.length - second.groups[0]!.messages.length - overTaken(taken, fake))
      assert.equal((error.cause as PosthornError).code, 'POSTHORN_STORAGE_FULL')
      return true
    })
    assert.ok(taken.length < 50_000)
  })

  test('reports what the sequence itself throws', async () => {
    const { publisher } = setUp({}, { automatic: true })
    const broken = function* () {
      yield 1
      throw new Error('the file ended early')
    }
    await assert.rejects(publisher.publishAll(numbers, broken(), undefined), {
      code: 'POSTHORN_BULK_INTERRUPTED',
      message: /stored 1 messages.*the file ended early/,
    })
  })

  test('accepts schemas that answer later', async () => {
    const { publisher } = setUp({}, { automatic: true })
    const slow = topic('slow', { schema: z.number().refine(async (number) => number < 100) })
    assert.equal((await publisher.publishAll(slow, upTo(100), undefined)).published, 100)
  })

  test('of nothing stores nothing', async () => {
    const { publisher, fake } = setUp()
    assert.deepEqual(await publisher.publishAll(numbers, [], undefined), { published: 0, duplicates: 0 })
    assert.equal(fake.ensured.length, 0)
  })
})

/** What was taken from the sequence after the failure, and so never offered to the engine. */
function overTaken(
  taken: readonly number[],
  { appends }: { appends: readonly { groups: readonly { messages: readonly unknown[] }[] }[] },
) {
  const offered = appends.reduce(
    (sum, { groups }) => sum + groups.reduce((size, group) => size + group.messages.length, 0),
    0,
  )
  return taken.length - offered
}

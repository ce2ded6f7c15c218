import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { PosthornError, topic } from 'posthorn'
import { setUp } from './setup.ts'

const orders = topic<{ number: number }>('orders')
const invoices = topic<{ number: number }>('invoices')

function counts(append: { groups: readonly { topic: string; messages: readonly unknown[] }[] }) {
  return append.groups.map((group) => [group.topic, group.messages.length])
}

const storageFull = new PosthornError('POSTHORN_STORAGE_FULL', { store: 'fake' })

describe('group commit', () => {
  test('messages published together are stored together, one group per topic', async () => {
    const { publisher, fake } = setUp()
    const published = [1, 2, 3].map((number) => publisher.publish(orders, { number }, undefined))
    published.push(publisher.publish(invoices, { number: 1 }, undefined))
    const first = await fake.append(0)
    assert.deepEqual(counts(first), [
      ['orders', 3],
      ['invoices', 1],
    ])
    first.store()
    assert.deepEqual(
      (await Promise.all(published)).map(({ offset }) => offset),
      [0, 1, 2, 3],
    )
  })

  test('what arrives while two commits are under way forms the next one', async () => {
    const { publisher, fake } = setUp()
    const published: Promise<unknown>[] = []
    for (let position = 0; position < 2; position++) {
      published.push(publisher.publish(orders, { number: position }, undefined))
      await fake.append(position)
    }
    for (let number = 2; number < 12; number++) published.push(publisher.publish(orders, { number }, undefined))
    await Promise.resolve()
    assert.equal(fake.appends.length, 2)
    fake.appends[0]!.store()
    const third = await fake.append(2)
    assert.deepEqual(counts(third), [['orders', 10]])
    fake.appends[1]!.store()
    third.store()
    await Promise.all(published)
    assert.equal(fake.underWayMax, 2)
  })

  test('one commit holds at most 1,000 messages', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    await Promise.all(Array.from({ length: 2_500 }, (_, number) => publisher.publish(orders, { number }, undefined)))
    assert.deepEqual(fake.appends.map(counts), [[['orders', 1_000]], [['orders', 1_000]], [['orders', 500]]])
  })

  test('a long burst sets out before it has been encoded to the end', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    await publisher.publish(orders, { number: 0 }, undefined)
    const burst = Array.from({ length: 1_000 }, (_, number) => publisher.publish(orders, { number }, undefined))
    assert.deepEqual(fake.appends.slice(1).map(counts), [[['orders', 256]], [['orders', 256]]])
    await Promise.all(burst)
    assert.deepEqual(fake.appends.slice(3).map(counts), [[['orders', 488]]])
  })

  test('one commit holds at most 1 MiB, but always one message', async () => {
    const { publisher, fake } = setUp({ maxMessageBytes: 4 * 1024 ** 2 }, { automatic: true })
    const texts = topic<string>('texts')
    const sizes = [600_000, 600_000, 3_000_000, 10, 10]
    await Promise.all(sizes.map((size) => publisher.publish(texts, 'x'.repeat(size), undefined)))
    assert.deepEqual(fake.appends.map(counts), [[['texts', 1]], [['texts', 1]], [['texts', 1]], [['texts', 2]]])
  })

  test('a topic with much to send leaves room for the others', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    const published: Promise<unknown>[] = []
    for (let number = 0; number < 7_000; number++) published.push(publisher.publish(orders, { number }, undefined))
    published.push(publisher.publish(invoices, { number: 0 }, undefined))
    await Promise.all(published)
    const position = fake.appends.findIndex((append) => append.groups.some((group) => group.topic === 'invoices'))
    assert.ok(position <= 1, `The invoice came with commit ${position}.`)
  })

  test('a topic is made once, before its first message is stored', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    const made = Promise.withResolvers<void>()
    fake.onEnsureTopic = () => made.promise
    const published = [1, 2].map((number) => publisher.publish(orders, { number }, undefined))
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(fake.appends.length, 0)
    made.resolve()
    await Promise.all(published)
    await publisher.publish(orders, { number: 3 }, undefined)
    assert.deepEqual(
      fake.ensured.map((config) => config.topic),
      ['orders'],
    )
  })

  test('when a topic cannot be made, its messages are rejected, and the next publish tries again', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    fake.onEnsureTopic = () => Promise.reject(storageFull)
    const published = [1, 2].map((number) => publisher.publish(orders, { number }, undefined))
    for (const one of published) await assert.rejects(one, storageFull)
    fake.onEnsureTopic = async () => {}
    await publisher.publish(orders, { number: 3 }, undefined)
    assert.equal(fake.ensured.length, 2)
  })

  test('a failed commit rejects its messages and no others', async () => {
    const { publisher, fake } = setUp()
    const lost = publisher.publish(orders, { number: 1 }, undefined)
    const first = await fake.append(0)
    const kept = publisher.publish(orders, { number: 2 }, undefined)
    const second = await fake.append(1)
    first.fail(storageFull)
    second.store()
    await assert.rejects(lost, storageFull)
    assert.equal((await kept).duplicate, false)
  })

  test('a topic that was deleted meanwhile is made again', async () => {
    const { publisher, fake } = setUp()
    const lost = publisher.publish(orders, { number: 1 }, undefined)
    const gone = new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: 'orders' })
    const first = await fake.append(0)
    first.answer([{ refused: gone }])
    await assert.rejects(lost, gone)
    const kept = publisher.publish(orders, { number: 2 }, undefined)
    const second = await fake.append(1)
    second.store()
    await kept
    assert.equal(fake.ensured.length, 2)
  })
})

describe('limits', () => {
  test('a full buffer rejects with a retryable error, and takes messages again once it has drained', async () => {
    const { publisher, fake } = setUp({ maxBufferedBytes: 300 })
    const first = publisher.publish(orders, { number: 1 }, undefined)
    const second = publisher.publish(orders, { number: 2 }, undefined)
    const third = publisher.publish(orders, { number: 3 }, undefined)
    const refused = publisher.publish(orders, { number: 4 }, undefined)
    await assert.rejects(refused, { code: 'POSTHORN_PUBLISH_BUFFER_FULL', retryable: true })
    const append = await fake.append(0)
    append.store()
    await Promise.all([first, second, third])
    const fifth = publisher.publish(orders, { number: 5 }, undefined)
    ;(await fake.append(1)).store()
    await fifth
  })

  test('a message that is larger than the whole buffer still goes through an empty one', async () => {
    const { publisher } = setUp({ maxBufferedBytes: 10 }, { automatic: true })
    await publisher.publish(orders, { number: 1 }, undefined)
  })

  test('a full backlog rejects unless the topic waits', async () => {
    const { publisher, fake } = setUp()
    const published = publisher.publish(orders, { number: 1 }, undefined)
    const full = new PosthornError('POSTHORN_BACKLOG_FULL', { topic: 'orders', backlog: 5, limit: 5 })
    ;(await fake.append(0)).answer([{ refused: full }])
    await assert.rejects(published, full)
  })
})

describe('a topic that waits while its backlog is full', () => {
  const waiting = topic<{ number: number }>('waiting', { whenFull: 'wait', maxBacklog: 5 })
  const full = new PosthornError('POSTHORN_BACKLOG_FULL', { topic: 'waiting', backlog: 5, limit: 5 })

  test('offers its messages again with growing pauses, in their order', async () => {
    const { publisher, fake, clock } = setUp()
    const published = [publisher.publish(waiting, { number: 1 }, undefined)]
    ;(await fake.append(0)).answer([{ refused: full }])
    await clock.advance(4)
    assert.equal(fake.appends.length, 1)
    await clock.advance(1)
    ;(await fake.append(1)).answer([{ refused: full }])
    published.push(publisher.publish(waiting, { number: 2 }, undefined))
    await clock.advance(9)
    assert.equal(fake.appends.length, 2)
    await clock.advance(1)
    const third = await fake.append(2)
    assert.deepEqual(
      third.groups[0]!.messages.map(({ json }) => JSON.parse(json).data.number),
      [1, 2],
    )
    third.store()
    await Promise.all(published)
  })

  test('never pauses for more than 250 ms', async () => {
    const { publisher, fake, clock } = setUp()
    const published = publisher.publish(waiting, { number: 1 }, undefined)
    for (let attempt = 0; attempt < 12; attempt++) {
      ;(await fake.append(attempt)).answer([{ refused: full }])
      await clock.advance(250)
    }
    ;(await fake.append(12)).store()
    await published
  })

  test('does not hold up other topics', async () => {
    const { publisher, fake } = setUp()
    const held = publisher.publish(waiting, { number: 1 }, undefined)
    ;(await fake.append(0)).answer([{ refused: full }])
    const free = publisher.publish(orders, { number: 1 }, undefined)
    ;(await fake.append(1)).store()
    await free
    await Promise.all([publisher.close(), assert.rejects(held, { code: 'POSTHORN_CLOSED' })])
  })

  test('is rejected when the connection closes, also while a commit is under way', async () => {
    const { publisher, fake } = setUp()
    const held = publisher.publish(waiting, { number: 1 }, undefined)
    const first = await fake.append(0)
    const closing = publisher.close()
    first.answer([{ refused: full }])
    await assert.rejects(held, { code: 'POSTHORN_CLOSED' })
    await closing
  })
})

describe('closing', () => {
  test('waits for what is queued and under way, and refuses what comes later', async () => {
    const { publisher, fake } = setUp()
    const published = publisher.publish(orders, { number: 1 }, undefined)
    let closed = false
    const closing = publisher.close().then(() => {
      closed = true
    })
    const append = await fake.append(0)
    assert.equal(closed, false)
    append.store()
    await closing
    assert.equal((await published).duplicate, false)
    await assert.rejects(publisher.publish(orders, { number: 2 }, undefined), { code: 'POSTHORN_CLOSED' })
  })
})

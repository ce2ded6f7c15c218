import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { message, PosthornError, queue, topic } from 'posthorn'
import { z } from 'zod'
import { type Append, eventsOf } from './fake-engine.ts'
import { setUp } from './setup.ts'

const orders = topic<{ number: number }>('orders', { key: ({ number }) => `${number}` })
const stock = queue<{ item: string }>('stock', { whenFull: 'wait' })
const users = topic('users', { schema: z.object({ name: z.string() }) })

/** A schema that answers later. */
const slow: StandardSchemaV1<string> = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: async (value) => (value === 'wrong' ? { issues: [{ message: 'it is wrong' }] } : { value: `${value}` }),
  },
}
const slowly = topic('slowly', { schema: slow })

const full = new PosthornError('POSTHORN_BACKLOG_FULL', { topic: 'stock', backlog: 5, limit: 5 })

function contentOf({ groups }: Append): unknown[] {
  return groups.map((group) => [group.topic, eventsOf(group).map(({ data }) => data)])
}

describe('publishing together', () => {
  test('is one atomic append with a group for each topic, and answers in the order that was given', async () => {
    const { publisher, fake } = setUp()
    const messages = [
      message(orders, { number: 1 }, { id: 'mine', priority: 'high' }),
      message(stock, { item: 'pen' }, { priority: 'normal' }),
      message(orders, { number: 2 }),
    ]
    const published = publisher.publishAtomically(messages, undefined)
    const append = await fake.append(0)
    assert.equal(append.atomic, true)
    assert.deepEqual(contentOf(append), [
      ['orders', [{ number: 1 }, { number: 2 }]],
      ['stock', [{ item: 'pen' }]],
    ])
    const [first, second] = append.groups[0]!.messages
    assert.deepEqual([first!.deduplicate, first!.priority, first!.key], [true, 'high', '1'])
    assert.deepEqual([second!.deduplicate, second!.priority, second!.key], [undefined, undefined, '2'])
    assert.equal(append.groups[1]!.messages[0]!.priority, undefined)
    append.store()
    assert.deepEqual(
      (await published).map(({ offset }) => offset),
      [0, 2, 1],
    )
    assert.deepEqual(
      fake.ensured.map((config) => config.topic),
      ['orders', 'stock'],
    )
  })

  test('keeps the order within a topic that has two definitions', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    const newer = topic<{ number: number }>('orders', { version: 2 })
    const definitions = [orders, orders, newer, orders]
    const messages = definitions.map((definition, number) => message(definition, { number }))
    await publisher.publishAtomically(messages, undefined)
    assert.deepEqual(contentOf(fake.appends[0]!), [
      ['orders', [{ number: 0 }, { number: 1 }]],
      ['orders', [{ number: 2 }]],
      ['orders', [{ number: 3 }]],
    ])
  })

  test('of nothing does nothing', async () => {
    const { publisher, fake } = setUp()
    assert.deepEqual(await publisher.publishAtomically([], undefined), [])
    assert.equal(fake.appends.length, 0)
  })

  test('rejects with what the store refused it for, also where single messages would wait', async () => {
    const { publisher, fake } = setUp()
    const messages = [message(orders, { number: 1 }), message(stock, { item: 'pen' })]
    const published = publisher.publishAtomically(messages, undefined)
    ;(await fake.append(0)).answer([{ refused: full }, { refused: full }])
    await assert.rejects(published, full)
  })

  test('checks everything before anything is stored, schemas that take their time included', async () => {
    const { publisher, fake } = setUp({ maxMessageBytes: 500 }, { automatic: true })
    const right = message(slowly, 'right')
    const wrongOnes = {
      POSTHORN_INVALID_MESSAGE: message(users, { name: 5 as unknown as string }),
      POSTHORN_UNSERIALIZABLE_MESSAGE: message(orders, { number: Number.NaN }),
      POSTHORN_MESSAGE_TOO_LARGE: message(stock, { item: 'x'.repeat(600) }),
      POSTHORN_INVALID_OPTION: message(stock, { item: 'pen' }, { priority: 'urgent' as 'high' }),
    }
    for (const [code, wrong] of Object.entries(wrongOnes)) {
      await assert.rejects(publisher.publishAtomically([right, wrong], undefined), { code })
    }
    // One schema has answered and refused, while the other is still thinking, and will refuse as well.
    const both = [message(slowly, 'wrong'), wrongOnes.POSTHORN_INVALID_MESSAGE]
    await assert.rejects(publisher.publishAtomically(both, undefined), { code: 'POSTHORN_INVALID_MESSAGE' })
    assert.equal(fake.appends.length, 0)
    assert.equal(fake.ensured.length, 0)
  })

  test('counts in what is buffered, and is refused when there is no room', async () => {
    const { publisher, fake } = setUp({ maxBufferedBytes: 400 })
    const large = publisher.publishAtomically([message(stock, { item: 'x'.repeat(500) })], undefined)
    await fake.append(0)
    await assert.rejects(publisher.publishAtomically([message(stock, { item: 'pen' })], undefined), {
      code: 'POSTHORN_PUBLISH_BUFFER_FULL',
    })
    await assert.rejects(publisher.publish(stock, { item: 'pen' }, undefined), {
      code: 'POSTHORN_PUBLISH_BUFFER_FULL',
    })
    fake.appends[0]!.store()
    await large
    const after = publisher.publishAtomically([message(stock, { item: 'pen' })], undefined)
    ;(await fake.append(1)).store()
    assert.equal((await after).length, 1)
  })

  test('makes a deleted topic anew the next time', async () => {
    const { publisher, fake } = setUp()
    const messages = [message(orders, { number: 1 })]
    const gone = new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: 'orders' })
    const first = publisher.publishAtomically(messages, undefined)
    ;(await fake.append(0)).answer([{ refused: gone }])
    await assert.rejects(first, gone)
    const second = publisher.publishAtomically(messages, undefined)
    ;(await fake.append(1)).store()
    await second
    assert.equal(fake.ensured.length, 2)
  })

  test('is waited for by close', async () => {
    const { publisher, fake } = setUp()
    const published = publisher.publishAtomically([message(slowly, 'right')], undefined)
    let closed = false
    const closing = publisher.close().then(() => {
      closed = true
    })
    const append = await fake.append(0)
    assert.equal(closed, false)
    append.store()
    assert.equal((await published).length, 1)
    await closing
    await assert.rejects(publisher.publishAtomically([message(orders, { number: 1 })], undefined), {
      code: 'POSTHORN_CLOSED',
    })
  })
})

describe("publishing together in the user's transaction", () => {
  const messages = [message(orders, { number: 1 }), message(stock, { item: 'pen' }), message(orders, { number: 2 })]

  test('hands over all groups before the call returns', async () => {
    const { publisher, fake, topics } = setUp({}, { transactionalAppend: true })
    await Promise.all([topics.ensure(orders), topics.ensure(stock)])
    const published = publisher.publishAtomically(messages, 'the transaction')
    assert.deepEqual(
      fake.transactions.map(({ transaction, group }) => [transaction, group.topic, group.messages.length]),
      [
        ['the transaction', 'orders', 2],
        ['the transaction', 'stock', 1],
      ],
    )
    assert.deepEqual(
      (await published).map(({ offset }) => offset),
      [0, 2, 1],
    )
    assert.equal(fake.appends.length, 0)
  })

  test('stores nothing when one of the topics was not used before', async () => {
    const { publisher, fake, topics } = setUp({}, { transactionalAppend: true })
    await topics.ensure(orders)
    await assert.rejects(publisher.publishAtomically(messages, 'the transaction'), {
      code: 'POSTHORN_INVALID_TRANSACTION',
    })
    assert.equal(fake.transactions.length, 0)
  })

  test('rejects when a group is refused', async () => {
    const { publisher, fake, topics } = setUp({}, { transactionalAppend: true })
    await Promise.all([topics.ensure(orders), topics.ensure(stock)])
    fake.onAppendIn = (group) => (group.topic === 'stock' ? { refused: full } : { receipts: fake.receipts(group) })
    await assert.rejects(publisher.publishAtomically(messages, 'the transaction'), full)
  })

  test('is unsupported where the engine says so', async () => {
    const { publisher } = setUp()
    await assert.rejects(publisher.publishAtomically(messages, 'the transaction'), { code: 'POSTHORN_UNSUPPORTED' })
  })
})

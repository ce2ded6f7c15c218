import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CloudEvent } from 'cloudevents'
import { queue, topic } from 'posthorn'
import { z } from 'zod'
import type { PublishOptions } from '../../src/publisher/publish-options.ts'
import { eventsOf } from './fake-engine.ts'
import { START_MS, setUp } from './setup.ts'

const START = new Date(START_MS).toISOString()
const plain = topic<unknown>('plain')
const users = topic('user.signed_up', {
  schema: z.object({ userId: z.string(), at: z.coerce.date().optional() }),
  key: (user) => user.userId,
  version: 3,
})

async function publishOne(payload: unknown, options?: PublishOptions, definition: Parameters<typeof setUp>[0] = {}) {
  const { publisher, fake } = setUp(definition, { automatic: true })
  const published = await publisher.publish(plain, payload, options)
  const group = fake.appends[0]!.groups[0]!
  return { published, message: group.messages[0]!, event: eventsOf(group)[0]! }
}

describe('what is stored', () => {
  test('is the output of the schema, with key, time and version', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    const payload = { userId: 'u1', at: START_MS, stray: true }
    const { id } = await publisher.publish(users, payload, undefined)
    const group = fake.appends[0]!.groups[0]!
    assert.deepEqual(eventsOf(group)[0], {
      specversion: '1.0',
      id,
      source: 'test',
      type: 'user.signed_up',
      datacontenttype: 'application/json',
      dataschema: 'urn:posthorn:user.signed_up:3',
      time: START,
      subject: 'u1',
      data: { userId: 'u1', at: START },
    })
    assert.equal(group.messages[0]!.key, 'u1')
    assert.equal(group.messages[0]!.timeMs, START_MS)
  })

  test('is a valid CloudEvent, whatever characters it holds', async () => {
    const { event } = await publishOne(
      { text: 'quote " backslash \\ newline \n, ümläut, 🐴 and half of one \ud83d' },
      { id: 'id "quoted" \\', key: 'ключ "1"', expiresIn: '1h', headers: { traceparent: '00-"ab"-01', empty: '' } },
    )
    const cloudEvent = new CloudEvent({ ...event })
    assert.equal(cloudEvent.validate(), true)
    assert.equal(cloudEvent.id, 'id "quoted" \\')
    assert.equal(cloudEvent.subject, 'ключ "1"')
    assert.equal(cloudEvent.traceparent, '00-"ab"-01')
    assert.equal(cloudEvent.expirytime, new Date(START_MS + 3_600_000).toISOString())
    assert.deepEqual(event.data, { text: 'quote " backslash \\ newline \n, ümläut, 🐴 and half of one \ud83d' })
  })

  test('carries an id that the publisher gave as one to compare', async () => {
    const { published, message } = await publishOne(1, { id: 'mine' })
    assert.equal(published.id, 'mine')
    assert.equal(message.deduplicate, true)
    const own = await publishOne(1)
    assert.equal(own.message.deduplicate, undefined)
  })

  test('has no id, key or header that UTF-8 cannot hold, as two of them could become one', async () => {
    for (const options of [{ id: 'a\ud800' }, { key: '\udc00' }, { headers: { tenant: '\ud83d' } }]) {
      await assert.rejects(publishOne(1, options), { code: 'POSTHORN_INVALID_OPTION' })
    }
  })

  test('has its delivery time, from a delay or a date', async () => {
    assert.equal((await publishOne(1, { delay: '10m' })).message.deliverAtMs, START_MS + 600_000)
    assert.equal((await publishOne(1, { deliverAt: new Date(START_MS + 5) })).message.deliverAtMs, START_MS + 5)
    assert.equal((await publishOne(1, { deliverAt: new Date(START_MS - 5) })).message.deliverAtMs, undefined)
    assert.equal((await publishOne(1, { delay: 0 })).message.deliverAtMs, undefined)
  })

  test('takes a key from the options before the definition', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    await publisher.publish(users, { userId: 'u1' }, { key: 'other' })
    assert.equal(fake.appends[0]!.groups[0]!.messages[0]!.key, 'other')
  })

  test('has no schema version where there is no schema', async () => {
    assert.equal('dataschema' in (await publishOne(1)).event, false)
  })

  test('reports duplicates and delayed messages as the engine does', async () => {
    const { publisher, fake } = setUp()
    const published = publisher.publish(plain, 1, { id: 'twice' })
    ;(await fake.append(0)).answer([{ receipts: [{ duplicate: true }] }])
    assert.deepEqual(await published, { id: 'twice', duplicate: true })
  })
})

describe('what is refused before anything is stored', () => {
  const cyclic: Record<string, unknown> = {}
  cyclic.self = cyclic
  let deep: unknown[] = []
  for (let depth = 0; depth < 200_000; depth++) deep = [deep]
  const unserializable: Record<string, unknown> = {
    undefined: undefined,
    'a function': () => {},
    'a symbol': Symbol('s'),
    'a BigInt': { total: 1n },
    'a cycle': cyclic,
    'a function inside': { callback() {} },
    'a symbol in an array': [Symbol('s')],
    'NaN inside': { amount: Number.NaN },
    'an infinite number': [Number.POSITIVE_INFINITY],
    'a Map': { tags: new Map([['a', 1]]) },
    'a promise that was not awaited': Promise.resolve({}),
    'an error': { cause: new Error('x') },
    'what is nested too deeply': deep,
    'a toJSON that throws': {
      toJSON() {
        throw new Error('no')
      },
    },
  }
  for (const [name, payload] of Object.entries(unserializable)) {
    test(`a payload that is or holds ${name}`, async () => {
      const { publisher, fake } = setUp()
      await assert.rejects(publisher.publish(plain, payload, undefined), { code: 'POSTHORN_UNSERIALIZABLE_MESSAGE' })
      assert.equal(fake.ensured.length, 0)
    })
  }

  test('nothing that JSON can carry', async () => {
    const payloads = [
      null,
      0,
      '',
      false,
      [],
      {},
      new Date(0),
      { a: undefined, b: [[{}]] },
      Object.create(null),
      Buffer.of(1),
    ]
    for (const payload of payloads) {
      const { event } = await publishOne(payload)
      assert.deepEqual(event.data, JSON.parse(JSON.stringify(payload)))
    }
  })

  test('a payload that does not fit its schema; the error names the place', async () => {
    const { publisher } = setUp()
    await assert.rejects(publisher.publish(users, { userId: 7 }, undefined), {
      code: 'POSTHORN_INVALID_MESSAGE',
      message: /user\.signed_up.*userId: .*string/,
    })
  })

  test('a payload that an asynchronous schema refuses; one that it accepts is stored', async () => {
    const { publisher, fake } = setUp({}, { automatic: true })
    const schema = z.string().refine(async (text) => text === 'good')
    const checked = queue('checked', { schema })
    await assert.rejects(publisher.publish(checked, 'bad', undefined), { code: 'POSTHORN_INVALID_MESSAGE' })
    const published = publisher.publish(checked, 'good', undefined)
    await publisher.close()
    await published
    assert.equal(fake.appends.length, 1)
  })

  test('a payload of which the key function throws', async () => {
    const { publisher, fake } = setUp()
    const cause = new TypeError('no customer')
    const orders = topic<{ customer?: string }>('orders', {
      key: () => {
        throw cause
      },
    })
    await assert.rejects(publisher.publish(orders, {}, undefined), {
      code: 'POSTHORN_INVALID_MESSAGE',
      message: /orders.*key function threw no customer/,
      cause,
    })
    assert.equal(fake.ensured.length, 0)
  })

  test('a message that is too large, measured in bytes', async () => {
    const { publisher } = setUp({ maxMessageBytes: 300 }, { automatic: true })
    const frame = (await publishOne('')).message.json.length
    await publisher.publish(plain, 'x'.repeat(300 - frame), undefined)
    const tooLarge = { code: 'POSTHORN_MESSAGE_TOO_LARGE', details: { topic: 'plain', size: 301, limit: 300 } }
    await assert.rejects(publisher.publish(plain, 'x'.repeat(301 - frame), undefined), tooLarge)
    const twoBytesEach = 'ü'.repeat((300 - frame) / 2 + 1)
    await assert.rejects(publisher.publish(plain, twoBytesEach, undefined), { code: 'POSTHORN_MESSAGE_TOO_LARGE' })
  })

  const wrongOptions: Record<string, unknown> = {
    'an unknown option': { dealy: 5 },
    'options that are no object': 'now',
    'an empty id': { id: '' },
    'an id with a control character': { id: 'a\nb' },
    'a key that is no string': { key: 5 },
    'an empty key': { key: '' },
    'a bad delay': { delay: '30 parsecs' },
    'delay and deliverAt at once': { delay: 5, deliverAt: new Date(START_MS) },
    'an invalid date': { deliverAt: new Date('never') },
    'a date as text': { deliverAt: START },
    'an expiry of 0': { expiresIn: 0 },
    'an expiry before the delivery': { expiresIn: '1s', delay: '2s' },
    'a header with capitals': { headers: { TraceParent: 'x' } },
    'a reserved header': { headers: { subject: 'x' } },
    'a header that is no string': { headers: { tries: 3 } },
    'headers that are no object': { headers: 'a=b' },
  }
  for (const [name, options] of Object.entries(wrongOptions)) {
    test(name, async () => {
      const { publisher, fake } = setUp()
      const published = publisher.publish(plain, 1, options as PublishOptions)
      await assert.rejects(published, { code: 'POSTHORN_INVALID_OPTION' })
      assert.equal(fake.ensured.length, 0)
    })
  }
})

describe('publishing within a transaction of the user', () => {
  const transaction = { name: 'the connection' }

  test('reaches the engine, with that transaction, before publish returns', async () => {
    const { publisher, topics, fake } = setUp({}, { transactionalAppend: true })
    await topics.ensure(plain)
    const published = publisher.publish(plain, 1, { tx: transaction, id: 'a' })
    assert.equal(fake.transactions[0]!.transaction, transaction)
    assert.equal((await published).id, 'a')
    assert.equal(fake.appends.length, 0)
  })

  test('does not make a topic, which would wait for that transaction', async () => {
    const { publisher, fake } = setUp({}, { transactionalAppend: true })
    const published = publisher.publish(plain, 1, { tx: transaction })
    await assert.rejects(published, { code: 'POSTHORN_INVALID_TRANSACTION', message: /ensureTopics/ })
    assert.equal(fake.ensured.length, 0)
  })

  test('is refused by an engine that cannot do it, before the topic is made', async () => {
    const { publisher, fake } = setUp()
    await assert.rejects(publisher.publish(plain, 1, { tx: transaction }), { code: 'POSTHORN_UNSUPPORTED' })
    assert.equal(fake.ensured.length, 0)
  })
})

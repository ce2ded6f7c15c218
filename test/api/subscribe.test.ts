import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  type DeadLetter,
  type DeliveredEvent,
  Discard,
  type Post,
  PosthornError,
  queue,
  type SubscribeOptions,
  topic,
} from 'posthorn'
import { z } from 'zod'
import { readSubscribeOptions } from '../../src/api/subscribe-options.ts'
import { Collector, open, recordingLogger } from './setup.ts'

const orders = topic<{ number: number }>('orders')

describe('subscribe', () => {
  test('hands every message to every subscription, as it was published', async (context) => {
    const post = await open(context, { source: 'shop' })
    const [first, second] = [new Collector<DeliveredEvent<unknown>>(), new Collector<DeliveredEvent<unknown>>()]
    await post.subscribe(orders, 'first', first.add).ready
    await post.subscribe(orders, 'second', second.add).ready
    const { id } = await post.publish(orders, { number: 1 }, { key: 'k', headers: { tenant: 'acme' } })
    for (const collector of [first, second]) {
      const [event] = await collector.of(1)
      assert.equal(event!.id, id)
      assert.equal(event!.source, 'shop')
      assert.equal(event!.type, 'orders')
      assert.equal(event!.subject, 'k')
      assert.equal(event!.tenant, 'acme')
      assert.deepEqual(event!.data, { number: 1 })
      assert.ok(Object.isFrozen(event!.data))
    }
  })

  test('needs no awaiting of ready: the first subscription gets what was published before', async (context) => {
    const post = await open(context)
    const collector = new Collector<DeliveredEvent<unknown>>()
    await post.publish(orders, { number: 1 })
    post.subscribe(orders, 'late', collector.add)
    assert.equal((await collector.of(1)).length, 1)
  })

  test('starts where it is told to', async (context) => {
    const post = await open(context)
    for (let number = 0; number < 5; number++) await post.publish(orders, { number })
    const { firstOffset } = (await post.admin.topics())[0]!.partitions[0]!
    const collector = new Collector<DeliveredEvent<{ readonly number: number }>>()
    post.subscribe(orders, 'tail', collector.add, { from: { offset: firstOffset + 3 }, concurrency: 1 })
    assert.deepEqual(
      (await collector.of(2)).map(({ data }) => data.number),
      [3, 4],
    )
  })

  test('gives a batch handler arrays', async (context) => {
    const post = await open(context)
    const collector = new Collector<readonly unknown[]>()
    await post.publishAll(
      orders,
      Array.from({ length: 6 }, (_, number) => ({ number })),
    )
    post.subscribe(orders, 'bulk', (events) => collector.add(events), { batch: { size: 3 } })
    assert.deepEqual(
      (await collector.of(2)).map((events) => events.length),
      [3, 3],
    )
  })

  test('closes by itself, and can be opened again with other settings', async (context) => {
    const post = await open(context)
    const subscription = post.subscribe(orders, 'again', () => {}, { concurrency: 1 })
    await subscription.ready
    assert.equal(subscription.close(), subscription.close())
    await subscription.close()
    const collector = new Collector<unknown>()
    await using reopened = post.subscribe(orders, 'again', collector.add, { concurrency: 2 })
    await post.publish(orders, { number: 1 })
    await collector.of(1)
    assert.equal(reopened.name, 'again')
    assert.equal(reopened.topic, 'orders')
  })

  test('refuses the same name with other settings, and says which differ', async (context) => {
    const post = await open(context)
    const options = { retry: { attempts: 3 } }
    post.subscribe(orders, 'mail', () => {}, options)
    post.subscribe(orders, 'mail', () => {}, { ...options, timeout: 30_000 })
    post.subscribe(topic('others'), 'mail', () => {}, { concurrency: 1 })
    assert.throws(() => post.subscribe(orders, 'mail', () => {}, { retry: { attempts: 4 } }), {
      code: 'POSTHORN_SUBSCRIPTION_CONFLICT',
      details: { topic: 'orders', subscription: 'mail', setting: 'retry' },
    })
  })

  test('gives a queue the one subscription that is named like it', async (context) => {
    const post = await open(context)
    const jobs = queue<string>('jobs')
    const collector = new Collector<DeliveredEvent<string>>()
    const subscription = post.subscribe(jobs, collector.add)
    assert.equal(subscription.name, 'jobs')
    await post.publish(jobs, 'a')
    assert.equal((await collector.of(1))[0]!.data, 'a')
    const subscribe = post.subscribe.bind(post) as (...parameters: unknown[]) => unknown
    assert.throws(() => subscribe(jobs, 'other', () => {}), { code: 'POSTHORN_QUEUE_SUBSCRIPTION' })
    subscribe(jobs, 'jobs', () => {})
  })

  test('a failure to open rejects ready and is logged, and is no unhandled rejection', async (context) => {
    const { logger, errors } = recordingLogger()
    const post = await open(context, { environment: { logger } })
    await post.publish(topic('shared', { partitions: 1 }), 1)
    const conflicting = topic('shared', { partitions: 2 })
    const subscription = post.subscribe(conflicting, 's', () => {})
    await assert.rejects(subscription.ready, { code: 'POSTHORN_TOPIC_CONFLICT' })
    assert.equal(errors.length, 1)
    assert.match(JSON.stringify(errors[0]), /POSTHORN_TOPIC_CONFLICT.*partitions/)
    post.subscribe(topic('shared', { partitions: 3 }), 'unattended', () => {})
    await new Promise((resolve) => setImmediate(resolve))
    await subscription.close()
  })
})

describe('what subscribe refuses at once', () => {
  type Subscribe = (...parameters: unknown[]) => unknown
  const refused = (name: string, code: string, attempt: (subscribe: Subscribe) => unknown) =>
    test(name, async (context) => {
      const post: Post = await open(context)
      assert.throws(() => attempt(post.subscribe.bind(post) as Subscribe), { code })
    })
  const handler = () => {}
  refused('a name instead of a definition', 'POSTHORN_INVALID_OPTION', (subscribe) => subscribe('orders', 's', handler))
  refused('a topic without a name', 'POSTHORN_INVALID_NAME', (subscribe) => subscribe(orders, handler))
  refused('a bad name', 'POSTHORN_INVALID_NAME', (subscribe) => subscribe(orders, 'my mail', handler))
  refused('no handler', 'POSTHORN_INVALID_OPTION', (subscribe) => subscribe(orders, 's', { concurrency: 5 }))

  const wrong: Record<string, unknown> = {
    'an unknown option': { concurency: 5 },
    'no concurrency': { concurrency: 0 },
    'a timeout of 0': { timeout: 0 },
    'an unknown retry option': { retry: { attempt: 5 } },
    'an unknown backoff option': { retry: { backoff: { maximum: '5s' } } },
    'an unknown backoff': { retry: { backoff: { type: 'quadratic' } } },
    'no attempts': { retry: { attempts: 0 } },
    'a batch without a size': { batch: { wait: '1s' } },
    'an unknown batch option': { batch: { size: 5, timeout: 5 } },
    'an unknown start': { from: 'yesterday' },
    'an invalid date': { from: new Date('yesterday') },
    'a negative offset': { from: { offset: -1 } },
    'no crashes': { maxCrashes: 0 },
  }
  for (const [name, options] of Object.entries(wrong)) {
    refused(name, 'POSTHORN_INVALID_OPTION', (subscribe) => subscribe(orders, 's', handler, options))
  }
})

describe('subscribe options', () => {
  test('have defaults', () => {
    const backoff = { type: 'exponential', delayMs: 1_000, maxMs: 600_000, jitter: 'full' }
    assert.deepEqual(readSubscribeOptions({}), {
      concurrency: 10,
      timeoutMs: 30_000,
      retry: { attempts: 16, backoff },
      batch: undefined,
      start: undefined,
      maxCrashes: 3,
      ordered: false,
      maxParked: 100_000,
      limits: [],
      breaker: undefined,
      transactional: false,
    })
  })

  test('may be given in part', () => {
    const options: SubscribeOptions = { retry: { backoff: { delay: '5s' } }, from: new Date(5) }
    const { retry, start } = readSubscribeOptions(options)
    assert.deepEqual(retry.backoff, { type: 'exponential', delayMs: 5_000, maxMs: 600_000, jitter: 'full' })
    assert.equal(retry.attempts, 16)
    assert.deepEqual(start, { timeMs: 5 })
  })
})

describe('messages of another schema version', () => {
  const first = topic('users', { schema: z.object({ name: z.string() }) })
  const second = topic('users', {
    version: 2,
    schema: z.object({
      name: z.string().min(3),
      plan: z.string().default('free'),
      since: z.coerce.date().default(new Date(0)),
    }),
  })

  test('are validated when they are delivered; the handler gets the output in its JSON form', async (context) => {
    const post = await open(context)
    await post.publish(first, { name: 'Anna' })
    const collector = new Collector<DeliveredEvent<unknown>>()
    post.subscribe(second, 'new', collector.add)
    const [event] = await collector.of(1)
    assert.deepEqual(event!.data, { name: 'Anna', plan: 'free', since: new Date(0).toISOString() })
    assert.equal(event!.dataschema, 'urn:posthorn:users:1')
    assert.ok(Object.isFrozen(event!.data))
  })

  test('become dead letters where they do not fit', async (context) => {
    const post = await open(context)
    const collector = new Collector<DeliveredEvent<{ readonly name: string }>>()
    await post.publish(first, { name: 'Al' })
    await post.publish(first, { name: 'Anna' })
    const subscription = post.subscribe(second, 'new', collector.add)
    assert.equal((await collector.of(1))[0]!.data.name, 'Anna')
    await subscription.close()
    const [letter] = await post.admin.deadLetters(second, 'new')
    assert.equal(letter!.reason, 'invalid')
    assert.match(JSON.stringify(letter!.failures), /POSTHORN_STORED_MESSAGE_INVALID/)
  })
})

describe('admin', () => {
  test('shows, redrives and deletes dead letters, page by page or one after another', async (context) => {
    const post = await open(context)
    let failing = true
    const handled = new Collector<unknown>()
    const subscription = post.subscribe(orders, 'flaky', (event) => {
      handled.add(event)
      if (failing) throw new Discard('not today')
    })
    await subscription.ready
    await post.publishAll(
      orders,
      Array.from({ length: 250 }, (_, number) => ({ number })),
    )
    await handled.of(250)
    await subscription.close()
    assert.equal((await post.admin.deadLetters(orders, 'flaky', { limit: 7 })).length, 7)
    const letters: DeadLetter[] = []
    for await (const letter of post.admin.eachDeadLetter('orders', 'flaky')) letters.push(letter)
    assert.equal(letters.length, 250)
    assert.equal(
      await post.admin.deleteDeadLetters(
        orders,
        'flaky',
        letters.slice(0, 50).map(({ id }) => id),
      ),
      50,
    )
    assert.equal(await post.admin.redrive(orders, 'flaky', { ids: [letters[60]!.id] }), 1)
    assert.equal(await post.admin.redrive(orders, 'flaky'), 199)
    failing = false
    post.subscribe(orders, 'flaky', handled.add)
    await handled.of(450)
  })

  test('pauses, resumes, replays, peeks, purges and deletes', async (context) => {
    const post = await open(context)
    const handled = new Collector<unknown>()
    await post.subscribe(orders, 's', handled.add).ready
    await post.admin.pause(orders, 's')
    await post.publish(orders, { number: 1 })
    assert.equal((await post.admin.subscriptions(orders))[0]!.paused, true)
    await post.admin.resume(orders, 's')
    await handled.of(1)
    await post.admin.replay(orders, 's', 'earliest')
    await handled.of(2)
    assert.equal((await post.admin.peek(orders)).length, 1)
    assert.equal((await post.admin.consumers()).length, 1)
    assert.equal(await post.admin.purge('orders'), 1)
    assert.deepEqual(await post.admin.checkIntegrity(), [])
    assert.equal(typeof (await post.admin.applyRetention()), 'number')
    await post.admin.deleteSubscription(orders, 's')
    assert.equal((await post.admin.subscriptions()).length, 0)
  })

  for (const deleted of ['subscription', 'topic']) {
    test(`closes subscriptions whose ${deleted} is deleted, and says so; they can be made anew`, async (context) => {
      const { logger, errors } = recordingLogger()
      const post = await open(context, { environment: { logger } })
      await post.subscribe(orders, 's', () => {}).ready
      if (deleted === 'topic') await post.admin.deleteTopic(orders)
      else await post.admin.deleteSubscription(orders, 's')
      const handled = new Collector<unknown>()
      // With other settings, it can be opened only after the one before has closed.
      const again = () => post.subscribe(orders, 's', handled.add, { concurrency: 3 })
      await eventually(again)
      assert.equal(errors.length, 1)
      assert.match(JSON.stringify(errors), /POSTHORN_SUBSCRIPTION_NOT_FOUND/)
      await post.publish(orders, { number: 1 })
      await handled.of(1)
    })
  }

  test('a deleted topic comes back when it is published to again', async (context) => {
    const post = await open(context)
    await post.publish(orders, { number: 1 })
    await post.admin.deleteTopic(orders)
    assert.deepEqual(await post.admin.topics(), [])
    await post.publish(orders, { number: 2 })
    assert.equal((await post.admin.topics())[0]!.messages, 1)
  })

  test('names what it cannot find, and refuses what it does not know', async (context) => {
    const post = await open(context)
    await assert.rejects(post.admin.pause('nothing', 's'), (error) => error instanceof PosthornError)
    await assert.rejects(post.admin.peek(orders, { form: 1 } as object), { code: 'POSTHORN_INVALID_OPTION' })
    await assert.rejects(post.admin.deadLetters(orders, 's', { limit: 0 }), { code: 'POSTHORN_INVALID_OPTION' })
    await assert.rejects(post.admin.redrive(orders, 's', { perSecond: 0 }), { code: 'POSTHORN_INVALID_OPTION' })
    await assert.rejects(post.admin.replay(orders, 's', 'start' as 'earliest'), { code: 'POSTHORN_INVALID_OPTION' })
    await assert.rejects(post.admin.purge(5 as unknown as string), { code: 'POSTHORN_INVALID_NAME' })
  })
})

/** Tries, turn by turn of the event loop, until nothing is thrown. */
async function eventually(attempt: () => unknown): Promise<void> {
  for (let turn = 0; turn < 1_000; turn++) {
    try {
      attempt()
      return
    } catch {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  attempt()
}

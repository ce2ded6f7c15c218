/** The options that say in which order, how fast and in what surroundings handlers run: what is read out of them. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Post, PosthornError, type StoredEvent, topic } from 'posthorn'
import { connectTest } from 'posthorn/testing'
import { readSubscribeOptions, type UncheckedSubscribeOptions } from '../../src/api/subscribe-options.ts'
import { Collector, open } from './setup.ts'

const orders = topic<{ number: number }>('orders')
const byTenant = ({ tenant }: StoredEvent) => String(tenant)

describe('ordered', () => {
  test('goes on after a dead letter unless it is told to block', () => {
    assert.equal(readSubscribeOptions({ ordered: false }).ordered, false)
    assert.deepEqual(readSubscribeOptions({ ordered: true }).ordered, { onExhausted: 'dead-letter' })
    assert.deepEqual(readSubscribeOptions({ ordered: {} }).ordered, { onExhausted: 'dead-letter' })
    const block = { onExhausted: 'block' } as const
    assert.deepEqual(readSubscribeOptions({ ordered: block }).ordered, block)
  })
})

describe('an ordered subscription', () => {
  test('goes on with a key only after its failed message, and with others meanwhile', async (context) => {
    const post = await open(context)
    const done = new Collector<string>()
    const letters = topic<string>('letters', { key: (text) => text.slice(0, 1) })
    const handle = ({ data }: { readonly data: string }, { attempt }: { readonly attempt: number }) => {
      if (data === 'a1' && attempt < 3) throw new Error('not yet')
      done.add(data)
    }
    const retry = { backoff: { delay: '5ms', jitter: 'none' } } as const
    await post.subscribe(letters, 's', handle, { ordered: true, retry }).ready
    await post.publishAll(letters, ['a1', 'a2', 'b1', 'a3', 'b2'])
    const order = await done.of(5)
    assert.deepEqual(
      order.filter((text) => text.startsWith('a')),
      ['a1', 'a2', 'a3'],
    )
    assert.deepEqual(order.slice(0, 2), ['b1', 'b2'])
  })
})

describe('a limited subscription', () => {
  test('starts no more than it may, each tenant by itself, and buries what has no tenant', async (context) => {
    const { post, clock } = await connectTest()
    context.after(() => post.close())
    const started: string[] = []
    const byTenantOnly = (event: StoredEvent) => event.tenant as string
    const rateLimit = { limit: 1, per: '1m', by: byTenantOnly } as const
    await post.subscribe(orders, 's', (event) => started.push(String(event.tenant)), { rateLimit }).ready
    const tenants = ['acme', 'acme', 'globex', 'acme']
    await post.publishAll(
      orders,
      tenants.map((_tenant, number) => ({ number })),
      (_order, index) => ({
        headers: { tenant: tenants[index]! },
      }),
    )
    await post.publish(orders, { number: 9 })
    await clock.advance(10_000)
    assert.deepEqual(started.toSorted(), ['acme', 'globex'])
    const [letter] = await post.admin.deadLetters(orders, 's')
    assert.deepEqual([letter?.reason, letter?.event?.data], ['invalid', { number: 9 }])
    await clock.advance(70_000)
    assert.deepEqual(started.toSorted(), ['acme', 'acme', 'globex'])
  })
})

describe('limits', () => {
  test('are named by kind and number', () => {
    const { limits } = readSubscribeOptions({
      rateLimit: [
        { limit: 500, per: '1s', burst: 50 },
        { limit: 10, per: '1m', by: byTenant },
      ],
      maxInFlight: [{ limit: 5 }, { limit: 2, by: byTenant }],
    })
    assert.deepEqual(limits, [
      { kind: 'rate', name: 'rate', limit: 500, perMs: 1_000, burst: 50, graceMs: 50 },
      { kind: 'rate', name: 'rate-2', limit: 10, perMs: 60_000, burst: 1, graceMs: 100, by: byTenant },
      { kind: 'inFlight', name: 'in-flight', limit: 5 },
      { kind: 'inFlight', name: 'in-flight-2', limit: 2, by: byTenant },
    ])
  })

  test('may be one, and a number for messages in flight', () => {
    const { limits } = readSubscribeOptions({ rateLimit: { limit: 1, per: 10 }, maxInFlight: 3 })
    assert.deepEqual(limits, [
      { kind: 'rate', name: 'rate', limit: 1, perMs: 10, burst: 1, graceMs: 5 },
      { kind: 'inFlight', name: 'in-flight', limit: 3 },
    ])
    assert.deepEqual(readSubscribeOptions({ rateLimit: [], maxInFlight: [] }).limits, [])
  })
})

describe('how late a start may be', () => {
  const graceMs = (options: UncheckedSubscribeOptions) => {
    const [limit] = readSubscribeOptions(options).limits
    return limit?.kind === 'rate' ? limit.graceMs : undefined
  }
  const rate = (per: number) => ({ rateLimit: { limit: 10, per } })

  test('is a twentieth of the time, but enough for a busy event loop', () => {
    assert.deepEqual(
      [10, 100, 200, 1_000, 2_000, 3_600_000].map((per) => graceMs(rate(per))),
      [5, 25, 50, 50, 100, 100],
    )
  })

  test('is more for batches, the longer they wait for their messages', () => {
    const batches = (per: number, wait: number) => graceMs({ ...rate(per), batch: { size: 10, wait } })
    assert.equal(batches(1_000, 0), 100)
    assert.equal(batches(1_000, 5_000), 100)
    assert.equal(batches(60_000, 2_000), 4_000)
    assert.equal(batches(3_600_000, 60_000), 10_000)
    assert.equal(batches(100, 0), 25)
  })
})

describe('an option that is true, false or an object', () => {
  test('says so when it is given something else', () => {
    for (const wrong of ['yes', 1, null, []]) {
      for (const name of ['ordered', 'breaker']) {
        const options = { [name]: wrong } as UncheckedSubscribeOptions
        assert.throws(() => readSubscribeOptions(options), {
          code: 'POSTHORN_INVALID_OPTION',
          message: /expected true, false or an object/,
        })
      }
    }
  })
})

describe('a limit by an async function', () => {
  test('is refused at once', () => {
    const by = (async () => 'acme') as unknown as () => string
    const expected = { code: 'POSTHORN_INVALID_OPTION', message: /async function; expected one that returns text/ }
    assert.throws(() => readSubscribeOptions({ rateLimit: { limit: 5, per: '1s', by } }), expected)
    assert.throws(() => readSubscribeOptions({ maxInFlight: { limit: 5, by } }), expected)
  })
})

describe('transactional', () => {
  test('has one handler at a time unless it is told otherwise', () => {
    assert.equal(readSubscribeOptions({ transactional: true }).concurrency, 1)
    assert.equal(readSubscribeOptions({ transactional: true, concurrency: 4 }).concurrency, 4)
    assert.equal(readSubscribeOptions({ transactional: false }).concurrency, 10)
  })

  test('is refused at once by an engine that has no such handlers', async (context) => {
    const post = await open(context)
    assert.throws(() => post.subscribe(orders, 's', () => {}, { transactional: true }), {
      code: 'POSTHORN_UNSUPPORTED',
      details: { engine: 'memory', feature: 'handlers within a transaction of the store (transactional)' },
    })
    await post.subscribe(orders, 's', () => {}).ready
  })
})

const wrong: Record<string, unknown> = {
  'ordered that is neither': { ordered: 'yes' },
  'an unknown option of ordered': { ordered: { onFailure: 'block' } },
  'an unknown end': { ordered: { onExhausted: 'wait' } },
  'no parked messages': { maxParked: 0 },
  'half a parked message': { maxParked: 0.5 },
  'a rate that is no object': { rateLimit: 5 },
  'a rate without a limit': { rateLimit: { per: '1s' } },
  'a rate of 0': { rateLimit: { limit: 0, per: '1s' } },
  'a rate without a time': { rateLimit: { limit: 5 } },
  'a rate in no time': { rateLimit: { limit: 5, per: 0 } },
  'a burst above the limit': { rateLimit: { limit: 5, per: '1s', burst: 6 } },
  'no burst': { rateLimit: { limit: 5, per: '1s', burst: 0 } },
  'a rate by what is no function': { rateLimit: { limit: 5, per: '1s', by: 'tenant' } },
  'an unknown option of a rate': { rateLimit: [{ limit: 5, per: '1s', max: 5 }] },
  'too many rates': { rateLimit: Array.from({ length: 11 }, () => ({ limit: 5, per: '1s' })) },
  'nothing in flight': { maxInFlight: 0 },
  'null in flight': { maxInFlight: null },
  'text in flight': { maxInFlight: '5' },
  'in flight without a limit': { maxInFlight: { by: byTenant } },
  'an unknown option in flight': { maxInFlight: { limit: 5, per: '1s' } },
  'a breaker that is neither': { breaker: 'on' },
  'an unknown option of the breaker': { breaker: { limit: 5 } },
  'transactional that is neither': { transactional: 'sqlite' },
  'a transaction for a batch': { transactional: true, batch: { size: 5 } },
}

describe('subscribe refuses', () => {
  for (const [name, options] of Object.entries(wrong)) {
    test(name, () => {
      assert.throws(() => readSubscribeOptions(options as UncheckedSubscribeOptions), {
        code: 'POSTHORN_INVALID_OPTION',
      })
    })
  }
})

describe('two subscriptions of one name', () => {
  /** Subscribes with both; the setting in which they differ. */
  function difference(post: Post, one: UncheckedSubscribeOptions, other: UncheckedSubscribeOptions): unknown {
    const subscribe = post.subscribe.bind(post) as (...parameters: unknown[]) => unknown
    subscribe(orders, 's', () => {}, one)
    try {
      subscribe(orders, 's', () => {}, other)
      return undefined
    } catch (error) {
      assert.ok(error instanceof PosthornError && error.code === 'POSTHORN_SUBSCRIPTION_CONFLICT', String(error))
      return error.details.setting
    }
  }

  const pairs: Record<string, readonly [UncheckedSubscribeOptions, UncheckedSubscribeOptions]> = {
    ordered: [{ ordered: true }, { ordered: { onExhausted: 'block' } }],
    maxParked: [{}, { maxParked: 5 }],
    rateLimit: [{ rateLimit: { limit: 5, per: '1s' } }, { rateLimit: { limit: 5, per: '2s' } }],
    maxInFlight: [{ maxInFlight: 5 }, { maxInFlight: { limit: 5, by: (event) => event.id } }],
    breaker: [{ breaker: true }, { breaker: { threshold: 7 } }],
  }
  for (const [setting, [one, other]] of Object.entries(pairs)) {
    test(`may not differ in ${setting}`, async (context) => {
      assert.equal(difference(await open(context), one, other), setting)
    })
  }

  test('may have functions that are made anew by the same code', async (context) => {
    const options = (): UncheckedSubscribeOptions => ({
      ordered: true,
      rateLimit: { limit: 5, per: '1s', by: (event) => event.id },
      breaker: { isOutage: (error) => error instanceof TypeError },
    })
    assert.equal(difference(await open(context), options(), options()), undefined)
    const others = { ...options(), rateLimit: { limit: 5, per: '1s', by: () => 'all' } } as const
    assert.equal(difference(await open(context), options(), others), 'rateLimit')
  })
})

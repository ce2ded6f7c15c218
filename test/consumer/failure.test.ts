import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Discard, RetryAfter } from '../../src/consumer/outcomes.ts'
import { type BackoffOptions, readRetry } from '../../src/consumer/retry-options.ts'
import { retryDelayMs } from '../../src/consumer/retry-policy.ts'
import { failureOf } from '../../src/consumer/settlement/failure.ts'
import { grantOf, offsets, settleDown } from './fake-source.ts'
import { START_MS, startRig } from './harness.ts'

const hostile: readonly (readonly [string, unknown])[] = [
  ['undefined', undefined],
  ['null', null],
  ['a string', 'it broke'],
  ['a number', 42],
  ['a symbol', Symbol('broken')],
  ['an object', { reason: 'broken' }],
  ['an object without a prototype', Object.create(null)],
  ['a function', () => {}],
  [
    'throwing getters',
    Object.defineProperty({}, 'message', {
      get: () => {
        throw new Error('no')
      },
    }),
  ],
  [
    'a throwing proxy',
    new Proxy(
      {},
      {
        get: () => {
          throw new Error('no')
        },
        getPrototypeOf: () => {
          throw new Error('no')
        },
      },
    ),
  ],
  ['a revoked proxy', revoked()],
  [
    'an object with a hostile inspector',
    {
      [Symbol.for('nodejs.util.inspect.custom')]: () => {
        throw new Error('no')
      },
    },
  ],
  ['an error whose message is no text', Object.assign(new Error(), { message: { a: 1 }, stack: 7, code: {} })],
]

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

describe('a failed attempt', () => {
  test('is tried again by the policy until the attempts are used up', async () => {
    const { source, consumer } = await startRig({
      handle: () => {
        throw new Error('no')
      },
    })
    source.offer(grantOf([0]), grantOf([1], { attempt: 2 }), grantOf([2], { attempt: 3 }))
    await settleDown()
    assert.deepEqual(source.verdicts().sort(), ['0 retry', '1 retry', '2 dead attempts'])
    const retry = source.exceptions().find(({ offset }) => offset === 1)
    assert.ok(retry?.kind === 'retry')
    assert.equal(retry.dueAtMs, START_MS + 1_000)
    assert.equal(retry.failure.attempt, 2)
    assert.equal(retry.failure.atMs, START_MS)
    await consumer.close()
  })

  test('is warned of at once, and then at most every ten seconds', async () => {
    const { source, consumer, clock, logger } = await startRig({
      handle: () => {
        throw new Error('no')
      },
    })
    const warnings = () => logger.lines.filter(({ level, message }) => level === 'warn' && /tried again/.test(message))
    source.offer(grantOf([0, 1]))
    await settleDown()
    assert.equal(warnings().length, 1)
    await clock.advance(10_000)
    source.offer(grantOf([2]))
    await settleDown()
    assert.equal(warnings().length, 2)
    await consumer.close()
  })

  test('is the last one when the handler discards the message', async () => {
    const { source, consumer } = await startRig({
      handle: async () => {
        throw new Discard('gone')
      },
    })
    source.offer(grantOf([0]))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 dead discarded'])
    await consumer.close()
  })

  test('is followed by the delay that the handler asks for, and counts all the same', async () => {
    const { source, consumer } = await startRig({
      handle: () => {
        throw new RetryAfter('45s')
      },
    })
    source.offer(grantOf([0]), grantOf([1], { attempt: 3 }))
    await settleDown()
    assert.deepEqual(source.verdicts().sort(), ['0 retry', '1 dead attempts'])
    const retry = source.exceptions().find(({ offset }) => offset === 0)
    assert.equal(retry?.kind === 'retry' && retry.dueAtMs, START_MS + 45_000)
    await consumer.close()
  })

  test('is refused a delay that makes no sense, which counts as a failure like any other', async () => {
    const { source, consumer } = await startRig({
      handle: () => {
        // @ts-expect-error: no duration
        throw new RetryAfter('soon')
      },
    })
    source.offer(grantOf([0]))
    await settleDown()
    const [retry] = source.exceptions()
    assert.ok(retry?.kind === 'retry')
    assert.equal(retry.dueAtMs, START_MS + 1_000)
    assert.equal(retry.failure.code, 'POSTHORN_INVALID_OPTION')
    assert.match(retry.failure.message, /"soon"/)
    await consumer.close()
  })

  test('may throw anything, at once or by its promise', async () => {
    const { source, consumer } = await startRig({
      handle: (event) => {
        const [, thrown] = hostile[(event.data as number) % hostile.length]!
        if ((event.data as number) < hostile.length) throw thrown
        return Promise.reject(thrown)
      },
    })
    source.offer(grantOf(offsets(0, 2 * hostile.length)))
    await settleDown()
    assert.equal(source.exceptions().filter(({ kind }) => kind === 'retry').length, 2 * hostile.length)
    await consumer.close()
  })

  test('includes a promise that cannot be waited for', async () => {
    const thenable = Object.defineProperty({}, 'then', {
      get: () => {
        throw new Error('no then')
      },
    })
    const { source, consumer } = await startRig({ handle: () => thenable })
    source.offer(grantOf([0]))
    await settleDown()
    assert.deepEqual(source.verdicts(), ['0 retry'])
    await consumer.close()
  })
})

describe('a failure record', () => {
  for (const [name, thrown] of hostile) {
    test(`is made of ${name}`, () => {
      const failure = failureOf(thrown, 1, 2)
      assert.equal(typeof failure.name, 'string')
      assert.equal(typeof failure.message, 'string')
      assert.doesNotThrow(() => JSON.stringify(failure))
    })
  }

  test('keeps what an error says', () => {
    const error = Object.assign(new RangeError('too far'), { code: 'EFAR' })
    const { stack, ...failure } = failureOf(error, 4, 99)
    assert.deepEqual(failure, { attempt: 4, atMs: 99, name: 'RangeError', message: 'too far', code: 'EFAR' })
    assert.equal(stack, error.stack)
  })

  test('is cut to its limits, and stays well-formed', () => {
    const error = new Error('\u{1f4ef}'.repeat(5_000))
    error.stack = `x${'\u{1f4ef}'.repeat(5_000)}`
    const failure = failureOf(error, 1, 1)
    assert.equal(failure.message.length, 2_048)
    assert.equal(failure.stack?.length, 4_096)
    assert.ok(failure.message.isWellFormed() && failure.stack?.isWellFormed())
  })
})

describe('the backoff', () => {
  const random = { number: () => 0.25, fill: () => {} }
  const delays = (type: 'exponential' | 'linear' | 'fixed', jitter: 'full' | 'none' = 'none') =>
    [1, 2, 3, 4, 5_000].map((attempt) => retryDelayMs({ type, delayMs: 1_000, maxMs: 6_000, jitter }, attempt, random))

  test('grows by its type, up to its limit', () => {
    assert.deepEqual(delays('exponential'), [1_000, 2_000, 4_000, 6_000, 6_000])
    assert.deepEqual(delays('linear'), [1_000, 2_000, 3_000, 4_000, 6_000])
    assert.deepEqual(delays('fixed'), [1_000, 1_000, 1_000, 1_000, 1_000])
  })

  test('is drawn from the whole span by full jitter', () => {
    assert.deepEqual(delays('exponential', 'full'), [250, 500, 1_000, 1_500, 1_500])
  })

  test('is limited to ten minutes, unless more was asked for', () => {
    const maxOf = (backoff: BackoffOptions) => readRetry({ backoff }, 8).backoff.maxMs
    assert.deepEqual(
      [maxOf({}), maxOf({ delay: '1h' }), maxOf({ delay: '1h', max: '1s' })],
      [600_000, 3_600_000, 1_000],
    )
  })

  test('of nothing stays nothing', () => {
    assert.equal(retryDelayMs({ type: 'exponential', delayMs: 0, maxMs: 10, jitter: 'none' }, 5_000, random), 0)
  })
})

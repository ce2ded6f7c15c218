import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type DeliveryContext, Discard, PosthornError, RetryAfter } from 'posthorn'
import { grantOf, messageAt, settleDown } from './fake-source.ts'
import { type Rig, startRig } from './harness.ts'

type Work = (context: DeliveryContext) => Promise<unknown>

interface Stepped extends Rig {
  /** What `work` came to, in order of its calls. */
  readonly outcomes: unknown[]
  /** Delivers the message of offset 7, under lease 7, once more. */
  deliver(attempt?: number): Promise<void>
  /** What the store has of it. */
  results(): Record<string, string>
}

/** A consumer whose handler does `work`. */
async function start(work: Work): Promise<Stepped> {
  const outcomes: unknown[] = []
  const rig = await startRig({
    handle: async (_event, context) => {
      try {
        outcomes.push(await work(context))
      } catch (error) {
        outcomes.push(error)
        throw error
      }
    },
  })
  return {
    ...rig,
    outcomes,
    async deliver(attempt = 1) {
      rig.source.offer(grantOf([7], { attempt }))
      await settleDown()
    },
    results: () => Object.fromEntries(rig.source.recordedSteps.get('7/7') ?? []),
  }
}

/** Delivers one message and gives what `work` came to. */
async function outcomeOf(work: Work, attempt = 1): Promise<unknown> {
  const rig = await start(work)
  await rig.deliver(attempt)
  await rig.consumer.close()
  return rig.outcomes[0]
}

const failed = new Error('the service answered 500')

describe('a step', () => {
  test('resolves once its result is kept, and is forgotten with the acknowledgement', async () => {
    const seen: unknown[] = []
    const rig = await start(async ({ step }) => {
      seen.push(await step('charge', async () => ({ id: 'ch_1' })), rig.results())
      seen.push(await step('mail', () => {}), rig.results())
    })
    await rig.deliver()
    const charged = { charge: '{"value":{"id":"ch_1"}}' }
    assert.deepEqual(seen, [{ id: 'ch_1' }, charged, undefined, { ...charged, mail: '{}' }])
    const [settlement] = rig.source.settlements.flat()
    assert.deepEqual([settlement!.acked, settlement!.stepped], [[7, 8], [7]])
    await rig.consumer.close()
  })

  test('that is finished is not run again by the next attempt, which sees the same result', async () => {
    const calls: string[] = []
    const rig = await start(async ({ step, attempt }) => {
      const charge = await step('charge', () => {
        calls.push(`charge ${attempt}`)
        return { at: new Date(5), amount: 3, note: undefined }
      })
      await step('mail', () => {
        calls.push(`mail ${attempt}`)
        if (attempt === 1) throw failed
      })
      return charge
    })
    await rig.deliver(1)
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    assert.equal(rig.source.settlements.flat()[0]!.stepped, undefined)
    await rig.deliver(2)
    assert.deepEqual(calls, ['charge 1', 'mail 1', 'mail 2'])
    assert.deepEqual(rig.outcomes, [failed, { at: '1970-01-01T00:00:00.005Z', amount: 3 }])
    assert.deepEqual(rig.source.settlements.flat().at(-1)!.stepped, [7])
    await rig.consumer.close()
  })

  test('gives the first attempt what JSON makes of the result, as it gives the later ones', async () => {
    const outcome = await outcomeOf(({ step }) => step('when', () => ({ at: new Date(5), skipped: undefined })))
    assert.deepEqual(outcome, { at: '1970-01-01T00:00:00.005Z' })
    for (const value of [undefined, null, 0, '', false, [], [null]]) {
      assert.deepEqual(await outcomeOf(({ step }) => step('value', () => value)), value)
    }
  })

  test('asks the store once for what is finished, however many there are', async () => {
    const rig = await start(({ step }) =>
      Promise.all(['a', 'b', 'c'].map((name) => step(name, async () => name.toUpperCase()))),
    )
    let asked = 0
    const { steps } = rig.source
    rig.source.steps = (lease, offset) => {
      asked++
      return steps.call(rig.source, lease, offset)
    }
    await rig.deliver()
    assert.deepEqual(rig.outcomes, [['A', 'B', 'C']])
    assert.equal(asked, 1)
    await rig.consumer.close()
  })

  test('costs nothing where there is none: the store is not asked, and told nothing', async () => {
    const rig = await start(async ({ step }) => typeof step)
    rig.source.steps = () => assert.fail('the store was asked')
    await rig.deliver()
    assert.deepEqual(rig.outcomes, ['function'])
    assert.equal(rig.source.settlements.flat()[0]!.stepped, undefined)
    await rig.consumer.close()
  })

  test('may not have the name of another one of the same call', async () => {
    const rig = await start(async ({ step }) => {
      await step('once', () => 1)
      await step('once', () => 2)
    })
    await rig.deliver()
    const [error] = rig.outcomes
    assert.ok(error instanceof PosthornError)
    assert.equal(error.code, 'POSTHORN_STEP_CONFLICT')
    assert.deepEqual(error.details, { step: 'once', subscription: 'billing' })
    await rig.consumer.close()
  })

  const wrong: Record<string, Work> = {
    'an empty name': ({ step }) => step('', () => 1),
    'a long name': ({ step }) => step('x'.repeat(201), () => 1),
    'half a character': ({ step }) => step('\ud83d', () => 1),
    'a name that is no text': ({ step }) => step(5 as unknown as string, () => 1),
    'no function': ({ step }) => step('s', 5 as unknown as () => number),
    'an unknown option': ({ step }) => step('s', () => 1, { timout: 5 } as object),
    'a bad timeout': ({ step }) => step('s', () => 1, { timeout: '5 parsecs' as '5s' }),
    'a retry that does not say how often': ({ step }) => step('s', () => 1, { retry: {} as { attempts: number } }),
    'a bad backoff': ({ step }) => step('s', () => 1, { retry: { attempts: 2, backoff: { delay: 'soon' as '1s' } } }),
  }
  for (const [name, work] of Object.entries(wrong)) {
    test(`refuses ${name}`, async () => {
      const error = await outcomeOf(work)
      assert.ok(error instanceof PosthornError && error.code === 'POSTHORN_INVALID_OPTION', String(error))
    })
  }

  test('passes on Discard and RetryAfter, without trying again by itself', async () => {
    for (const thrown of [new Discard('no such order'), new RetryAfter('5s')]) {
      let calls = 0
      const outcome = await outcomeOf(({ step }) =>
        step(
          'charge',
          () => {
            calls++
            throw thrown
          },
          { retry: { attempts: 5, backoff: { delay: 0 } } },
        ),
      )
      assert.equal(outcome, thrown)
      assert.equal(calls, 1)
    }
  })

  test('has a key of its own, the same in every attempt, for services that know such keys', async () => {
    const keys: string[] = []
    const rig = await start(async ({ step, idempotencyKey, attempt }) => {
      keys.push(idempotencyKey)
      await step('charge card', (context) => {
        keys.push(context.idempotencyKey)
        if (attempt === 1) throw failed
      })
    })
    await rig.deliver(1)
    await rig.deliver(2)
    const key = 'orders:billing:test:id-7'
    assert.deepEqual(keys, [key, `${key}:charge%20card`, key, `${key}:charge%20card`])
    await rig.consumer.close()
  })

  test('has keys that are short and plain text, whatever the id is, and never those of another message', async () => {
    const ids = ['a', 'a:b', 'ключ', 'x'.repeat(1_024), `${'x'.repeat(1_023)}y`, '🐴'.repeat(512)]
    const keys = new Set<string>()
    const rig = await startRig({
      handle: async (_event, { idempotencyKey, step }) => {
        keys.add(idempotencyKey)
        await step('a', (context) => keys.add(context.idempotencyKey).size)
      },
    })
    const messages = ids.map((id, offset) => {
      const { event } = messageAt(offset)
      return messageAt(offset, { event: { ...event, id } })
    })
    rig.source.offer(grantOf([0, 1, 2, 3, 4, 5], { messages }))
    await settleDown()
    assert.equal(keys.size, 2 * ids.length)
    for (const key of keys) assert.match(key, /^[\x21-\x7e]{1,255}$/)
    await rig.consumer.close()
  })
})

describe('a step that fails', () => {
  test('is tried again as it says, within the call of the handler', async () => {
    const attempts: number[] = []
    const rig = await start(({ step }) =>
      step(
        'charge',
        ({ attempt }) => {
          attempts.push(attempt)
          if (attempt < 3) throw failed
          return 'ch_1'
        },
        { retry: { attempts: 3, backoff: { type: 'fixed', delay: '2s', jitter: 'none' } } },
      ),
    )
    await rig.deliver()
    await rig.clock.advance(1_999)
    assert.deepEqual(attempts, [1])
    await rig.clock.advance(2_001)
    await settleDown()
    assert.deepEqual(attempts, [1, 2, 3])
    assert.deepEqual(rig.outcomes, ['ch_1'])
    await rig.consumer.close()
  })

  test('is not tried again when that would be after the deadline of the handler', async () => {
    const retry = { attempts: 9, backoff: { type: 'fixed', delay: '20s', jitter: 'none' } } as const
    let calls = 0
    const rig = await start(({ step }) =>
      step(
        'charge',
        () => {
          calls++
          throw failed
        },
        { retry },
      ),
    )
    await rig.deliver()
    await rig.clock.advance(20_000)
    await settleDown()
    assert.equal(calls, 2)
    assert.deepEqual(rig.outcomes, [failed])
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    await rig.consumer.close()
  })

  test('when it outruns its timeout is told so by its signal, and its late result does not count', async () => {
    const signals: AbortSignal[] = []
    const ends: ((value: string) => void)[] = []
    const rig = await start(({ step }) =>
      step(
        'charge',
        ({ signal }) => {
          signals.push(signal)
          return new Promise<string>((resolve) => ends.push(resolve))
        },
        { timeout: '5s', retry: { attempts: 2, backoff: { delay: 0 } } },
      ),
    )
    await rig.deliver()
    await rig.clock.advance(5_000)
    await settleDown()
    assert.equal(signals[0]!.reason.code, 'POSTHORN_STEP_TIMEOUT')
    ends[0]!('late')
    await settleDown()
    assert.deepEqual(rig.results(), {})
    await rig.clock.advance(4_999)
    ends[1]!('in time')
    await settleDown()
    assert.equal(signals[1]!.aborted, false)
    assert.deepEqual(rig.outcomes, ['in time'])
    await rig.consumer.close()
  })

  test('fails the handler with the timeout after its last attempt', async () => {
    const rig = await start(({ step }) => step('charge', () => new Promise(() => {}), { timeout: '5s' }))
    await rig.deliver()
    await rig.clock.advance(5_000)
    await settleDown()
    const [error] = rig.outcomes
    assert.ok(error instanceof PosthornError)
    assert.deepEqual(error.details, { step: 'charge', subscription: 'billing', timeoutMs: 5_000 })
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    await rig.consumer.close()
  })

  test('is aborted with the handler, and not begun when that is given up already', async () => {
    const begun: string[] = []
    let signal: AbortSignal | undefined
    const rig = await start(async ({ step, signal: handlers }) => {
      await step('first', (context) => {
        begun.push('first')
        signal = context.signal
        return new Promise<void>((resolve) => handlers.addEventListener('abort', () => resolve()))
      })
      await step('second', () => void begun.push('second'))
    })
    await rig.deliver()
    rig.source.lose([7])
    await settleDown()
    assert.equal(signal?.reason.code, 'POSTHORN_LEASE_LOST')
    assert.deepEqual(begun, ['first'])
    assert.equal((rig.outcomes[0] as PosthornError).code, 'POSTHORN_LEASE_LOST')
    await rig.consumer.close()
  })
})

describe('a result that JSON has no form for', () => {
  const unusable: Work = ({ step }) => step('charge', () => new Map([[1, 2]]))

  test('fails the step, and says that the effect has happened', async () => {
    const error = await outcomeOf(unusable)
    assert.ok(error instanceof PosthornError)
    assert.equal(error.code, 'POSTHORN_UNSERIALIZABLE_STEP')
    assert.match(error.message, /^Step charge .* has run, but its result cannot be kept as JSON: result is a Map/)
    const large = await outcomeOf(({ step }) => step('charge', () => 'x'.repeat(2 ** 20)))
    assert.equal((large as PosthornError).code, 'POSTHORN_UNSERIALIZABLE_STEP')
  })

  test('does not lead to the effect once more, whichever attempt it is', async () => {
    let effects = 0
    const rig = await start(({ step }) => step('charge', () => (++effects < 2 ? () => 1 : 'mended')))
    // A first attempt is delivered again when a breaker has put it back, or it was released.
    for (const attempt of [1, 1, 2, 3]) await rig.deliver(attempt)
    assert.equal(effects, 1)
    assert.deepEqual(
      rig.outcomes.map((error) => (error as PosthornError).code),
      Array(4).fill('POSTHORN_UNSERIALIZABLE_STEP'),
    )
    assert.match(rig.results().charge!, /^\{"problem":/)
    await rig.consumer.close()
  })
})

describe('a store that fails', () => {
  const full = new PosthornError('POSTHORN_STORAGE_FULL', { store: 'the store' })

  /** Makes the next call of a method of the source reject. */
  function failOnce(source: Rig['source'], method: 'steps' | 'recordStep', error: Error): void {
    const original = source[method] as (...parameters: unknown[]) => unknown
    const replaced = async (...parameters: unknown[]) => {
      Object.assign(source, { [method]: original })
      if (parameters.length > 0) throw error
    }
    Object.assign(source, { [method]: replaced })
  }

  for (const method of ['steps', 'recordStep'] as const) {
    test(`is asked again (${method}), and the effect happens once`, async () => {
      let effects = 0
      const rig = await start(({ step }) => step('charge', () => ++effects))
      failOnce(rig.source, method, full)
      await rig.deliver()
      assert.deepEqual(rig.outcomes, [])
      await rig.clock.advance(100)
      await settleDown()
      assert.deepEqual(rig.outcomes, [1])
      assert.deepEqual(rig.results(), { charge: '{"value":1}' })
      await rig.consumer.close()
    })
  }

  test('is not asked again for what will not succeed', async () => {
    const lost = new PosthornError('POSTHORN_LEASE_LOST', { subscription: 'billing', reason: 'test' })
    const rig = await start(({ step }) => step('charge', () => 1))
    failOnce(rig.source, 'recordStep', lost)
    await rig.deliver()
    assert.deepEqual(rig.outcomes, [lost])
    await rig.consumer.close()
  })
})

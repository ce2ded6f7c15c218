/** Steps that still run when their handler has failed, or has been given up. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type DeliveryContext, Discard, type PosthornError } from 'posthorn'
import { grantOf, settleDown } from './fake-source.ts'
import { type Rig, startRig } from './harness.ts'

const TIMEOUT_MS = 5_000

interface Unfinished extends Rig {
  /** Ends the step `charge`. */
  end(result: string): void
  /** Whatever the handler saw. */
  readonly seen: unknown[]
  results(): Record<string, string>
}

const failed = new Error('the mail server answered 500')

/** A handler that begins the step `charge`, and fails in its first attempt while that runs. */
async function start(
  fail: (context: DeliveryContext, charge: Promise<string>) => Promise<unknown>,
): Promise<Unfinished> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const seen: unknown[] = []
  const rig = await startRig(
    {
      handle: async (_event, context) => {
        const charge = context.step('charge', () => {
          seen.push('charged')
          return promise
        })
        charge.catch(() => {})
        await fail(context, charge)
      },
    },
    { timeoutMs: TIMEOUT_MS, concurrency: 1 },
  )
  rig.source.offer(grantOf([7]))
  await settleDown()
  return { ...rig, seen, end: resolve, results: () => Object.fromEntries(rig.source.recordedSteps.get('7/7') ?? []) }
}

const failBeside = ({ step }: DeliveryContext, charge: Promise<string>) =>
  Promise.all([charge, step('mail', () => Promise.reject(failed))])

describe('a step that runs on when its handler has failed', () => {
  test('is waited for, so that the next attempt finds its result', async () => {
    const rig = await start(failBeside)
    assert.deepEqual(rig.source.verdicts(), [])
    rig.end('ch_1')
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    assert.deepEqual(rig.results(), { charge: '{"value":"ch_1"}' })
    rig.source.offer(grantOf([7], { attempt: 2 }))
    await settleDown()
    assert.deepEqual(rig.seen, ['charged'])
    await rig.consumer.close()
  })

  test('is waited for until its result is recorded', async () => {
    const recording = Promise.withResolvers<void>()
    const rig = await start(failBeside)
    const { recordStep } = rig.source
    rig.source.recordStep = async (...parameters) => {
      await recording.promise
      await recordStep.apply(rig.source, parameters)
    }
    rig.end('ch_1')
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), [])
    recording.resolve()
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    await rig.consumer.close()
  })

  test('keeps the failure of the handler, which is what counts', async () => {
    const rig = await start(({ step }, charge) =>
      Promise.all([charge, step('mail', () => Promise.reject(new Discard('no address')))]),
    )
    rig.end('ch_1')
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['7 dead discarded'])
    await rig.consumer.close()
  })

  test('is waited for until the deadline of the handler, and then told so', async () => {
    let signal: AbortSignal | undefined
    const rig = await start((context, charge) => {
      signal = context.signal
      return failBeside(context, charge)
    })
    await rig.clock.advance(TIMEOUT_MS - 1)
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), [])
    assert.equal(signal?.aborted, false)
    await rig.clock.advance(1)
    await settleDown()
    assert.equal(signal?.reason.code, 'POSTHORN_HANDLER_TIMEOUT')
    const [retry] = rig.source.exceptions()
    assert.ok(retry?.kind === 'retry')
    assert.equal(retry.failure.message, failed.message)
    await rig.consumer.close()
  })

  test('is not waited for when the message is lost, or cancelled', async () => {
    for (const giveUp of [(rig: Rig) => rig.source.lose([7]), (rig: Rig) => rig.source.cancel(7, 7)]) {
      const rig = await start(failBeside)
      giveUp(rig)
      await settleDown()
      let closed = false
      const closing = rig.consumer.close().then(() => {
        closed = true
      })
      await settleDown()
      assert.ok(closed, 'nothing runs any more')
      assert.deepEqual(rig.source.verdicts(), [])
      await closing
    }
  })

  test('is the last: what the handler left behind begins no others', async () => {
    const errors: unknown[] = []
    const ran: string[] = []
    const rig = await start(({ step }, charge) => {
      const receipt = charge.then(() => step('receipt', () => ran.push('receipt')))
      receipt.catch((error) => errors.push(error))
      return Promise.all([receipt, step('mail', () => Promise.reject(failed))])
    })
    rig.end('ch_1')
    await settleDown()
    assert.deepEqual(ran, [])
    assert.equal((errors[0] as PosthornError).code, 'POSTHORN_LEASE_LOST')
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    await rig.consumer.close()
  })
})

describe('a step that outlives its handler', () => {
  test('by its timeout still has its result recorded, and nothing after it begins', async () => {
    const rig = await start(async ({ step }, charge) => {
      const result = await charge
      rig.seen.push(result)
      await step('mail', () => void rig.seen.push('mailed'))
    })
    await rig.clock.advance(TIMEOUT_MS)
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    rig.end('ch_1')
    await settleDown()
    assert.deepEqual(rig.results(), { charge: '{"value":"ch_1"}' })
    assert.deepEqual(rig.seen, ['charged', 'ch_1'])
    await rig.consumer.close()
  })
})

describe('a handler that fails', () => {
  test('before its first step begins none afterwards', async () => {
    let later: Promise<unknown> | undefined
    const go = Promise.withResolvers<void>()
    const rig = await startRig({
      handle: async (_event, context) => {
        later = go.promise.then(() => context.step('charge', () => assert.fail('it was charged')))
        throw failed
      },
    })
    rig.source.offer(grantOf([7]))
    await settleDown()
    assert.deepEqual(rig.source.verdicts(), ['7 retry'])
    go.resolve()
    await assert.rejects(later!, { code: 'POSTHORN_LEASE_LOST' })
    await rig.consumer.close()
  })
})

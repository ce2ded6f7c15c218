/** Steps, and cancelling, through the public API. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type DeliveryContext, Discard, type PosthornError, topic } from 'posthorn'
import { Collector, open } from './setup.ts'

const orders = topic<{ number: number }>('orders')
const atOnce = { retry: { backoff: { delay: 0 } } }

describe('steps', () => {
  test('that are finished are skipped by the next attempt', async (context) => {
    const post = await open(context)
    const calls: string[] = []
    const done = new Collector<unknown>()
    const handle = async (_event: unknown, { step, attempt }: DeliveryContext) => {
      const charge = await step('charge', async () => {
        calls.push(`charge in attempt ${attempt}`)
        return { id: 'ch_1' }
      })
      if (attempt < 3) throw new Error('not yet')
      done.add(charge)
    }
    post.subscribe(orders, 'pay', handle, atOnce)
    await post.publish(orders, { number: 1 })
    assert.deepEqual(await done.of(1), [{ id: 'ch_1' }])
    assert.deepEqual(calls, ['charge in attempt 1'])
  })

  test('are kept with a dead letter, so that a redrive goes on where it stopped', async (context) => {
    const post = await open(context)
    const calls: string[] = []
    const ended = new Collector<string>()
    let mended = false
    post.subscribe(orders, 'pay', async (_event, { step }) => {
      await step('charge', () => calls.push('charge'))
      await step('ship', () => {
        calls.push('ship')
        ended.add('shipped')
        if (!mended) throw new Discard('no such address')
      })
    })
    await post.publish(orders, { number: 1 })
    await ended.of(1)
    mended = true
    while ((await post.admin.redrive(orders, 'pay')) === 0) await turn()
    await ended.of(2)
    assert.deepEqual(calls, ['charge', 'ship', 'ship'])
  })
})

describe('cancel', () => {
  test('stops a delayed message', async (context) => {
    const post = await open(context)
    await post.publish(orders, { number: 1 }, { id: 'one', delay: '1h' })
    assert.deepEqual(await post.admin.cancel(orders, 'one'), { delayed: 1, waiting: 0, running: 0 })
    assert.equal((await post.admin.topics())[0]!.delayed, 0)
    assert.deepEqual(await post.admin.cancel('orders', 'one'), { delayed: 0, waiting: 0, running: 0 })
  })

  test('aborts a running handler, and the message is not delivered again', async (context) => {
    const post = await open(context)
    const reasons = new Collector<unknown>()
    const started = new Collector<unknown>()
    const handle = (event: unknown, { signal }: DeliveryContext) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          reasons.add(signal.reason)
          reject(signal.reason)
        })
        started.add(event)
      })
    const subscription = post.subscribe(orders, 's', handle, atOnce)
    await subscription.ready
    const { id } = await post.publish(orders, { number: 1 })
    await started.of(1)
    assert.deepEqual(await post.admin.cancel(orders, id), { delayed: 0, waiting: 0, running: 1 })
    const [reason] = await reasons.of(1)
    assert.equal((reason as PosthornError).code, 'POSTHORN_CANCELLED')
    await subscription.close()
    const [state] = await post.admin.subscriptions(orders)
    assert.deepEqual([state!.backlog, state!.leased, state!.retrying, state!.deadLetters], [0, 0, 0, 0])
    assert.equal(started.items.length, 1)
  })

  test('wants an id', async (context) => {
    const post = await open(context)
    await assert.rejects(post.admin.cancel(orders, ''), { code: 'POSTHORN_INVALID_OPTION' })
    await assert.rejects(post.admin.cancel(orders, 5 as unknown as string), { code: 'POSTHORN_INVALID_OPTION' })
    await assert.rejects(post.admin.cancel('no name', 'x'), { code: 'POSTHORN_INVALID_NAME' })
  })
})

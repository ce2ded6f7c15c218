/** `publishAll` of messages that belong together, from `message()` to the store. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { message, queue, topic } from 'posthorn'
import { open } from './setup.ts'

const orders = topic<{ number: number }>('orders')
const stock = queue<{ item: string }>('stock', { maxBacklog: 1, whenFull: 'wait' })

describe('publishAll with messages of several topics', () => {
  test('stores all of them, and answers for each in order', async (context) => {
    const post = await open(context)
    const published = await post.publishAll([
      message(orders, { number: 1 }, { id: 'one' }),
      message(stock, { item: 'pen' }),
      message(orders, { number: 2 }),
    ])
    assert.equal(published.length, 3)
    assert.equal(published[0]!.id, 'one')
    const stored = await post.admin.peek(orders)
    assert.deepEqual(
      stored.map(({ message: { event } }) => event.data),
      [{ number: 1 }, { number: 2 }],
    )
    assert.deepEqual(
      stored.map(({ message: { offset } }) => offset),
      [published[0]!.offset, published[2]!.offset],
    )
    const again = await post.publishAll([message(orders, { number: 1 }, { id: 'one' })])
    assert.equal(again[0]!.duplicate, true)
  })

  test('stores none when one of the topics is full, and does not wait', async (context) => {
    const post = await open(context)
    await post.publish(stock, { item: 'pen' })
    const messages = [message(orders, { number: 1 }), message(stock, { item: 'ink' })]
    await assert.rejects(post.publishAll(messages), { code: 'POSTHORN_BACKLOG_FULL' })
    assert.deepEqual(await post.admin.peek(orders), [])
  })

  test('takes nothing but messages and knows its options', async (context) => {
    const post = await open(context)
    const publishAll = post.publishAll.bind(post) as (...parameters: unknown[]) => Promise<unknown>
    const code = 'POSTHORN_INVALID_OPTION'
    await assert.rejects(publishAll([message(orders, { number: 1 }), { number: 2 }]), {
      code,
      message: /messages\[1\]/,
    })
    await assert.rejects(publishAll([orders], [1]), { code })
    await assert.rejects(publishAll([{ definition: 'orders', payload: 1 }]), { code })
    await assert.rejects(publishAll([message(orders, { number: 1 })], { delay: '5s' }), { code })
    const many = Array.from({ length: 10_001 }, () => message(orders, { number: 1 }))
    await assert.rejects(publishAll(many), { code, message: /10001/ })
    assert.throws(() => message('orders' as unknown as typeof orders, { number: 1 }), { code })
    assert.deepEqual(await publishAll([]), [])
    assert.deepEqual(await post.admin.topics(), [])
  })

  test('is refused after close', async (context) => {
    const post = await open(context)
    await post.close()
    await assert.rejects(post.publishAll([message(orders, { number: 1 })]), { code: 'POSTHORN_CLOSED' })
  })
})

/** What becomes of results when an operator steps in: from the handler to the store and back. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type DeliveryContext, topic } from 'posthorn'
import { Collector, open } from '../api/setup.ts'

const orders = topic<{ number: number }>('orders')

for (const url of ['memory:', 'sqlite::memory:']) {
  describe(`steps of a dead letter (${url})`, () => {
    test('that gave nothing usable run again after a redrive; the others do not', async (context) => {
      const post = await open(context, {}, url)
      const effects: string[] = []
      const ends = new Collector<unknown>()
      const handle = async (_event: unknown, { step }: DeliveryContext) => {
        await step('charge', () => effects.push('charge'))
        const receipt = step('receipt', () => {
          effects.push('receipt')
          return effects.length < 3 ? new Map([[1, 2]]) : 'r_1'
        })
        receipt.then(ends.add, ({ code }) => ends.add(code))
        await receipt
      }
      post.subscribe(orders, 'pay', handle, { retry: { attempts: 2, backoff: { delay: 0 } } })
      await post.publish(orders, { number: 1 })
      await ends.of(2)
      while ((await post.admin.redrive(orders, 'pay')) === 0) await turn()
      const unusable = 'POSTHORN_UNSERIALIZABLE_STEP'
      assert.deepEqual(await ends.of(3), [unusable, unusable, 'r_1'])
      assert.deepEqual(effects, ['charge', 'receipt', 'receipt'])
    })

    test('run again in a replay once the dead letter is deleted', async (context) => {
      const post = await open(context, {}, url)
      const effects: string[] = []
      const ends = new Collector<number>()
      const handle = async (_event: unknown, { step }: DeliveryContext) => {
        await step('charge', () => effects.push('charge'))
        ends.add(effects.length)
        if (ends.items.length === 1) throw new Error('the mail server is down')
      }
      post.subscribe(orders, 'pay', handle, { retry: { attempts: 1 } })
      await post.publish(orders, { number: 1 })
      await ends.of(1)
      while ((await post.admin.deleteDeadLetters(orders, 'pay')) === 0) await turn()
      await post.admin.replay(orders, 'pay', 'earliest')
      assert.deepEqual(await ends.of(2), [1, 2])
    })
  })
}

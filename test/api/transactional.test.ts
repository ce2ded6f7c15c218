/** Transactional handlers, from `subscribe` to the file. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { message, type Post, queue, type TransactionalContext, topic } from 'posthorn'
import { Collector, open } from './setup.ts'

const orders = topic<{ number: number }>('orders')
const invoices = queue<{ number: number }>('invoices')
const atOnce = { transactional: true, retry: { attempts: 3, backoff: { delay: 0 } } } as const

interface Shop {
  readonly post: Post
  /** The user's own connection to the same file. */
  readonly database: DatabaseSync
  /** What handlers have written. */
  written(): unknown[]
  /** Waits until the subscription `s` of `orders` has settled everything. */
  settled(): Promise<void>
}

async function newShop(context: TestContext): Promise<Shop> {
  const folder = mkdtempSync(join(tmpdir(), 'posthorn-transactional-'))
  const file = join(folder, 'shop.db')
  const post = await open(context, {}, `sqlite:${file}`)
  await post.ensureTopics(orders, invoices)
  const database = new DatabaseSync(file)
  database.exec('CREATE TABLE payments (number INTEGER NOT NULL) STRICT')
  // Hooks run in their order: after the one that closes the connection.
  context.after(() => {
    database.close()
    rmSync(folder, { recursive: true, force: true })
  })
  return {
    post,
    database,
    written: () => database.prepare('SELECT number FROM payments ORDER BY rowid').all(),
    async settled() {
      for (;;) {
        const [state] = await post.admin.subscriptions(orders)
        const { backlog, leased, retrying, returned } = state!
        if (backlog + leased + retrying + returned === 0) return
        await turn()
      }
    },
  }
}

function pay({ tx }: TransactionalContext, number: number): void {
  tx.prepare('INSERT INTO payments (number) VALUES (?)').run(number)
}

describe('a transactional handler', () => {
  test('writes, publishes and acknowledges at once', async (context) => {
    const { post, written, settled } = await newShop(context)
    const billed = new Collector<unknown>()
    await post.subscribe(invoices, ({ data }) => billed.add(data.number)).ready
    post.subscribe(
      orders,
      's',
      async ({ data }, context) => {
        pay(context, data.number)
        await post.publish(invoices, data, { tx: context.tx })
        await post.publishAll([message(invoices, { number: data.number + 100 })], { tx: context.tx })
      },
      atOnce,
    )
    for (const number of [1, 2, 3]) await post.publish(orders, { number })
    assert.deepEqual((await billed.of(6)).toSorted(), [1, 101, 2, 102, 3, 103].toSorted())
    await settled()
    assert.deepEqual(
      written().map((row) => ({ ...(row as object) })),
      [{ number: 1 }, { number: 2 }, { number: 3 }],
    )
  })

  test('leaves nothing behind when it throws', async (context) => {
    const { post, written, settled } = await newShop(context)
    const attempts: number[] = []
    post.subscribe(
      orders,
      's',
      async ({ data }, context) => {
        attempts.push(context.attempt)
        pay(context, data.number)
        await post.publish(invoices, data, { tx: context.tx })
        if (context.attempt < 3) throw new Error('not yet')
      },
      atOnce,
    )
    await post.publish(orders, { number: 1 })
    await settled()
    assert.deepEqual(attempts, [1, 2, 3])
    assert.equal(written().length, 1)
    const state = (await post.admin.topics()).find((topic) => topic.topic === 'invoices')
    assert.equal(state!.messages, 1)
  })

  test('is told at once that it publishes beside its transaction, and only within it', async (context) => {
    const { post, settled } = await newShop(context)
    const errors: unknown[] = []
    const outlived = Promise.withResolvers<unknown>()
    post.subscribe(
      orders,
      's',
      async ({ data }) => {
        const attempts = [
          () => post.publish(invoices, data),
          () => post.publishAll(invoices, [data]),
          () => post.publishAll([message(invoices, data)]),
        ]
        for (const attempt of attempts) await attempt().catch((error: { code: string }) => errors.push(error.code))
        // What outlives the handler is not part of its transaction.
        void turn().then(() => post.publish(invoices, data).then(outlived.resolve, outlived.resolve))
      },
      atOnce,
    )
    await post.publish(orders, { number: 1 })
    await settled()
    assert.deepEqual(errors, Array(3).fill('POSTHORN_INVALID_TRANSACTION'))
    assert.ok(!((await outlived.promise) instanceof Error))
  })

  test('keeps the order of keys, like any other', async (context) => {
    const { post, written, settled } = await newShop(context)
    const failed = new Set<number>()
    post.subscribe(
      orders,
      's',
      ({ data }, context) => {
        pay(context, data.number)
        if (data.number % 3 > 0 || failed.has(data.number)) return
        failed.add(data.number)
        throw new Error('not yet')
      },
      { ...atOnce, ordered: true },
    )
    const numbers = Array.from({ length: 12 }, (_, number) => number)
    for (const number of numbers) await post.publish(orders, { number }, { key: number < 6 ? 'a' : 'b' })
    await settled()
    const paid = written().map((row) => (row as { number: number }).number)
    assert.deepEqual(
      paid.filter((number) => number < 6),
      numbers.slice(0, 6),
    )
    assert.deepEqual(
      paid.filter((number) => number >= 6),
      numbers.slice(6),
    )
  })

  test('is given no step', async (context) => {
    const { post, settled } = await newShop(context)
    const codes: unknown[] = []
    const handle = async (_event: unknown, context: object) => {
      const { step } = context as { step(name: string, work: () => number): Promise<number> }
      await step('charge', () => 1).catch((error: { code: string }) => codes.push(error.code))
    }
    post.subscribe(orders, 's', handle, atOnce)
    await post.publish(orders, { number: 1 })
    await settled()
    assert.deepEqual(codes, ['POSTHORN_INVALID_OPTION'])
  })
})

/** What somebody with an SQL prompt sees, and how the tables are kept clean. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { connect, Discard, type Post, topic } from 'posthorn'
import { parsePostgresAddress } from '../../../src/engines/postgres/address.ts'
import { Database } from '../../../src/engines/postgres/database/database.ts'
import { newSchema, whyNoPostgres } from '../../servers/shared-postgres.ts'
import { query } from './space.ts'

const orders = topic<unknown>('order.placed', { partitions: 1 })
const users = topic<{ readonly id: string }>('user.signed_up', { key: (user) => user.id, partitions: 4 })

interface Stage {
  readonly post: Post
  readonly database: Database
  /** The test is over. */
  readonly ended: Promise<void>
}

async function newStage(context: TestContext): Promise<Stage> {
  const { name, url, drop } = await newSchema()
  const address = new URL(url)
  address.searchParams.delete('options')
  address.searchParams.set('schema', name)
  const database = new Database(parsePostgresAddress(address.href))
  const post = await connect(address)
  const release = Promise.withResolvers<void>()
  context.after(async () => {
    release.resolve()
    await post.close()
    await database.close()
    await drop()
  })
  return { post, database, ended: release.promise }
}

interface MessageRow {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly id: string
  readonly type: string
  readonly subject: string | null
  readonly time: Date | null
  readonly data: unknown
  readonly event: Record<string, unknown>
}

describe('the view of messages', { skip: await whyNoPostgres() }, () => {
  test('has a row for each message, which is its event', async (context) => {
    const { post, database } = await newStage(context)
    await post.publishAll(orders, [{ total: 40 }, { total: 8 }], { key: 'o-1', headers: { tenant: 'acme' } })
    await post.publish(users, { id: 'u1' })
    const rows = await query<MessageRow>(
      database,
      `SELECT * FROM @.messages WHERE topic = $1 ORDER BY "offset"`,
      orders.name,
    )
    const peeked = await post.admin.peek(orders)
    assert.deepEqual(
      rows.map(({ event, offset }) => ({ event, offset })),
      peeked.map(({ message: { event, offset } }) => ({ event, offset })),
    )
    const [first] = rows
    assert.partialDeepStrictEqual(first, {
      partition: 0,
      offset: 0,
      type: orders.name,
      subject: 'o-1',
      data: { total: 40 },
    })
    assert.equal(first?.time?.toISOString(), peeked[0]?.message.event.time)
    assert.equal(first?.id, peeked[0]?.message.event.id)
    assert.equal((await query(database, 'SELECT FROM @.messages')).length, 3)
  })

  test('shows what jsonb has no room for as something else, and damaged batches not at all', async (context) => {
    const { post, database } = await newStage(context)
    const odd = ['a\u0000\u0000b', '\ud800', '\\u0000', '\\\u0000', '😀']
    await post.publish(orders, odd)
    await post.publish(users, { id: 'u1' })
    await query(
      database,
      `UPDATE @.batches SET data = '[{' WHERE topic_id <> (SELECT topic_id FROM @.topics WHERE topic = $1)`,
      orders.name,
    )
    const rows = await query<MessageRow>(database, 'SELECT * FROM @.messages')
    assert.deepEqual(
      rows.map(({ data }) => data),
      [['a\ufffd\ufffdb', '\ufffd', '\\u0000', '\\\ufffd', '😀']],
    )
  })

  test('shows all others beside what is JSON but no message, or has no time, because it was damaged', async (context) => {
    const { post, database } = await newStage(context)
    for (const label of ['a', 'b', 'c', 'd']) await post.publish(orders, label)
    await post.publish(users, { id: 'u1' })
    const damages = [
      `replace(data, '"time":"2', '"time":"R')`,
      `replace(data, '"time":"2', '"time":"9992')`,
      "'{}'",
      "'7'",
    ]
    for (const [offset, damaged] of damages.entries()) {
      await query(
        database,
        `UPDATE @.batches SET data = ${damaged} WHERE base_offset = $1 AND data LIKE '%"data":"%'`,
        offset,
      )
    }
    const rows = await query<MessageRow>(database, 'SELECT * FROM @.messages ORDER BY topic, "offset"')
    assert.deepEqual(
      rows.map(({ data, time }) => [data, time === null]),
      [
        ['a', true],
        ['b', true],
        [{ id: 'u1' }, false],
      ],
    )
  })
})

interface BacklogRow {
  readonly topic: string
  readonly subscription: string
  readonly paused: boolean
  readonly backlog: number
  readonly oldest: Date | null
  readonly leased: number
  readonly returned: number
  readonly set_aside: number
  readonly dead_letters: number
}

describe('the view of backlogs', { skip: await whyNoPostgres() }, () => {
  test('says what admin.subscriptions() says', async (context) => {
    const { post, database, ended } = await newStage(context)
    const busy = Promise.withResolvers<void>()
    const settled = Promise.withResolvers<void>()
    const slow = post.subscribe(users, 'slow', async () => {
      busy.resolve()
      await ended
    })
    const strict = post.subscribe(users, 'strict', () => {
      settled.resolve()
      throw new Discard('no')
    })
    await Promise.all([slow.ready, strict.ready])
    await post.publish(users, { id: 'u0' })
    await Promise.all([busy.promise, settled.promise])
    await strict.close()
    await post.admin.pause(users, 'slow')
    await post.admin.pause(users, 'strict')
    const many = Array.from({ length: 20 }, (_, number) => ({ id: `u${number}` }))
    await post.publishAll(users, many, ({ id }) => ({ id }))
    assert.partialDeepStrictEqual(await post.admin.cancel(users, 'u7'), { waiting: 2 })
    const rows = await query<BacklogRow>(database, 'SELECT * FROM @.backlog ORDER BY subscription')
    const states = await post.admin.subscriptions()
    assert.deepEqual(
      rows.map(({ oldest: _, ...row }) => row),
      states.map(({ topic, subscription, paused, backlog, leased, returned, retrying, parked, deadLetters }) => {
        const setAside = retrying + parked
        return {
          topic,
          subscription,
          paused,
          backlog,
          leased,
          returned,
          set_aside: setAside,
          dead_letters: deadLetters,
        }
      }),
    )
    assert.partialDeepStrictEqual(rows, [
      { subscription: 'slow', backlog: 19, leased: 1, dead_letters: 0, paused: true },
      { subscription: 'strict', backlog: 19, leased: 0, dead_letters: 1 },
    ])
    assert.ok(rows[0]!.oldest instanceof Date)
  })

  test('has nothing to say of what is handled', async (context) => {
    const { post, database } = await newStage(context)
    const handled = Promise.withResolvers<void>()
    const subscription = post.subscribe(orders, 'all', () => handled.resolve())
    await post.publish(orders, 1)
    await handled.promise
    await subscription.close()
    const [row] = await query<BacklogRow>(database, 'SELECT * FROM @.backlog')
    assert.partialDeepStrictEqual(row, { backlog: 0, oldest: null, leased: 0, returned: 0, set_aside: 0 })
  })
})

describe('the tables of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('are vacuumed by settings of their own where rows come and go', async (context) => {
    const { database } = await newStage(context)
    const rows = await query<{ name: string; options: string[] | null }>(
      database,
      `SELECT relname AS name, reloptions AS options FROM pg_class
        WHERE relnamespace = $1::regnamespace AND relkind = 'r'`,
      database.address.schema,
    )
    const set = rows.filter(({ options }) =>
      options?.some((option) => option.startsWith('autovacuum_vacuum_threshold=')),
    )
    const never = [
      'breakers',
      'installation',
      'moves',
      'partitions',
      'schema_version',
      'stranded',
      'subscriptions',
      'topics',
    ]
    assert.deepEqual(
      rows
        .filter((row) => !set.includes(row))
        .map(({ name }) => name)
        .sort(),
      never,
    )
  })
})

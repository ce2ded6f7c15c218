import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { AppendOutcome } from '../../src/engine.ts'
import { eventually, OutboxStage } from '../engines/postgres/outbox-stage.ts'
import { whyNoPostgres } from '../servers/shared-postgres.ts'

/** A library through which users speak to their database. */
export interface Library {
  /** Runs `work` in a transaction, which is rolled back when it rejects. */
  transaction(work: (transaction: LibraryTransaction) => Promise<void>): Promise<void>
  /** What statements go through outside of every transaction. */
  readonly connection: unknown
  close(): Promise<void>
}

export interface LibraryTransaction {
  /** What the user passes as `tx`. */
  readonly tx: unknown
  /** Writes a row of the user's own. */
  addUser(name: string): Promise<void>
}

const REFUSED = { code: 'POSTHORN_INVALID_TRANSACTION' }
const TEXTS = [
  '😀 grüße',
  'a\u0000b',
  '\ud800',
  '"\\\n\r\t',
  '',
  "'; DROP TABLE x; --",
  "\\'",
  'is it? ?? $1 $2 :x ::y',
  '$$',
]

/** Publishing within the transactions of a library, which is the same for all of them. */
export async function publishingWithin(name: string, open: (url: string) => Promise<Library>): Promise<void> {
  describe(`publishing within a transaction of ${name}`, { skip: await whyNoPostgres() }, () => {
    const run = (title: string, body: (stage: OutboxStage, library: Library) => Promise<void>) => {
      test(title, async (context) => {
        const stage = await OutboxStage.make(context)
        await stage.user()
        const library = await open(stage.space.url)
        try {
          await body(stage, library)
        } finally {
          await library.close()
        }
      })
    }

    run('a commit delivers, together with what else was written', async (stage, library) => {
      await library.transaction(async ({ tx, addUser }) => {
        await addUser('ada')
        assert.deepEqual(await stage.appendIn(tx, ['first']), { receipts: [{ duplicate: false }] })
        await Promise.all([stage.appendIn(tx, ['second']), stage.appendIn(tx, ['third'])])
      })
      await eventually(async () => assert.deepEqual(await stage.logged(), ['first', 'second', 'third']))
      assert.deepEqual(await users(stage), ['ada'])
    })

    run('a roll-back stores nothing', async (stage, library) => {
      const undone = library.transaction(async ({ tx, addUser }) => {
        await addUser('ada')
        await stage.appendIn(tx, ['undone'])
        throw new Error('card declined')
      })
      await assert.rejects(undone, /card declined/)
      await stage.relay.poll()
      assert.deepEqual(await stage.logged(), [])
      assert.deepEqual(await users(stage), [])
      assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
    })

    run('any text survives', async (stage, library) => {
      await library.transaction(async ({ tx }) => {
        await stage.appendIn(tx, TEXTS, { key: "o'brien\\" })
      })
      await eventually(async () => assert.deepEqual(await stage.logged(), TEXTS))
    })

    run('an id that is known is a duplicate', async (stage, library) => {
      const duplicates: (boolean | undefined)[] = []
      for (const data of ['kept', 'again']) {
        await library.transaction(async ({ tx }) => {
          duplicates.push(isDuplicate(await stage.appendIn(tx, [data], { id: "o'brien\\1" })))
        })
      }
      assert.deepEqual(duplicates, [false, true])
      await eventually(async () => assert.deepEqual(await stage.logged(), ['kept']))
    })

    run('a topic that is not there is refused, and the transaction can go on', async (stage, library) => {
      await library.transaction(async ({ tx, addUser }) => {
        await assert.rejects(stage.appendIn(tx, ['a'], { topic: 'none' }), { code: 'POSTHORN_TOPIC_NOT_FOUND' })
        await addUser('ada')
      })
      assert.deepEqual(await users(stage), ['ada'])
    })

    run('outside of a transaction it is refused, and so is a transaction that is over', async (stage, library) => {
      await assert.rejects(stage.appendIn(library.connection, ['a']), REFUSED)
      let kept: unknown
      await library.transaction(async ({ tx }) => {
        kept = tx
        await stage.appendIn(tx, ['in time'])
      })
      await assert.rejects(stage.appendIn(kept, ['late']), REFUSED)
      await eventually(async () => assert.deepEqual(await stage.logged(), ['in time']))
      assert.deepEqual(await stage.query('SELECT * FROM @.outbox'), [])
    })
  })
}

function isDuplicate(outcome: AppendOutcome): boolean | undefined {
  assert.ok('receipts' in outcome)
  return outcome.receipts[0]?.duplicate
}

async function users(stage: OutboxStage): Promise<string[]> {
  return (await stage.query<{ name: string }>('SELECT name FROM @.users ORDER BY name')).map(({ name }) => name)
}

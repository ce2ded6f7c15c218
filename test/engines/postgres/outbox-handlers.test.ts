/** Transactional handlers: their writes, what they publish and the acknowledgement of their message, in one transaction. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import pg from 'pg'
import type { SubscriptionKey } from '../../../src/engines/postgres/delivery/turns.ts'
import { Chains } from '../../../src/engines/postgres/order/chains.ts'
import { HandlerTransactions } from '../../../src/engines/postgres/outbox/handler-transactions.ts'
import { Settling } from '../../../src/engines/postgres/settlement/settling.ts'
import { Steps } from '../../../src/engines/postgres/settlement/steps.ts'
import { numbersTo, SUBSCRIPTION, TOPIC } from '../../conformance/messages.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { eventually, OutboxStage } from './outbox-stage.ts'

const SOURCE = 'session/1'
const REFUSED = { code: 'POSTHORN_INVALID_TRANSACTION' }

type Work = (client: pg.ClientBase) => Promise<unknown>

describe('a transactional handler', { concurrency: 2, skip: await whyNoPostgres() }, () => {
  test('writes, publishes and acknowledges at once', async (context) => {
    const { stage, lease, transact, open, names } = await handling(context)
    const outcome = await transact(lease, 0, async (client) => {
      await client.query(`INSERT INTO users VALUES ('ada')`)
      await stage.appendIn(client, ['published'])
      assert.deepEqual(await names(), [])
    })
    assert.equal(outcome, 'committed')
    assert.deepEqual(await names(), ['ada'])
    assert.deepEqual(await open(lease), [1, 10])
    await eventually(async () => assert.deepEqual(await stage.logged(), ['published']))
  })

  test('that rejects has written nothing, and runs once, whatever it rejects with', async (context) => {
    const { lease, transact, open, names } = await handling(context)
    for (const fields of [{}, { code: '40001' }, { code: '40P01' }, { code: 'ECONNRESET' }]) {
      const refusal = Object.assign(new Error('card declined'), fields)
      let runs = 0
      const outcome = transact(lease, 0, async (client) => {
        runs++
        await client.query(`INSERT INTO users VALUES ('ada')`)
        throw refusal
      })
      await assert.rejects(outcome, (error) => error === refusal)
      assert.equal(runs, 1)
    }
    assert.deepEqual(await names(), [])
    assert.deepEqual(await open(lease), [0, 10])
  })

  test('that rejects is not kept by a statement that nobody waits for any more', async (context) => {
    const { lease, transact, open } = await handling(context)
    const refusal = new Error('it took too long')
    const outcome = transact(lease, 0, async (client) => {
      client.query('SELECT pg_sleep(600)').catch(() => {})
      throw refusal
    })
    await assert.rejects(outcome, (error) => error === refusal)
    assert.deepEqual(await open(lease), [0, 10])
  })

  test('whose lease is lost meanwhile is rolled back', async (context) => {
    const { stage, key, lease, transact, names } = await handling(context)
    const insert: Work = (client) => client.query(`INSERT INTO users VALUES ('ada')`)
    assert.equal(await transact(lease, 10, insert), 'fenced', 'not of this lease')
    assert.equal(await transact(lease + 1, 0, insert), 'fenced', 'no lease')
    const outcome = await transact(lease, 0, async (client) => {
      await insert(client)
      await stage.turns.run(key, async ({ state }) => void state.leases.delete(lease))
    })
    assert.equal(outcome, 'fenced')
    assert.deepEqual(await names(), [])
  })

  test('of a subscription that is gone is rolled back', async (context) => {
    const { stage, lease, transact, names } = await handling(context)
    const outcome = await transact(lease, 0, async (client) => {
      await client.query(`INSERT INTO users VALUES ('ada')`)
      await stage.query('DELETE FROM @.subscriptions')
    })
    assert.equal(outcome, 'fenced')
    assert.deepEqual(await names(), [])
  })

  test('may not end the transaction', async (context) => {
    const { lease, transact, open, names } = await handling(context)
    for (const text of ['COMMIT', ' end;', 'Rollback', 'ABORT', 'begin', 'START TRANSACTION', 'ROLLBACK AND CHAIN']) {
      const outcome = transact(lease, 0, async (client) => {
        await client.query(`INSERT INTO users VALUES ('ada')`)
        await client.query(text)
      })
      await assert.rejects(outcome, REFUSED, text)
    }
    assert.deepEqual(await names(), [])
    const sly = transact(lease, 0, (client) => client.query('SELECT 1; COMMIT; BEGIN'))
    await assert.rejects(sly, { ...REFUSED, message: /the handler ended it/ })
    assert.deepEqual(await open(lease), [0, 10])
  })

  test('may use savepoints', async (context) => {
    const { lease, transact, names } = await handling(context)
    const outcome = await transact(lease, 0, async (client) => {
      await client.query(`INSERT INTO users VALUES ('ada'); SAVEPOINT one`)
      await assert.rejects(client.query(`INSERT INTO users VALUES ('ada')`), { code: '23505' })
      await client.query('ROLLBACK TO SAVEPOINT one')
      await client.query('RELEASE SAVEPOINT one')
    })
    assert.equal(outcome, 'committed')
    assert.deepEqual(await names(), ['ada'])
  })

  test('that goes on after a failed statement, outside of a savepoint, rejects with that failure', async (context) => {
    const { lease, transact, open } = await handling(context)
    const outcome = transact(lease, 0, async (client) => {
      await client.query('SELECT 1 / 0').catch(() => {})
      await client.query('SELECT 1').catch(() => {})
    })
    await assert.rejects(outcome, { code: '22012' })
    assert.deepEqual(await open(lease), [0, 10])
  })

  test('whose statements answer by callbacks is told what failed, and kept by none of them', async (context) => {
    const { lease, transact, open } = await handling(context)
    const failing = transact(lease, 0, (client) => new Promise((resolve) => client.query('SELECT 1 / 0', resolve)))
    await assert.rejects(failing, { code: '22012' })
    const refusal = new Error('it took too long')
    const refusing = transact(lease, 0, async (client) => {
      client.query('SELECT pg_sleep(600)', () => {})
      throw refusal
    })
    await assert.rejects(refusing, (error) => error === refusal)
    assert.deepEqual(await open(lease), [0, 10])
  })

  test('has its connection for as long as it runs', async (context) => {
    const { stage, lease, transact } = await handling(context)
    let kept: pg.ClientBase | undefined
    await transact(lease, 0, async (client) => {
      kept = client
      assert.ok(client instanceof pg.Client)
      for (const name of ['release', 'end', 'connect'] as const) {
        assert.throws(() => (client as pg.PoolClient)[name](), REFUSED, name)
      }
    })
    assert.throws(() => kept?.query('SELECT 1'), REFUSED)
    await assert.rejects(stage.appendIn(kept, ['late']), REFUSED)
  })

  test('reads values as pg does by default', async (context) => {
    const { lease, transact } = await handling(context)
    await transact(lease, 0, async (client) => {
      assert.deepEqual((await client.query('SELECT 7::bigint AS big')).rows, [{ big: '7' }])
      assert.deepEqual((await client.query({ text: 'SELECT $1::int AS small', rowMode: 'array' }, [7])).rows, [[7]])
      const callback = await new Promise((resolve) => {
        client.query('SELECT $1::text AS name', ['ada'], (_, result) => resolve(result.rows))
      })
      assert.deepEqual(callback, [{ name: 'ada' }])
    })
  })

  test('leaves nothing to wait for when it rejects while a statement is under way', async (context) => {
    const { stage, lease, transact, names } = await handling(context)
    const [holder, other] = [await stage.user(), await stage.user()]
    await holder.query(`BEGIN; INSERT INTO users VALUES ('ada')`)
    const outcome = transact(lease, 0, async (client) => {
      await client.query(`INSERT INTO users VALUES ('bob')`)
      client.query(`INSERT INTO users VALUES ('ada')`).catch(() => {})
      throw new Error('timed out')
    })
    await assert.rejects(outcome, /timed out/)
    await other.query(`INSERT INTO users VALUES ('bob')`)
    await holder.query('ROLLBACK')
    assert.deepEqual(await names(), ['bob'])
  })

  test('whose deferred constraints wait for somebody keeps nobody from the subscription', async (context) => {
    const { stage, key, lease, transact, open } = await handling(context)
    const holder = await stage.user()
    await holder.query(`
      CREATE TABLE mails (name text REFERENCES users DEFERRABLE INITIALLY DEFERRED);
      INSERT INTO users VALUES ('ada')`)
    await holder.query('BEGIN; SELECT FROM users FOR UPDATE')
    const outcome = transact(lease, 0, (client) => client.query(`INSERT INTO mails VALUES ('ada')`))
    const blocked = 'SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))'
    await eventually(async () => assert.equal((await holder.query(blocked)).rowCount, 1))
    const rest = transact(lease, 1, (client) => client.query('SELECT 1'))
    assert.equal(await rest, 'committed')
    await holder.query('COMMIT')
    assert.equal(await outcome, 'committed')
    assert.deepEqual(await open(lease), [2, 10])
    const refused = transact(lease, 2, (client) => client.query(`INSERT INTO mails VALUES ('nobody')`))
    await assert.rejects(refused, { code: 'POSTHORN_STORAGE_FAILED', message: /violates foreign key constraint/ })
    assert.deepEqual(await open(lease), [2, 10])
    await stage.turns.run(key, async () => undefined)
  })

  test('has its deferred constraints checked under what it has set, and those of its temporary tables', async (context) => {
    const { stage, lease, transact, names } = await handling(context)
    const user = await stage.user()
    await user.query(`
      CREATE FUNCTION tell_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF current_setting('test.tenant', true) IS DISTINCT FROM 'one' THEN RAISE 'no tenant'; END IF;
        RETURN NULL;
      END $$;
      CREATE CONSTRAINT TRIGGER tenants AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION tell_tenant()`)
    const set: Work = (client) => client.query(`SET LOCAL test.tenant = 'one'; INSERT INTO users VALUES ('ada')`)
    assert.equal(await transact(lease, 0, set), 'committed')
    assert.deepEqual(await names(), ['ada'])
    const temporary = `
      CREATE TEMP TABLE steps (step int PRIMARY KEY, next int REFERENCES steps DEFERRABLE INITIALLY DEFERRED);
      INSERT INTO steps VALUES (1, 2), (2, 1)`
    assert.equal(await transact(lease, 1, (client) => client.query(temporary)), 'committed')
  })

  test('leaves nothing on its connection that is in the way of others', async (context) => {
    const { stage, lease, transact, open } = await handling(context, '&connections=2')
    const user = await stage.user()
    const leave = `
      CREATE TEMP TABLE work AS SELECT 1 AS number;
      DECLARE numbers CURSOR WITH HOLD FOR TABLE work;
      LISTEN ${stage.space.name};
      SELECT pg_advisory_lock(hashtext('${stage.space.name}'))`
    const isFree = `SELECT pg_try_advisory_xact_lock(hashtext('${stage.space.name}')) AS free`
    const failed = transact(lease, 0, async (client) => {
      await client.query(leave)
      throw new Error('card declined')
    })
    await assert.rejects(failed, /card declined/)
    assert.deepEqual((await user.query(isFree)).rows, [{ free: true }])
    for (const offset of [0, 1, 2]) {
      assert.equal(await transact(lease, offset, (client) => client.query(leave)), 'committed')
      assert.deepEqual((await user.query(isFree)).rows, [{ free: true }])
    }
    assert.deepEqual(await open(lease), [3, 10])
  })

  test('many side by side all commit, though there are few connections', async (context) => {
    const { lease, transact, open, names } = await handling(context, '&connections=2')
    const outcomes = numbersTo(10).map((offset) =>
      transact(lease, offset, (client) => client.query('INSERT INTO users VALUES ($1)', [`user-${offset}`])),
    )
    assert.deepEqual(new Set(await Promise.all(outcomes)), new Set(['committed']))
    assert.equal((await names()).length, 10)
    assert.equal(await open(lease), undefined)
  })

  test('is rolled back when the engine closes', async (context) => {
    const { lease, transact, transactions, names } = await handling(context)
    const begun = Promise.withResolvers<void>()
    const outcome = transact(lease, 0, async (client) => {
      await client.query(`INSERT INTO users VALUES ('ada')`)
      begun.resolve()
      await new Promise(() => {})
    })
    await begun.promise
    transactions.close()
    await assert.rejects(outcome, { code: 'POSTHORN_CLOSED' })
    await assert.rejects(
      transact(lease, 0, async () => {}),
      { code: 'POSTHORN_CLOSED' },
    )
    assert.deepEqual(await names(), [])
  })
})

/** A subscription of which the first ten messages are leased, and whose handlers write to the table `users`. */
async function handling(context: TestContext, query = '') {
  const stage = await OutboxStage.make(context, { query })
  const user = await stage.user()
  const ref = { topic: TOPIC, subscription: SUBSCRIPTION }
  await stage.topics.ensureSubscription({ ...ref, ordered: false, maxCrashes: 3, maxParked: 100 })
  const key: SubscriptionKey = await stage.topics.findSubscription(ref)
  const lease = await stage.turns.run(key, async ({ state }) => {
    return state.lease({ source: SOURCE, partition: 0, open: [0, 10], crashes: 0, isolated: false }).id
  })
  const settling = new Settling({ batches: stage.batches, chains: new Chains(), steps: new Steps() })
  const { database, turns } = stage
  const transactions = new HandlerTransactions({ database, turns, settling, onSettled: () => {} })
  return {
    stage,
    key,
    lease,
    transactions,
    async transact(lease: number, offset: number, work: Work) {
      return transactions.transact(key, SOURCE, lease, offset, async (client) => {
        await work(client as pg.ClientBase)
      })
    },
    /** What is unsettled of the lease. */
    open: (lease: number) => turns.run(key, async ({ state }) => state.leases.get(lease)?.open),
    /** The users that were committed. */
    names: async () =>
      (await user.query('SELECT name FROM users ORDER BY name')).rows.map(({ name }) => name as string),
  }
}

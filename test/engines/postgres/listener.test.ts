import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { Listener } from '../../../src/engines/postgres/database/listener.ts'
import { systemClock } from '../../../src/environment/index.ts'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { newStore, openDatabase, query } from './space.ts'

/** A process that listens, and keeps what it hears. */
class Ear {
  readonly listener: Listener
  readonly heard: string[] = []
  gaps = 0
  readonly #expected = new Set<() => void>()

  constructor(context: TestContext, url: string) {
    const database = openDatabase(context, url)
    this.listener = new Listener({
      database,
      clock: systemClock,
      onNotice: (notice) => this.#note(() => this.heard.push(notice)),
      onGap: () => this.#note(() => this.gaps++),
    })
    context.after(() => this.listener.close())
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#expected.add(resolve)
      })
    }
  }

  #note(what: () => void): void {
    what()
    for (const resolve of this.#expected) resolve()
    this.#expected.clear()
  }
}

async function listen(context: TestContext, url: string): Promise<Ear> {
  const ear = new Ear(context, url)
  await ear.listener.start()
  return ear
}

describe('the notices of a Postgres store', { skip: await whyNoPostgres() }, () => {
  test('reach the other processes, each once, and not the one that gives them', async (context) => {
    const url = await newStore(context)
    const [one, other] = [await listen(context, url), await listen(context, url)]
    for (const notice of ['t1', 's2', 't1']) one.listener.notify(notice)
    await other.until(() => other.heard.length === 2)
    assert.deepEqual(other.heard, ['t1', 's2'])
    other.listener.notify('t3')
    await one.until(() => one.heard.length > 0)
    assert.deepEqual(one.heard, ['t3'])
    assert.deepEqual(other.heard, ['t1', 's2'])
  })

  test('go together, however many there are, and none is lost', async (context) => {
    const url = await newStore(context)
    const [one, other] = [await listen(context, url), await listen(context, url)]
    const notices = Array.from({ length: 2_000 }, (_, id) => `s${id + 1_000_000}`)
    for (const notice of notices) one.listener.notify(notice)
    await other.until(() => other.heard.length === notices.length)
    assert.deepEqual(other.heard, notices)
  })

  test('stay within a schema, however long its name is', async (context) => {
    const url = new URL(await newStore(context))
    const long = (end: string) => {
      url.searchParams.set('schema', `${'a'.repeat(62)}${end}`)
      return url.href
    }
    const [one, other] = [await listen(context, long('b')), await listen(context, long('c'))]
    const third = await listen(context, long('b'))
    one.listener.notify('t1')
    await third.until(() => third.heard.length > 0)
    third.listener.notify('t2')
    await one.until(() => one.heard.length > 0)
    assert.deepEqual(other.heard, [])
  })

  test('come again after the connection was cut, with a word that some may be missing', async (context) => {
    const url = await newStore(context)
    const [one, other] = [await listen(context, url), await listen(context, url)]
    assert.equal(other.gaps, 1)
    const database = openDatabase(context, url)
    const cut = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE query LIKE 'LISTEN "posthorn_' || $1 || '"%'`
    await query(database, cut, database.address.schema)
    await other.until(() => other.gaps === 2)
    await one.until(() => one.gaps === 2)
    one.listener.notify('t1')
    await other.until(() => other.heard.length > 0)
    assert.deepEqual(other.heard, ['t1'])
  })

  test('are dropped when nobody can be told, and closing waits for nothing', async (context) => {
    const url = new URL(await newStore(context))
    url.port = '1'
    const ear = await listen(context, url.href)
    ear.listener.notify('t1')
    await ear.listener.close()
    assert.equal(ear.gaps, 0)
  })
})

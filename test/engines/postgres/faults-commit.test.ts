/** Connections that are cut while a transaction is being committed, and networks that go silent. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { whyNoPostgres } from '../../servers/shared-postgres.ts'
import { type Cut, PostgresProxy } from './faults-proxy.ts'
import { coded, events, eventually, Inbox, newStore, open, settled } from './faults-stage.ts'

const CUTS: readonly Cut[] = ['carried out', 'lost']
/** Statements by the names under which they are prepared. */
const APPEND = 'posthorn_log_insert'
const TURN = 'posthorn_turns_save'
const MARKED_HANDLER = 'INSERT INTO effects'

/** One connection to a store, through the proxy. */
async function behindProxy(context: TestContext, parameters: Readonly<Record<string, string>> = {}) {
  const { url, admin, schema } = await newStore(context, parameters)
  const proxy = await PostgresProxy.start(context, url)
  const post = await open(context, proxy.url, { maxBufferedBytes: 20_000 })
  await post.ensureTopics(events)
  return { proxy, post, admin, schema, url }
}

async function storedLabels(post: Awaited<ReturnType<typeof open>>): Promise<unknown[]> {
  const page = await post.admin.peek(events, { limit: 100 })
  return page.map(({ message }) => (message.event.data as { label: string }).label)
}

describe('a connection to Postgres that is cut', { skip: await whyNoPostgres(), concurrency: 2 }, () => {
  for (const cut of CUTS) {
    test(`at the commit of a publish, which is ${cut}, says so; the same id again stores it once`, async (context) => {
      const { proxy, post } = await behindProxy(context)
      const isCut = proxy.cutCommit(APPEND, cut)
      const publishing = post.publish(events, { label: 'a' }, { id: 'one' })
      await assert.rejects(publishing, coded('POSTHORN_OUTCOME_UNKNOWN'))
      await isCut
      const { duplicate } = await post.publish(events, { label: 'a' }, { id: 'one' })
      assert.equal(duplicate, cut === 'carried out')
      assert.deepEqual(await storedLabels(post), ['a'])
    })

    test(`at the commit of a grant, which is ${cut}, costs no delivery and no crash`, async (context) => {
      const { proxy, post } = await behindProxy(context)
      const inbox = new Inbox()
      const subscription = post.subscribe(events, 'inbox', inbox.handler)
      await subscription.ready
      const isCut = proxy.cutCommit(TURN, cut)
      await post.publish(events, { label: 'a' })
      await isCut
      await inbox.has(['a'])
      await settled(post)
      assert.deepEqual(inbox.labels, ['a'])
    })

    test(`at the commit of a settlement, which is ${cut}, has nothing handled again`, async (context) => {
      const { proxy, post } = await behindProxy(context)
      const inbox = new Inbox()
      let isCut: Promise<void> | undefined
      const subscription = post.subscribe(events, 'inbox', async (event) => {
        isCut ??= proxy.cutCommit(TURN, cut)
        await inbox.handler(event)
      })
      await subscription.ready
      await post.publish(events, { label: 'a' })
      await inbox.has(['a'])
      await isCut
      await settled(post)
      await post.publish(events, { label: 'b' })
      await inbox.has(['b'])
      await settled(post)
      assert.deepEqual(inbox.labels, ['a', 'b'])
    })

    test(`at the commit of a handler's transaction, which is ${cut}, has it take effect once`, async (context) => {
      const { proxy, post, admin, schema } = await behindProxy(context)
      await admin.query(`CREATE TABLE "${schema}".effects (label text)`)
      const isCut = proxy.cutCommit(MARKED_HANDLER.replace('effects', `"${schema}".effects`), cut)
      const options = { transactional: true, retry: { attempts: 3, backoff: { type: 'fixed', delay: 1 } } } as const
      const handler = async ({ data }: { data: { label: string } }, { tx }: { tx: unknown }) => {
        const client = tx as { query(text: string, values: unknown[]): Promise<unknown> }
        await client.query(`INSERT INTO "${schema}".effects VALUES ($1)`, [data.label])
      }
      await post.subscribe(events, 'inbox', handler, options).ready
      await post.publish(events, { label: 'a' })
      await isCut
      await settled(post)
      const { rows } = await admin.query(`SELECT label FROM "${schema}".effects`)
      assert.deepEqual(rows, [{ label: 'a' }])
    })
  }

  test('again and again is opened again and again, and nothing is lost', async (context) => {
    const { proxy, post, url } = await behindProxy(context)
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    const stored: string[] = []
    for (let round = 0; round < 15; round++) {
      const labels = Array.from({ length: 5 }, (_, number) => `${round}.${number}`)
      const publishing = labels.map((label) =>
        post
          .publish(events, { label }, { id: label })
          .then(() => stored.push(label), coded('POSTHORN_STORAGE_UNAVAILABLE', 'POSTHORN_OUTCOME_UNKNOWN')),
      )
      proxy.cutAll()
      await Promise.all(publishing)
    }
    await eventually(async () => stored.push((await post.publish(events, { label: 'last' })) && 'last'))
    await inbox.has(stored)
    await settled(await open(context, url))
  })
})

/** So long that a busy machine answers in time, and short enough to wait for the end of it some times. */
const ANSWER_MS_MAX = '1500'

describe('a network before Postgres that goes silent', { skip: await whyNoPostgres(), concurrency: 2 }, () => {
  test('fails what is asked in bounded time and memory, and consumers go on after it', async (context) => {
    const { proxy, post } = await behindProxy(context, { query_timeout: ANSWER_MS_MAX })
    const inbox = new Inbox()
    await post.subscribe(events, 'inbox', inbox.handler).ready
    await post.publish(events, { label: 'before' })
    await inbox.has(['before'])
    await settled(post)
    proxy.freeze()
    const codes = coded('POSTHORN_STORAGE_UNAVAILABLE', 'POSTHORN_STORAGE_FAILED', 'POSTHORN_OUTCOME_UNKNOWN')
    await assert.rejects(post.publish(events, { label: 'during' }), codes)
    await assert.rejects(post.admin.topics(), codes)
    const label = 'x'.repeat(1_000)
    const refused = await Promise.all(
      Array.from({ length: 100 }, () =>
        post.publish(events, { label }).then(
          () => 'stored',
          (error) => error.code,
        ),
      ),
    )
    assert.ok(refused.filter((code) => code === 'POSTHORN_PUBLISH_BUFFER_FULL').length > 50, `${refused}`)
    proxy.thaw()
    await eventually(() => post.publish(events, { label: 'after' }))
    await inbox.has(['after'])
    await settled(post)
  })

  for (const role of ['publisher', 'consumer'] as const) {
    test(`does not keep a ${role} from closing its connection`, async (context) => {
      const { proxy, post } = await behindProxy(context, { query_timeout: ANSWER_MS_MAX })
      if (role === 'consumer') await post.subscribe(events, 'inbox', new Inbox().handler).ready
      proxy.freeze()
      await post.close().catch(coded('POSTHORN_STORAGE_UNAVAILABLE', 'POSTHORN_STORAGE_FAILED'))
    })
  }
})

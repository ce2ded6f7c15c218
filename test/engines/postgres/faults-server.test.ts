/** A server that is killed, and runs again. */
import assert from 'node:assert/strict'
import { cp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { connect, type Post, queue, silentLogger } from 'posthorn'
import { type PostgresServer, startPostgres } from '../../servers/postgres.ts'
import { giveAway, serverUser, whyNoOwnPostgres } from '../../servers/postgres-binaries.ts'
import { Publishing } from './faults-publishing.ts'
import { coded, events, eventually, Inbox, open, openClient, type Payload, settled, storeUrl } from './faults-stage.ts'

const jobs = queue<Payload>('jobs')

let server: PostgresServer

async function idsStored(post: Post): Promise<string[]> {
  const ids: string[] = []
  for (let fromOffset = 0; ; ) {
    const page = await post.admin.peek(events, { fromOffset, limit: 10_000 })
    if (page.length === 0) return ids
    for (const { message } of page) ids.push(message.event.id)
    fromOffset = page.at(-1)!.message.offset + 1
  }
}

async function crashServer(): Promise<void> {
  await server.kill()
  await server.restart()
}

describe('a Postgres server that is killed', { skip: await whyNoOwnPostgres() }, () => {
  before(async () => {
    server = await startPostgres()
  })
  after(() => server.removeAll())

  const storeOf = (context: TestContext) =>
    storeUrl(server.url, { schema: context.name.replaceAll(/[^a-z]+/g, '_').slice(0, 60) })

  test('while everybody is at work loses nothing that was acknowledged', async (context) => {
    const url = storeOf(context)
    const inboxes = [new Inbox(), new Inbox()]
    const posts = [await open(context, url), await open(context, url)]
    for (const [number, post] of posts.entries()) await post.subscribe(events, 'inbox', inboxes[number]!.handler).ready
    const publishings = posts.map((post, number) => new Publishing(post, `publisher-${number}`))
    for (let kill = 0; kill < 2; kill++) {
      await Promise.all(publishings.map((publishing) => publishing.goesOn()))
      await crashServer()
    }
    await Promise.all(publishings.map((publishing) => publishing.goesOn()))
    const acknowledged = (await Promise.all(publishings.map((publishing) => publishing.stop()))).flat()
    assert.ok(publishings.some(({ refused }) => refused > 0))
    await settled(posts[0]!)
    const handled = new Set(inboxes.flatMap(({ labels }) => labels))
    assert.deepEqual(
      acknowledged.filter((label) => !handled.has(label)),
      [],
    )
    const stored = await idsStored(posts[0]!)
    assert.equal(new Set(stored).size, stored.length)
    assert.deepEqual(await posts[0]!.admin.checkIntegrity(), [])
    assert.equal((await posts[0]!.admin.consumers()).length, 2)
  })

  test('is awaited by subscriptions that are opened meanwhile, unless they are closed', async (context) => {
    const post = await open(context, storeOf(context))
    await post.ensureTopics(events)
    await server.kill()
    const inbox = new Inbox()
    const [awaited, given] = ['awaited', 'given-up'].map((name) => post.subscribe(events, name, inbox.handler))
    await Promise.all([assert.rejects(given!.ready, coded('POSTHORN_STORAGE_UNAVAILABLE')), given!.close()])
    await server.restart()
    await awaited!.ready
    await eventually(() => post.publish(events, { label: 'a' }))
    await inbox.has(['a'])
    await settled(post)
  })

  test('comes back without what it had last: what is published then is handled, whatever was before', async (context) => {
    const [data, copy] = [join(server.folder, 'data'), join(server.folder, 'copy')]
    const url = storeOf(context)
    const [consumer, publisher] = [await open(context, url), await open(context, url)]
    const inbox = new Inbox()
    await consumer.subscribe(events, 'inbox', inbox.handler).ready
    await publisher.publish(events, { label: 'kept' })
    await publisher.publish(events, { label: 'overdue' }, { delay: '1h' })
    await publisher.publish(events, { label: 'due' }, { delay: 1 })
    await inbox.has(['due'])
    await settled(publisher)
    // As it is in a backup that was made before it was due.
    const { schema } = Object.fromEntries(new URL(url).searchParams)
    const admin = await openClient(context, server.url)
    await admin.query(`UPDATE "${schema}".delayed SET deliver_at_ms = deliver_at_ms - 7200000`)
    await server.stop()
    await cp(data, copy, { recursive: true })
    await server.restart()
    const lost = ['lost 1', 'lost 2', 'lost 3']
    for (const label of lost) await eventually(() => consumer.publish(events, { label }))
    await inbox.has(lost)
    await settled(publisher)
    await server.stop()
    await rm(data, { recursive: true })
    await rename(copy, data)
    if (process.getuid?.() === 0) await giveAway(data, (await serverUser())!)
    await server.restart()
    const found = ['found 1', 'found 2', 'found 3']
    for (const label of found) await eventually(() => publisher.publish(events, { label }))
    await inbox.has([...found, 'overdue'])
    await settled(publisher)
    assert.deepEqual(await publisher.admin.checkIntegrity(), [])
  })

  test('while it is idle is found again by those that wait for messages', async (context) => {
    const url = storeOf(context)
    const [consumer, publisher] = [await open(context, url), await open(context, url)]
    const inbox = new Inbox()
    await consumer.subscribe(jobs, inbox.handler).ready
    await publisher.ensureTopics(jobs)
    await crashServer()
    await eventually(() => publisher.publish(jobs, { label: 'a' }))
    await inbox.has(['a'])
    await settled(publisher)
  })

  test('while handlers run has each settled once it is back', async (context) => {
    const post = await open(context, storeOf(context), { lease: '60s' })
    const inbox = new Inbox()
    const { promise: isBack, resolve: goOn } = Promise.withResolvers<void>()
    await post.subscribe(events, 'inbox', async (event) => {
      await inbox.handler(event)
      await isBack
    }).ready
    const labels = ['a', 'b', 'c']
    await Promise.all(labels.map((label) => post.publish(events, { label })))
    await inbox.has(labels)
    await server.kill()
    goOn()
    await assert.rejects(post.admin.subscriptions(), coded('POSTHORN_STORAGE_UNAVAILABLE'))
    await server.restart()
    await settled(post)
    assert.deepEqual(inbox.labels.toSorted(), labels)
  })

  test('for longer than leases last, which then nobody has given up, has all handled and nothing dead', async (context) => {
    const url = storeOf(context)
    const posts = [await open(context, url, { lease: '300ms' }), await open(context, url, { lease: '300ms' })]
    const inbox = new Inbox()
    const { promise: isBack, resolve: goOn } = Promise.withResolvers<void>()
    for (const post of posts) {
      await post.subscribe(
        events,
        'inbox',
        async (event) => {
          await inbox.handler(event)
          await isBack
        },
        { concurrency: 2, maxCrashes: 1 },
      ).ready
    }
    const labels = Array.from({ length: 20 }, (_, number) => `${number}`)
    await Promise.all(labels.map((label) => posts[0]!.publish(events, { label })))
    await eventually(() => assert.ok(inbox.labels.length >= 2))
    const [consumer] = await posts[0]!.admin.consumers()
    await server.kill()
    await eventually(() => assert.ok(Date.now() > consumer!.leaseUntilMs + 600))
    goOn()
    await server.restart()
    await inbox.has(labels)
    await settled(posts[0]!)
    assert.deepEqual(await posts[0]!.admin.checkIntegrity(), [])
  })

  test('refuses at once what is asked while it is away, and lets go of connections', async (context) => {
    const url = storeOf(context)
    const post = await open(context, url, { maxBufferedBytes: 10_000 })
    await post.subscribe(events, 'inbox', new Inbox().handler).ready
    await server.kill()
    try {
      const unavailable = coded('POSTHORN_STORAGE_UNAVAILABLE')
      for (let count = 0; count < 100; count++) {
        await assert.rejects(post.publish(events, { label: 'a'.repeat(1_000) }), unavailable)
      }
      await assert.rejects(connect(url, { environment: { logger: silentLogger } }), unavailable)
      await assert.rejects(post.close(), unavailable)
    } finally {
      await server.restart()
    }
  })

  test("in the middle of a handler's transaction has it take effect once", async (context) => {
    const url = storeOf(context)
    const post = await open(context, url)
    await post.ensureTopics(events)
    const user = await openClient(context, server.url)
    const table = `effects_${process.pid}`
    await user.query(`CREATE TABLE ${table} (label text)`)
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    const retry = { attempts: 100, backoff: { type: 'fixed', delay: 10 } } as const
    await post.subscribe(
      events,
      'inbox',
      async ({ data }, { tx }) => {
        await (tx as unknown as typeof user).query(`INSERT INTO ${table} VALUES ($1)`, [data.label])
        begin()
        await goOn.promise
      },
      { transactional: true, retry },
    ).ready
    await post.publish(events, { label: 'a' })
    await begun
    await crashServer()
    goOn.resolve()
    await settled(post)
    const again = await openClient(context, server.url)
    const { rows } = await again.query(`SELECT label FROM ${table}`)
    assert.deepEqual(rows, [{ label: 'a' }])
  })
})

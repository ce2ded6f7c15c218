/** After a move, the new engine shows and delivers what the old one would have. */
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { Engine, Grant, SubscriptionRef } from '../../src/engine.ts'
import { connectPostgres } from '../../src/engines/postgres/index.ts'
import { connectSqlite } from '../../src/engines/sqlite/index.ts'
import { silentLogger, systemClock, systemEnvironment } from '../../src/environment/index.ts'
import { reopenStore } from '../../src/moving/index.ts'
import { newFile } from '../engines/sqlite/bench.ts'
import { newDatabase, whyNoPostgres } from '../servers/shared-postgres.ts'
import { migrate } from './command.ts'
import { AUDIT, BILLING, fillStore, MAILS, ORDERS, SENDER } from './filled-store.ts'

const OPTIONS = { environment: { ...systemEnvironment, logger: silentLogger }, leaseMs: 60_000 }
const PAGE = { limit: 100 }
const KEYLESS = 'none'
const UNORDERED = new Set([KEYLESS, 'user-1', 'user-2'])

/** A filled store, moved, and open at both ends. */
async function bothEnds(context: TestContext): Promise<{ old: Engine; moved: Engine }> {
  const opened: Engine[] = []
  // Before the file goes and the database is dropped.
  context.after(() => Promise.all(opened.map((engine) => engine.close())))
  const file = newFile(context)
  const { url, drop } = await newDatabase()
  context.after(drop)
  await fillStore(context, file)
  const { code, log } = await migrate(file, url)
  assert.equal(code, 0, log)
  await reopenStore(`sqlite:${file}`, systemClock)
  const old = await connectSqlite(`sqlite:${file}`, OPTIONS)
  opened.push(old)
  const moved = await connectPostgres(url, OPTIONS)
  opened.push(moved)
  return { old, moved }
}

/** `cancelled`: how many cancelled messages of `ORDERS` the engine counts as backlog. */
async function shownBy({ admin }: Engine, cancelled: number) {
  const subscriptions = await admin.subscriptions()
  return {
    topics: await admin.topics(),
    // Time goes on between the two looks.
    subscriptions: subscriptions.map(({ lagMs: _, backlog, ...state }) => {
      return { ...state, backlog: state.topic === ORDERS ? backlog - cancelled : backlog }
    }),
    deadLetters: await Promise.all([AUDIT, BILLING, SENDER].map((ref) => admin.deadLetters(ref, PAGE))),
    messages: await Promise.all(
      [0, 1, 2, 4].map((partition) => admin.peek(ORDERS, { partition, fromOffset: 5, limit: 10 })),
    ),
    problems: await admin.checkIntegrity(),
  }
}

/** Acknowledges whatever comes until the subscription has nothing more to give now; tells each message by its key. */
async function drain(engine: Engine, ref: SubscriptionRef): Promise<ReadonlyMap<string, string[]>> {
  const byKey = new Map<string, string[]>()
  const source = await engine.openSource({
    ...ref,
    handlerTimeoutMs: 60_000,
    limits: [],
    onCancelled() {},
    onLeasesLost() {},
    onSurplus() {},
    onDamage: (error) => assert.fail(error),
  })
  while (await hasMore(engine, ref)) {
    const grants = await source.pull({ messagesMax: 50, bytesMax: 1e9 }, AbortSignal.timeout(20_000))
    assert.ok(grants.length > 0, 'nothing came for long')
    for (const grant of grants) {
      note(byKey, grant)
      const [from, to] = [grant.messages[0]!.offset, grant.messages.at(-1)!.offset + 1]
      assert.deepEqual(await source.settle([{ lease: grant.lease, acked: [from, to], exceptions: [] }]), [])
    }
  }
  await source.close()
  return byKey
}

async function hasMore({ admin }: Engine, { topic, subscription }: SubscriptionRef): Promise<boolean> {
  const state = (await admin.subscriptions(topic)).find((item) => item.subscription === subscription)
  return state!.backlog + state!.returned > 0
}

function note(byKey: Map<string, string[]>, { partition, messages, attempt, crashes }: Grant): void {
  for (const { offset, event } of messages) {
    const name = event.subject ?? KEYLESS
    const noted = byKey.get(name) ?? []
    byKey.set(name, noted)
    noted.push(`${partition}/${offset} ${event.id}, attempt ${attempt}, ${crashes} crashes`)
  }
}

/**
 * What comes in no order is sorted: all messages of a subscription without one, those without a key, and those of a key
 * of which something was set aside, which only a consumer holds back for it.
 */
function comparable(byKey: ReadonlyMap<string, string[]>, ordered: boolean): [string, string[]][] {
  const lists = Array.from(byKey, ([key, noted]): [string, string[]] => {
    return [key, ordered && !UNORDERED.has(key) ? noted : noted.toSorted()]
  })
  return lists.toSorted(([one], [other]) => (one < other ? -1 : 1))
}

describe('a store that was moved to Postgres', { skip: await whyNoPostgres() }, () => {
  test('shows operators what it was', async (context) => {
    const { old, moved } = await bothEnds(context)
    assert.deepEqual(await shownBy(moved, 0), await shownBy(old, 1))
  })

  test('delivers to each subscription what it would have had, in the order of each key', async (context) => {
    const { old, moved } = await bothEnds(context)
    for (const engine of [old, moved]) await engine.admin.resume(AUDIT)
    for (const ref of [AUDIT, BILLING, SENDER]) {
      const [before, after] = [await drain(old, ref), await drain(moved, ref)]
      assert.ok(before.size > 0)
      assert.deepEqual(comparable(after, ref === BILLING), comparable(before, ref === BILLING))
    }
  })

  test('knows the ids of what was published before, and goes on where each partition ended', async (context) => {
    const { moved } = await bothEnds(context)
    const message = { id: 'once-1', json: '{"id":"once-1"}', timeMs: Date.now(), deduplicate: true } as const
    const [known] = await moved.append([{ topic: ORDERS, shared: '{}', messages: [message] }])
    assert.deepEqual(known, { receipts: [{ duplicate: true }] })
    const [next] = await moved.append([{ topic: MAILS, shared: '{}', messages: [{ ...message, id: 'next' }] }])
    assert.deepEqual(next, { receipts: [{ duplicate: false, partition: 0, offset: 20 }] })
    const [after] = await moved.append([{ topic: 'purged', shared: '{}', messages: [{ ...message, id: 'next' }] }])
    assert.deepEqual(after, { receipts: [{ duplicate: false, partition: 0, offset: 3 }] })
  })

  test('redrives dead letters by the ids that they had', async (context) => {
    const { old, moved } = await bothEnds(context)
    const [letter] = await old.admin.deadLetters(BILLING, PAGE)
    assert.equal(await moved.admin.redrive(BILLING, { ids: [letter!.id] }), 1)
    assert.deepEqual(await moved.admin.deadLetters(BILLING, PAGE), [])
  })

  test('stops messages that were not due yet, or set aside', async (context) => {
    const { moved } = await bothEnds(context)
    assert.deepEqual(await moved.admin.cancel(ORDERS, 'later'), { delayed: 1, waiting: 0, running: 0 })
  })
})

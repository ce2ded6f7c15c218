import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import pg from 'pg'
import { type ConnectOptions, connect, type ErrorCode, type Post, PosthornError, silentLogger, topic } from 'posthorn'
import { sharedPostgres } from '../../servers/shared-postgres.ts'

const PATIENCE_MS = 20_000

export interface Payload {
  readonly label: string
}

export const events = topic<Payload>('events')

const endings = new WeakMap<TestContext, (() => unknown)[]>()

/** Has this done when the test ends; what is asked for last is done first, and all of it whatever fails. */
export function atEnd(context: TestContext, end: () => unknown): void {
  const known = endings.get(context)
  if (known) return void known.push(end)
  const all = [end]
  endings.set(context, all)
  context.after(async () => {
    const failures: unknown[] = []
    for (const one of all.toReversed()) {
      try {
        await one()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  })
}

/** Opens a connection that is closed when the test ends, and logs nothing. */
export async function open(context: TestContext, url: string, options: ConnectOptions = {}): Promise<Post> {
  const post = await connect(url, { environment: { logger: silentLogger }, drainTimeout: '1s', ...options })
  atEnd(context, () => post.close().catch(() => {}))
  return post
}

/** A store of its own on the shared server, which is removed when the test ends. */
export async function newStore(context: TestContext, parameters: Readonly<Record<string, string>> = {}) {
  const url = new URL(await sharedPostgres())
  const schema = `posthorn_faults_${randomBytes(6).toString('hex')}`
  const admin = await openClient(context, url.href)
  atEnd(context, () => admin.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`))
  return { url: storeUrl(url.href, { schema, ...parameters }), schema, admin }
}

/** The URL of a store, with what is to stand behind the question mark. */
export function storeUrl(server: string, parameters: Readonly<Record<string, string>> = {}): string {
  const url = new URL(server)
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value)
  return url.href
}

/** A connection of the test's own, which is closed after all that uses it. */
export async function openClient(context: TestContext, url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  atEnd(context, () => client.end())
  return client
}

/** Takes down which messages its handler was called for. */
export class Inbox {
  readonly labels: string[] = []
  readonly handler = async ({ data }: { readonly data: Payload }) => {
    this.labels.push(data.label)
  }

  /** Resolves once all of these have come. */
  async has(labels: readonly string[]): Promise<void> {
    await eventually(() => {
      const missing = labels.filter((label) => !this.labels.includes(label))
      assert.equal(missing.length, 0, `${missing.slice(0, 5)} and so on, ${missing.length} in all, did not come`)
    })
  }
}

/** Everything of the subscription is settled. */
export async function settled(post: Post): Promise<void> {
  await eventually(async () => {
    const [state] = await post.admin.subscriptions()
    assert.partialDeepStrictEqual(state, { backlog: 0, leased: 0, retrying: 0, returned: 0, parked: 0, deadLetters: 0 })
  })
}

/** Waits for a condition, by turns of the event loop. What the store says while it is away is not the answer. */
export async function eventually<T>(check: () => Promise<T> | T): Promise<T> {
  const untilMs = performance.now() + PATIENCE_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      const isFinal = !(error instanceof assert.AssertionError || isUnavailable(error))
      if (isFinal || performance.now() > untilMs) throw error
      await turn()
    }
  }
}

export function isUnavailable(error: unknown): boolean {
  return error instanceof PosthornError && error.code === 'POSTHORN_STORAGE_UNAVAILABLE'
}

/** For `assert.rejects`: one of these codes. */
export function coded(...codes: readonly ErrorCode[]): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PosthornError, `${error}`)
    assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`)
    return true
  }
}

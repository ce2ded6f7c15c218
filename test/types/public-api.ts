/**
 * Compiled, never run: the types that a user meets. Each `@ts-expect-error` fails the build when the line below it
 * compiles after all.
 */
import type { DatabaseSync } from 'node:sqlite'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { ClientBase } from 'pg'
import {
  type BatchContext,
  type DeliveredEvent,
  type DeliveryContext,
  type Duration,
  isOutage,
  message,
  type Post,
  type PostgresTransaction,
  type Published,
  queue,
  type Serialized,
  type SubscribeOptions,
  type TransactionalContext,
  type TransactionalHandler,
  topic,
} from 'posthorn'
import type Stripe from 'stripe'
import { z } from 'zod'

type Equal<Left, Right> =
  (<Type>() => Type extends Left ? 1 : 2) extends <Type>() => Type extends Right ? 1 : 2 ? true : false

/** Takes a type that must be `true`. */
export function proves<_Fact extends true>(): void {}

declare const post: Post

const signups = topic('signups', {
  schema: z.object({ userId: z.string(), at: z.coerce.date(), plan: z.enum(['free', 'paid']).default('free') }),
  key: (user) => user.userId,
})
// @ts-expect-error: the payload has no such property
topic('x', { schema: z.object({ userId: z.string() }), key: (user) => user.name })
// @ts-expect-error: a key is text
topic('x', { schema: z.object({ age: z.number() }), key: (user) => user.age })
// @ts-expect-error: no such option
topic('x', { partition: 3 })
// @ts-expect-error: no such option beside a schema
topic('x', { schema: z.string(), partition: 3 })
// @ts-expect-error: not a schema
topic('x', { schema: { type: 'object' } })

/** A schema written by hand. */
const celsius: StandardSchemaV1<string, { degrees: number }> = {
  '~standard': {
    version: 1,
    vendor: 'hand',
    validate: (value) => ({ value: { degrees: Number(value) } }),
  },
}
const readings = queue('readings', { schema: celsius, key: ({ degrees }) => degrees.toFixed() })
const plain = topic<{ total: number; paidAt: Date }>('plain', { key: ({ total }) => `${total}` })
const untyped = topic('untyped')

export async function publishing(): Promise<void> {
  const published = await post.publish(signups, { userId: 'u1', at: '2026-05-01' })
  proves<Equal<typeof published.offset, number | undefined>>()
  await post.publish(readings, '21.5', { id: 'r1', delay: '30s', headers: { traceparent: 'x' } })
  await post.publish(plain, { total: 3, paidAt: new Date(0) })
  await post.publish(untyped, { anything: ['goes'] })
  // @ts-expect-error: userId is text
  await post.publish(signups, { userId: 1, at: 0 })
  // @ts-expect-error: at is missing
  await post.publish(plain, { total: 3 })
  // @ts-expect-error: publish takes the schema's input
  await post.publish(readings, { degrees: 3 })
  // @ts-expect-error: no such option
  await post.publish(plain, { total: 3, paidAt: new Date(0) }, { dealy: '3s' })
  // @ts-expect-error: no such unit
  await post.publish(untyped, 1, { delay: '30 parsecs' })
  // @ts-expect-error: a name is not a definition
  await post.publish('plain', { total: 3 })
}

export async function publishingMany(): Promise<void> {
  const { published } = await post.publishAll(readings, ['1', '2'])
  proves<Equal<typeof published, number>>()
  await post.publishAll(
    readings,
    (async function* () {
      yield '1'
    })(),
  )
  await post.publishAll(signups, [{ userId: 'u1', at: 0 }], (user) => ({ id: user.userId }))
  // @ts-expect-error: publishAll takes the schema's input
  await post.publishAll(readings, [{ degrees: 3 }])
  // @ts-expect-error: one id for all of them
  await post.publishAll(readings, ['1'], { id: 'same' })
}

export async function publishingTogether(tx: DatabaseSync): Promise<void> {
  const published = await post.publishAll([
    message(signups, { userId: 'u1', at: 0 }, { id: 'u1', priority: 'high' }),
    message(readings, '21.5', { delay: '5s' }),
  ])
  proves<Equal<typeof published, readonly Published[]>>()
  const none = await post.publishAll([])
  proves<Equal<typeof none, readonly Published[]>>()
  const publications = [message(plain, { total: 3, paidAt: new Date(0) })]
  await post.publishAll(publications, { tx })
  await post.publish(plain, { total: 3, paidAt: new Date(0) }, { priority: 'low' })
  await post.publishAll(readings, ['1'], { priority: 'low' })
  // @ts-expect-error: userId is text
  message(signups, { userId: 1, at: 0 })
  // @ts-expect-error: message takes the schema's input
  message(readings, { degrees: 3 })
  // @ts-expect-error: the transaction is that of the whole call
  message(readings, '1', { tx })
  // @ts-expect-error: no such priority
  message(readings, '1', { priority: 'urgent' })
  // @ts-expect-error: a payload without its topic
  await post.publishAll(['1', '2'])
  // @ts-expect-error: options of a single message
  await post.publishAll(publications, { delay: '5s' })
}

export function subscribing(): void {
  post.subscribe(signups, 'mail', async (event, { signal, attempt }) => {
    proves<Equal<typeof event.data.userId, string>>()
    proves<Equal<typeof event.data.at, string>>()
    proves<Equal<typeof event.data.plan, 'free' | 'paid'>>()
    proves<Equal<typeof signal, AbortSignal>>()
    proves<Equal<typeof attempt, number>>()
    // @ts-expect-error: events are frozen
    event.data.userId = 'other'
  })
  post.subscribe(signups, 'mail', ({ data }) => data.plan, { timeout: '5m', retry: { backoff: { jitter: 'none' } } })
  post.subscribe(readings, (event) => proves<Equal<typeof event.data, { readonly degrees: number }>>())
  post.subscribe(plain, 'p', (event) =>
    proves<Equal<typeof event.data, { readonly total: number; readonly paidAt: string }>>(),
  )
  post.subscribe(untyped, 'u', (event) => proves<Equal<typeof event.data, unknown>>())
  const batches = (events: readonly DeliveredEvent<{ readonly degrees: number }>[]) => events.length
  post.subscribe(readings, batches, { batch: { size: 100, wait: '1s' } })
  post.subscribe(
    signups,
    'bulk',
    (events, context) => {
      proves<Equal<(typeof events)[number]['data']['userId'], string>>()
      context.fail(events[0]!, new Error('no'))
    },
    { batch: { size: 10 } },
  )
}

export function subscribingWrongly(): void {
  // @ts-expect-error: a topic's subscription needs a name
  post.subscribe(signups, () => {})
  // @ts-expect-error: a queue's does not
  post.subscribe(readings, 'name', () => {})
  // @ts-expect-error: not a handler
  post.subscribe(signups, 'mail', 'mailer.send')
  // @ts-expect-error: no such property of the payload
  post.subscribe(signups, 'mail', (event) => event.data.email)
  // @ts-expect-error: without batch, a handler gets one event
  post.subscribe(signups, 'mail', (events) => events.map(String))
  // @ts-expect-error: with batch, a handler gets an array
  post.subscribe(signups, 'mail', (event) => event.data, { batch: { size: 5 } })
  // @ts-expect-error: no such option
  post.subscribe(signups, 'mail', () => {}, { concurency: 3 })
  // @ts-expect-error: no such backoff
  post.subscribe(signups, 'mail', () => {}, { retry: { backoff: { type: 'quadratic' } } })
  // @ts-expect-error: a batch has a size
  post.subscribe(signups, 'mail', () => {}, { batch: { wait: '1s' } })
}

export function limiting(): void {
  post.subscribe(signups, 'fair', () => {}, {
    ordered: { onExhausted: 'block' },
    maxParked: 1_000,
    rateLimit: [
      { limit: 500, per: '1s' },
      { limit: 10, per: '1m', burst: 5, by: (event) => event.data.userId },
    ],
    maxInFlight: { limit: 3, by: (event) => event.data.plan },
    breaker: { isOutage: (error) => isOutage(error) || error instanceof TypeError, probe: { delay: '1s' } },
  })
  post.subscribe(readings, () => {}, { rateLimit: { limit: 5, per: '1s', by: ({ data }) => data.degrees.toFixed() } })
  post.subscribe(readings, (events) => events.length, {
    batch: { size: 5 },
    maxInFlight: [{ limit: 5, by: ({ data }) => data.degrees.toFixed() }],
  })
  post.subscribe(
    signups,
    'both',
    (event, { tx }) => {
      proves<Equal<typeof event.data.at, string>>()
      tx.exec('')
    },
    { transactional: true, rateLimit: { limit: 5, per: '1s', by: (event) => event.data.userId } },
  )
  const shared: SubscribeOptions = { concurrency: 3, ordered: true, breaker: true, maxInFlight: 5 }
  post.subscribe(signups, 'shared', (event) => event.data.userId, shared)
  const byUser: SubscribeOptions<{ readonly userId: string }> = {
    rateLimit: { limit: 5, per: '1s', by: (event) => event.data.userId },
  }
  post.subscribe(signups, 'by-user', () => {}, byUser)
  // @ts-expect-error: plain has no userId
  post.subscribe(plain, 'by-user', () => {}, byUser)
  // @ts-expect-error: no such property of the payload
  post.subscribe(signups, 'fair', () => {}, { rateLimit: { limit: 5, per: '1s', by: (event) => event.data.email } })
  // @ts-expect-error: a bucket is text
  post.subscribe(readings, () => {}, { maxInFlight: { limit: 5, by: (event) => event.data.degrees } })
  // @ts-expect-error: a rate has a time
  post.subscribe(readings, () => {}, { rateLimit: { limit: 5 } })
  // @ts-expect-error: no such end
  post.subscribe(readings, () => {}, { ordered: { onExhausted: 'wait' } })
}

export function transacting(): void {
  post.subscribe(
    signups,
    'accounts',
    async (event, context) => {
      proves<Equal<typeof context.tx, DatabaseSync>>()
      context.tx.prepare('INSERT INTO accounts VALUES (?)').run(event.data.userId)
      await post.publish(readings, '1', { tx: context.tx })
      // @ts-expect-error: its results could not be stored
      await context.step('charge', () => 1)
    },
    { transactional: true },
  )
  post.subscribe(readings, (event, { tx }) => tx.prepare('').run(event.data.degrees), { transactional: true })
  // @ts-expect-error: without the option there is no transaction
  post.subscribe(signups, 'accounts', (_event, context) => context.tx)
  // @ts-expect-error: and no saying what it would be
  post.subscribe(signups, 'accounts', (_event, { tx }: TransactionalContext) => tx)
  // @ts-expect-error: a transaction holds one message
  post.subscribe(signups, 'accounts', () => {}, { transactional: true, batch: { size: 5 } })
}

export function transactingOnPostgres(): void {
  post.subscribe(
    signups,
    'accounts',
    async (event, context: TransactionalContext<PostgresTransaction>) => {
      proves<Equal<typeof event.data.plan, 'free' | 'paid'>>()
      proves<Equal<typeof context.tx, PostgresTransaction>>()
      const { rows } = await context.tx.query<{ id: number }>('SELECT id FROM users WHERE name = $1', [
        event.data.userId,
      ])
      proves<Equal<typeof rows, { id: number }[]>>()
      await context.tx.query('UPDATE users SET plan = $1', [event.data.plan])
      await post.publish(readings, '1', { tx: context.tx })
      // @ts-expect-error: it is not SQLite's
      context.tx.prepare('')
      // @ts-expect-error: its results could not be stored
      await context.step('charge', () => 1)
    },
    { transactional: true, concurrency: 4 },
  )
  const byClient: TransactionalHandler<{ degrees: number }, ClientBase> = ({ data }, { tx }) => {
    proves<Equal<typeof data.degrees, number>>()
    return tx.query({ text: 'SELECT', name: 'nothing' })
  }
  post.subscribe(readings, byClient, { transactional: true })
  // @ts-expect-error: a batch has no transaction
  post.subscribe(readings, byClient, { transactional: true, batch: { size: 5 } })
}

/** A client of `pg` is what the structural type asks for. */
export const fromPg = (client: ClientBase): PostgresTransaction => client

export async function stepping({ step, idempotencyKey }: DeliveryContext, stripe: Stripe): Promise<void> {
  proves<Equal<typeof idempotencyKey, string>>()
  const paid = await step('charge', async ({ signal, attempt, idempotencyKey: key }) => {
    proves<Equal<[typeof signal, typeof attempt, typeof key], [AbortSignal, number, string]>>()
    return { id: 'ch_1', at: new Date(0) }
  })
  proves<Equal<typeof paid, { readonly id: string; readonly at: string }>>()
  const count = await step('count', () => 3, { timeout: '5s', retry: { attempts: 3, backoff: { delay: '1s' } } })
  proves<Equal<typeof count, number>>()
  await step('mail', async () => {})
  // What follows a step without a result is reached.
  proves<Equal<typeof paid.id, string>>()
  const customer = await step('customer', ({ idempotencyKey: key }) =>
    stripe.customers.create({ email: 'a@b.c' }, { idempotencyKey: key }),
  )
  proves<Equal<typeof customer.id, string>>()
  // @ts-expect-error: no such option
  await step('mail', () => 1, { timout: '5s' })
  // @ts-expect-error: a retry says how often
  await step('mail', () => 1, { retry: { backoff: { delay: '1s' } } })
}

// @ts-expect-error: batch handlers have no steps
export const batchStep = (context: BatchContext): unknown => context.step

export async function operating(): Promise<void> {
  const { delayed, waiting, running } = await post.admin.cancel(signups, 'u1')
  proves<Equal<typeof delayed | typeof waiting | typeof running, number>>()
  const [state] = await post.admin.subscriptions()
  proves<Equal<NonNullable<typeof state>['breakers'][number]['state'], 'open' | 'half-open' | 'ramping'>>()
}

export const durations: Duration[] = [5, '5ms', '1.5s', '10m', '2h', '7d']
// @ts-expect-error: no such unit
export const inWeeks: Duration = '2w'

proves<Equal<Serialized<void>, void>>()
proves<Equal<Serialized<string | null>, string | null>>()
proves<Equal<Serialized<Date[]>, readonly string[]>>()
proves<Equal<Serialized<[number, Date]>, readonly [number, string]>>()
proves<
  Equal<
    Serialized<{ a?: Date; b: (string | undefined)[] }>,
    { readonly a?: string; readonly b: readonly (string | null)[] }
  >
>()
proves<Equal<Serialized<{ name: string; greet(): void }>, { readonly name: string }>>()
proves<Equal<Serialized<{ total: bigint }>, { readonly total: never }>>()
proves<Equal<Serialized<Record<string, unknown>>, { readonly [x: string]: unknown }>>()
proves<Equal<Serialized<string & { readonly brand: 'UserId' }>, string & { readonly brand: 'UserId' }>>()
proves<
  Equal<
    Serialized<{ kind: 'a'; at: Date } | { kind: 'b' }>,
    { readonly kind: 'a'; readonly at: string } | { readonly kind: 'b' }
  >
>()

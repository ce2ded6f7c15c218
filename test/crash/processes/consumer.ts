/** Consumes everything, writes down what it has handled, and fails every now and then. */
import { setTimeout } from 'node:timers/promises'
import { connect, Discard, seededRandom } from 'posthorn'
import { Ledger } from '../ledger.ts'
import { BATCHED, events, jobs, ORDERED, type Payload, receipts, SINGLE, TRANSACTIONAL, users } from '../topics.ts'
import { insertLabel, openUserDatabase } from '../user-database.ts'
import { assignment, connectOptions, insist, reportReady, whenAskedToStop } from './child.ts'

const { url, ledgerFolder, name, incarnation, seed } = assignment

const FAILING_SHARE = 0.02
const WAITING_SHARE = 0.2
const WAIT_MS_MAX = 4

// Only what is provoked may become a dead letter: neither failures nor crashes ever add up to one.
const persistence = {
  from: 'earliest',
  maxCrashes: 1_000,
  retry: { attempts: 1_000, backoff: { type: 'fixed', delay: 20, jitter: 'none' } },
} as const

const random = seededRandom(seed)
const ledger = new Ledger(ledgerFolder, `${name}.${incarnation}`)

function check({ discard }: Payload): void {
  if (discard === true) throw new Discard('Discarded on purpose.')
  if (random.number() < FAILING_SHARE) throw new Error('Failed on purpose.')
}

async function work(): Promise<void> {
  if (random.number() < WAITING_SHARE) await setTimeout(random.number() * WAIT_MS_MAX)
}

function handlerOf(subscription: string) {
  return async ({ data }: { readonly data: Payload }) => {
    await work()
    check(data)
    ledger.write(`handled.${subscription}`, data.label)
  }
}

const post = await insist(() => connect(url, connectOptions))
const database = openUserDatabase(url)
await insist(() => database.createTables())
await insist(() => post.ensureTopics(receipts))

const subscribing = [
  () => post.subscribe(events, SINGLE, handlerOf(SINGLE), { concurrency: 5, ...persistence }),
  () =>
    post.subscribe(
      events,
      BATCHED,
      async (batch, context) => {
        await work()
        for (const event of batch) {
          try {
            check(event.data)
            ledger.write(`handled.${BATCHED}`, event.data.label)
          } catch (error) {
            context.fail(event, error)
          }
        }
      },
      { concurrency: 2, batch: { size: 20 }, ...persistence },
    ),
  () =>
    post.subscribe(
      users,
      ORDERED,
      async ({ data }, context) => {
        ledger.writeTimed('started', data.label)
        await context.step('effect', async () => {
          ledger.writeTimed('step-began', data.label)
          await work()
        })
        ledger.writeTimed('step-finished', data.label)
        check(data)
        ledger.write(`handled.${ORDERED}`, data.label)
      },
      { concurrency: 5, ordered: true, ...persistence },
    ),
  () =>
    post.subscribe(
      users,
      TRANSACTIONAL,
      async ({ data }, { tx }) => {
        await insertLabel(tx, 'effects', data.label)
        await post.publish(receipts, { label: data.label }, { tx })
        check(data)
      },
      { concurrency: 5, transactional: true, ...persistence },
    ),
  () => post.subscribe(jobs, handlerOf(jobs.name), { concurrency: 5, ...persistence }),
]
whenAskedToStop(async () => {
  await post.close()
  await database.close()
})
await Promise.all(subscribing.map((subscribe) => insist(() => subscribe().ready)))
reportReady()

/**
 * Publishes in every way there is, and writes down what was acknowledged. Ids of its own choice are written down
 * before they are used: an incarnation publishes those again of which its predecessors did not hear, and an id is to
 * be stored once however often that happens.
 */
import { setTimeout } from 'node:timers/promises'
import { connect, type PublishOptions, seededRandom } from 'posthorn'
import { Ledger, readLedger } from '../ledger.ts'
import { events, jobs, users } from '../topics.ts'
import { insertLabel, openUserDatabase } from '../user-database.ts'
import { assignment, connectOptions, insist, isOutage, reportReady, whenAskedToStop } from './child.ts'

const { url, ledgerFolder, name, incarnation, seed } = assignment

const ROUND_MS_MAX = 20
const DELAY_MS_MAX = 300
const ROLLED_BACK_SHARE = 0.2
const REPEATED_SHARE = 0.2
const USERS = 10

const random = seededRandom(seed)
const ledger = new Ledger(ledgerFolder, `${name}.${incarnation}`)
const sequences = new Map<string, number>()
let labels = 0
let stopping = false

const post = await insist(() => connect(url, connectOptions))
const database = openUserDatabase(url)

function newLabel(kind: string): string {
  return `${kind}:${name}.${incarnation}.${labels++}`
}

async function publish(options: PublishOptions = {}): Promise<void> {
  const label = newLabel('plain')
  await post.publish(events, { label }, options)
  ledger.write('acknowledged.events', label)
}

async function publishJob(): Promise<void> {
  const label = newLabel('job')
  await post.publish(jobs, { label })
  ledger.write('acknowledged.jobs', label)
}

async function publishDiscarded(): Promise<void> {
  const label = newLabel('discard')
  await post.publish(events, { label, discard: true })
  ledger.write('acknowledged.discards', label)
}

async function publishId(label: string): Promise<void> {
  const { duplicate } = await insist(() => post.publish(events, { label }, { id: label }))
  if (duplicate) ledger.write('duplicates', label)
  ledger.write('acknowledged.events', label)
}

async function publishNewId(): Promise<void> {
  const label = newLabel('id')
  ledger.write('intended', label)
  const repeated = random.number() < REPEATED_SHARE
  await Promise.all([publishId(label), ...(repeated ? [publishId(label)] : [])])
}

async function publishMany(): Promise<void> {
  const batch = Array.from({ length: 20 }, () => newLabel('bulk'))
  await post.publishAll(
    events,
    batch.map((label) => ({ label })),
  )
  for (const label of batch) ledger.write('acknowledged.events', label)
}

/** A row in the user's table and a message, both or neither. */
async function publishOrder(): Promise<void> {
  const label = newLabel('order')
  const rolledBack = random.number() < ROLLED_BACK_SHARE
  if (rolledBack) ledger.write('rolled-back', label)
  await database.transaction(async (tx) => {
    await insertLabel(tx, 'orders', label)
    await post.publish(events, { label }, { tx })
    return !rolledBack
  })
  if (!rolledBack) ledger.write('acknowledged.events', label)
}

/** The next thing that happens to some users, in the order of their sequences. */
async function publishUsers(): Promise<void> {
  const chosen = Array.from({ length: 3 }, () => `${name}.${incarnation}.${Math.floor(random.number() * USERS)}`)
  await Promise.all([...new Set(chosen)].map(publishUser))
}

async function publishUser(user: string): Promise<void> {
  const sequence = sequences.get(user) ?? 0
  sequences.set(user, sequence + 1)
  const label = `${user}#${sequence}`
  await post.publish(users, { label, user, sequence })
  ledger.write('acknowledged.users', label)
}

const ways: readonly (() => Promise<void>)[] = [
  () => publish(),
  () => publish({ delay: Math.ceil(random.number() * DELAY_MS_MAX) }),
  publishJob,
  publishNewId,
  publishOrder,
  publishMany,
  publishDiscarded,
  publishUsers,
]

async function publishAgain(): Promise<void> {
  const known = new Set(readLedger(ledgerFolder, 'acknowledged.events', `${name}.`))
  const unheard = readLedger(ledgerFolder, 'intended', `${name}.`).filter((label) => !known.has(label))
  await Promise.all([...new Set(unheard)].map(publishId))
}

/** What a killed server did not acknowledge may be stored or not. */
function leave(error: unknown): void {
  if (!isOutage(error)) throw error
}

// One order at a time, because they share a connection; of the others several at once.
async function publishOn(): Promise<void> {
  while (!stopping) {
    const chosen = Array.from({ length: 5 }, () => ways[Math.floor(random.number() * ways.length)]!)
    await Promise.all([...new Set(chosen)].map((way) => way().catch(leave)))
    await setTimeout(random.number() * ROUND_MS_MAX)
  }
}

await insist(() => database.createTables())
// The topics exist before one of them is published to within a transaction.
await Promise.all([publish, publishJob, publishUsers, publishAgain].map((publishing) => insist(() => publishing())))
const published = publishOn()
whenAskedToStop(async () => {
  stopping = true
  await published
  await post.close()
  await database.close()
})
reportReady()

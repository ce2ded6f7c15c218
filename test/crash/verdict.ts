import type { Post, TopicDefinition } from 'posthorn'
import { readLedger, readTimedLedger } from './ledger.ts'
import { BATCHED, events, jobs, ORDERED, type Payload, receipts, SINGLE, users } from './topics.ts'
import type { UserDatabase } from './user-database.ts'

/** What became of all that was published. Everything that must not happen is counted on its own. */
export interface Verdict {
  /** Messages whose publishing was acknowledged. */
  readonly published: number
  /** Deliveries that they amount to: each subscription of the topic is to get each. */
  readonly acknowledged: number
  /** Times that a handler has done its work. */
  readonly delivered: number
  /** Deliveries that never came. */
  readonly lost: number
  /** Deliveries that came more than once: allowed, and wanted to be few. */
  readonly duplicates: number
  /** Dead letters that nobody asked for. */
  readonly deadLettered: number
  /** Dead letters that a handler asked for. */
  readonly discarded: number
  /** Ids stored more than once. */
  readonly duplicateIds: number
  /** Ids published again after a crash, and recognised. */
  readonly recognisedIds: number
  /** Rows without their message, and messages without their row. */
  readonly tornTransactions: number
  /** Handlers that were begun after a handler for a later message of the same key. */
  readonly outOfOrder: number
  /** Steps that were begun again after they had finished. */
  readonly repeatedSteps: number
  /** Messages whose transactional handler took effect not exactly once, in the table or by what it published. */
  readonly tornEffects: number
  /** What the store says is wrong with itself. */
  readonly damage: readonly string[]
}

interface Expectation {
  readonly topic: string
  readonly subscription: string
  readonly labels: readonly string[]
  readonly discards: readonly string[]
}

/** Compares what was promised with what has come. Nothing may run any more. */
export async function judge(post: Post, database: UserDatabase, folder: string): Promise<Verdict> {
  const discards = readLedger(folder, 'acknowledged.discards')
  const orders = await database.labels('orders')
  const acknowledged = [...new Set([...readLedger(folder, 'acknowledged.events'), ...orders])]
  const expectations: Expectation[] = [
    { topic: events.name, subscription: SINGLE, labels: acknowledged, discards },
    { topic: events.name, subscription: BATCHED, labels: acknowledged, discards },
    {
      topic: jobs.name,
      subscription: jobs.name,
      labels: readLedger(folder, 'acknowledged.jobs'),
      discards: [],
    },
    {
      topic: users.name,
      subscription: ORDERED,
      labels: readLedger(folder, 'acknowledged.users'),
      discards: [],
    },
  ]
  const parts = await Promise.all(expectations.map((expectation) => compare(post, folder, expectation)))
  return {
    published: sum([acknowledged, discards, ...expectations.slice(2).map(({ labels }) => labels)].map(lengthOf)),
    acknowledged: sum(expectations.map(({ labels, discards }) => labels.length + discards.length)),
    delivered: sum(parts.map(({ delivered }) => delivered)),
    lost: sum(parts.map(({ lost }) => lost)),
    duplicates: sum(parts.map(({ duplicates }) => duplicates)),
    deadLettered: sum(parts.map(({ deadLettered }) => deadLettered)),
    discarded: sum(parts.map(({ discarded }) => discarded)),
    duplicateIds: countDuplicates((await storedLabels(post, events)).filter((label) => label.startsWith('id:'))),
    recognisedIds: readLedger(folder, 'duplicates').length,
    tornTransactions: countTorn(folder, new Set(orders)),
    outOfOrder: countOutOfOrder(folder),
    repeatedSteps: countRepeatedSteps(folder),
    tornEffects: await countTornEffects(post, database, folder),
    damage: await post.admin.checkIntegrity(),
  }
}

/** Says whether nothing happened that must not. */
export function isClean(verdict: Verdict): boolean {
  const { lost, deadLettered, duplicateIds, tornTransactions, outOfOrder, repeatedSteps, tornEffects } = verdict
  const torn = tornTransactions + tornEffects
  return lost + deadLettered + duplicateIds + torn + outOfOrder + repeatedSteps + verdict.damage.length === 0
}

async function compare(post: Post, folder: string, { topic, subscription, labels, discards }: Expectation) {
  const handled = readLedger(folder, `handled.${subscription}`)
  const seen = new Set(handled)
  const dead = new Set<string>()
  for await (const letter of post.admin.eachDeadLetter(topic, subscription)) dead.add(labelOf(letter.event?.data))
  const lost = labels.filter((label) => !seen.has(label)).length + discards.filter((label) => !dead.has(label)).length
  const discarded = [...dead].filter((label) => label.startsWith('discard:')).length
  const duplicates = handled.length - seen.size
  return { delivered: handled.length, lost, duplicates, discarded, deadLettered: dead.size - discarded }
}

// A message published within a transaction was delivered exactly if its row is there, whatever happened in between.
function countTorn(folder: string, orders: ReadonlySet<string>): number {
  const rolledBack = new Set(readLedger(folder, 'rolled-back'))
  return sum(
    [SINGLE, BATCHED].map((subscription) => {
      const handled = readLedger(folder, `handled.${subscription}`).filter((label) => label.startsWith('order:'))
      const seen = new Set(handled)
      const withoutRow = [...seen].filter((label) => !orders.has(label) || rolledBack.has(label)).length
      const withoutMessage = [...orders].filter((label) => !seen.has(label)).length
      return withoutRow + withoutMessage
    }),
  )
}

// Once a message of a key has been begun, those before it are settled for good, whoever dies.
function countOutOfOrder(folder: string): number {
  const reached = new Map<string, number>()
  let found = 0
  for (const { label } of readTimedLedger(folder, 'started')) {
    const [user = '', sequence] = label.split('#')
    const highest = reached.get(user) ?? -1
    if (Number(sequence) < highest) found++
    else reached.set(user, Number(sequence))
  }
  return found
}

function countRepeatedSteps(folder: string): number {
  const finishedAt = new Map<string, bigint>()
  for (const { at, label } of readTimedLedger(folder, 'step-finished').toReversed()) finishedAt.set(label, at)
  const begun = readTimedLedger(folder, 'step-began')
  return begun.filter(({ at, label }) => at > (finishedAt.get(label) ?? at)).length
}

async function countTornEffects(post: Post, database: UserDatabase, folder: string): Promise<number> {
  const effects = await database.labels('effects')
  const published = await storedLabels(post, receipts)
  const missing = countMissing(readLedger(folder, 'acknowledged.users'), effects)
  const halves = countMissing(effects, published) + countMissing(published, effects)
  return countDuplicates(effects) + countDuplicates(published) + missing + halves
}

async function storedLabels(post: Post, topic: TopicDefinition<Payload, Payload>): Promise<string[]> {
  const labels: string[] = []
  for (let partition = 0; partition < topic.config.partitions; partition++) {
    for (let fromOffset = 0; ; ) {
      const page = await post.admin.peek(topic, { partition, fromOffset, limit: 10_000 })
      if (page.length === 0) break
      for (const { message } of page) labels.push(labelOf(message.event.data))
      fromOffset = page.at(-1)!.message.offset + 1
    }
  }
  return labels
}

function labelOf(data: unknown): string {
  return (data as { label?: string } | undefined)?.label ?? 'unreadable'
}

function countDuplicates(labels: readonly string[]): number {
  return labels.length - new Set(labels).size
}

function lengthOf(values: readonly unknown[]): number {
  return values.length
}

/** How many of `wanted` are not among `found`. */
function countMissing(wanted: readonly string[], found: readonly string[]): number {
  const known = new Set(found)
  return wanted.filter((label) => !known.has(label)).length
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

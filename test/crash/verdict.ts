import { DatabaseSync } from 'node:sqlite'
import type { Post } from 'posthorn'
import { readLedger } from './ledger.ts'
import { BATCHED, events, jobs, LIST_ORDERS, SINGLE } from './topics.ts'

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
export async function judge(post: Post, file: string, folder: string): Promise<Verdict> {
  const discards = readLedger(folder, 'acknowledged.discards')
  const orders = readOrders(file)
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
  ]
  const parts = await Promise.all(expectations.map((expectation) => compare(post, folder, expectation)))
  return {
    published: acknowledged.length + discards.length + expectations[2]!.labels.length,
    acknowledged: sum(expectations.map(({ labels, discards }) => labels.length + discards.length)),
    delivered: sum(parts.map(({ delivered }) => delivered)),
    lost: sum(parts.map(({ lost }) => lost)),
    duplicates: sum(parts.map(({ duplicates }) => duplicates)),
    deadLettered: sum(parts.map(({ deadLettered }) => deadLettered)),
    discarded: sum(parts.map(({ discarded }) => discarded)),
    duplicateIds: countDuplicates((await storedLabels(post)).filter((label) => label.startsWith('id:'))),
    recognisedIds: readLedger(folder, 'duplicates').length,
    tornTransactions: countTorn(folder, new Set(orders)),
    damage: await post.admin.checkIntegrity(),
  }
}

/** Says whether nothing happened that must not. */
export function isClean(verdict: Verdict): boolean {
  const { lost, deadLettered, duplicateIds, tornTransactions, damage } = verdict
  return lost + deadLettered + duplicateIds + tornTransactions + damage.length === 0
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

function readOrders(file: string): string[] {
  const database = new DatabaseSync(file, { readOnly: true })
  const rows = database.prepare(LIST_ORDERS).all()
  database.close()
  return rows.map(({ label }) => String(label))
}

async function storedLabels(post: Post): Promise<string[]> {
  const labels: string[] = []
  for (let partition = 0; partition < events.config.partitions; partition++) {
    for (let fromOffset = 0; ; ) {
      const page = await post.admin.peek(events, { partition, fromOffset, limit: 10_000 })
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

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

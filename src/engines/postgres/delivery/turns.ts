/**
 * Changes to what subscriptions have under way, in turns. A turn takes all that has been asked for while the one before
 * was under way, for any number of subscriptions, and carries it out in one transaction: it locks the subscriptions'
 * rows, loads their states, lets each piece of work change them, and inserts the versions that came out.
 *
 * Work must refuse what it cannot do before it changes anything. When the database fails, nothing of the turn was done,
 * and all of its work rejects; with POSTHORN_OUTCOME_UNKNOWN it may have been done.
 *
 * What is remembered of a state is worth something as long as the server is the same: after a failover the same version
 * may be another state, and the same offsets other messages.
 */
import type { SubscriptionRef } from '../../../engine.ts'
import type { Clock } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import { isOfTheData } from '../database/failure.ts'
import type { Queryable, Transaction } from '../database/statement.ts'
import * as sql from '../sql/turns.ts'
import { DeliveryState } from './delivery-state.ts'

/** A subscription as it is stored, with what has to be known of its topic. */
export interface SubscriptionRow extends SubscriptionRef {
  readonly subscriptionId: number
  readonly topicId: number
  readonly kind: 'topic' | 'queue'
  readonly partitions: number
  readonly generation: number
  readonly hasCancelled: boolean
  readonly ordered: boolean
  readonly maxCrashes: number
  readonly maxParked: number
  readonly paused: boolean
}

export type SubscriptionKey = SubscriptionRef & Pick<SubscriptionRow, 'subscriptionId'>

/** A subscription whose row is locked. */
export interface Turn {
  /** Carries out statements in the turn's transaction. */
  readonly rows: Transaction
  readonly nowMs: number
  readonly subscription: SubscriptionRow
  /** Kept, as it is then, when the turn ends. */
  readonly state: DeliveryState
  /** Called once the transaction is committed. */
  afterwards(effect: () => void): void
}

interface Version {
  readonly version: number
  readonly text: string
}

interface Loaded extends Pick<SubscriptionRow, 'subscriptionId' | 'generation' | 'hasCancelled'> {
  readonly version: number
  /** Null: as it is known. */
  readonly state: string | null
  /** Another one after a failover or a restart. */
  readonly server: string
}

export interface OpenTurn extends Turn {
  readonly before: Version
}

type Changed = readonly [subscriptionId: number, version: Version]

interface Work {
  readonly key: SubscriptionKey
  run(turn: Turn): Promise<void>
  /** The transaction is committed. */
  finish(): void
  fail(error: unknown): void
}

/** Versions are deleted this many at a time, and as many of the newest are left for whoever looks at them. */
const PRUNED_AT_ONCE = 32

export class Turns {
  readonly #database: Database
  readonly #clock: Clock
  readonly #known = new Map<number, Version>()
  readonly #onOtherServer: () => void
  #server: string | undefined
  #waiting: Work[] = []
  /** Until nothing waits any more. */
  #running: Promise<void> | undefined

  /** `onOtherServer`: what is remembered of the log is to be forgotten, and what is leased to be looked at again. */
  constructor(database: Database, clock: Clock, onOtherServer: () => void = () => {}) {
    this.#database = database
    this.#onOtherServer = onOtherServer
    this.#clock = clock
  }

  /** Carries `work` out in the next turn. Rejects with POSTHORN_SUBSCRIPTION_NOT_FOUND when it was deleted. */
  run<Value>(key: SubscriptionKey, work: (turn: Turn) => Promise<Value>): Promise<Value> {
    return new Promise<Value>((resolve, reject) => {
      let value: Value
      const run = async (turn: Turn) => {
        value = await work(turn)
      }
      this.#waiting.push({ key, run, finish: () => resolve(value), fail: reject })
      this.#running ??= this.#runAll()
    })
  }

  /** Resolves once all that was asked for has been carried out. */
  async idle(): Promise<void> {
    await this.#running
  }

  /** Carries `work` out on several subscriptions at once, in a transaction of its own. Those that are gone are left out. */
  async across<Value>(
    subscriptionIds: readonly number[],
    work: (turns: readonly Turn[], rows: Transaction) => Promise<Value>,
  ): Promise<Value> {
    const effects: (() => void)[] = []
    const { value, saved } = await this.#database.transaction(async (rows) => {
      effects.length = 0
      const opened = await this.open(rows, subscriptionIds, effects)
      const value = await work([...opened.values()], rows)
      return { value, saved: this.save(rows, opened.values()) }
    })
    this.remember(saved)
    for (const effect of effects) effect()
    return value
  }

  /** Locks and loads subscriptions in a transaction that somebody else has begun. */
  async open(
    rows: Transaction,
    subscriptionIds: readonly number[],
    effects: (() => void)[],
  ): Promise<Map<number, OpenTurn>> {
    const ids = [...new Set(subscriptionIds)].toSorted((one, other) => one - other)
    // Sent together: the second is carried out, and looks, when the first has its locks.
    const [locked, found] = await Promise.all([rows.rows<SubscriptionRow>(sql.turns.lock, ids), this.#load(rows, ids)])
    const isToBeReadAgain = this.#isOtherServer(found) || found.some((row) => this.#isForgotten(row))
    const loaded = isToBeReadAgain ? await this.#load(rows, ids) : found
    const states = new Map(loaded.map((row) => [row.subscriptionId, row]))
    const nowMs = this.#clock.now()
    const afterwards = (effect: () => void) => void effects.push(effect)
    const opened = locked.flatMap((found) => {
      const row = states.get(found.subscriptionId)
      if (!row) return []
      const subscription = { ...found, generation: row.generation, hasCancelled: row.hasCancelled }
      const text = row.state ?? this.#known.get(subscription.subscriptionId)!.text
      const before = { version: row.version, text }
      return [{ rows, nowMs, subscription, state: DeliveryState.parse(text), before, afterwards }]
    })
    return new Map(opened.map((turn) => [turn.subscription.subscriptionId, turn]))
  }

  #load(rows: Queryable, ids: readonly number[]): Promise<Loaded[]> {
    const versions = ids.map((id) => this.#known.get(id)?.version ?? -1)
    return rows.rows<Loaded>(sql.turns.load, ids, versions)
  }

  /** Then nothing is remembered any more. */
  #isOtherServer([first]: readonly Loaded[]): boolean {
    if (!first || first.server === this.#server) return false
    const isFirst = this.#server === undefined
    this.#server = first.server
    if (isFirst) return false
    this.#known.clear()
    this.#onOtherServer()
    return true
  }

  /** As it was known, but another transaction has found the server to be another one since that was asked for. */
  #isForgotten({ subscriptionId, state }: Loaded): boolean {
    return state === null && !this.#known.has(subscriptionId)
  }

  /** Stores what has changed. To be given to `remember` once the transaction is committed. */
  save(rows: Transaction, opened: Iterable<OpenTurn>): ReadonlyMap<number, Version> {
    const all = new Map<number, Version>()
    const changed: Changed[] = []
    for (const { subscription, state, before } of opened) {
      const text = state.toText()
      const isChanged = text !== before.text
      const version = isChanged ? { version: before.version + 1, text } : before
      all.set(subscription.subscriptionId, version)
      if (isChanged) changed.push([subscription.subscriptionId, version])
    }
    if (changed.length > 0) {
      insert(rows, changed)
      prune(rows, changed)
    }
    return all
  }

  /** These versions are committed, and need not be loaded again. */
  remember(saved: ReadonlyMap<number, Version>): void {
    for (const [id, version] of saved) this.#known.set(id, version)
  }

  async #runAll(): Promise<void> {
    // What is asked for in the same turn of the event loop goes together.
    await undefined
    while (this.#waiting.length > 0) {
      const works = this.#waiting
      this.#waiting = []
      await this.#carryOut(works)
    }
    this.#running = undefined
  }

  async #carryOut(works: readonly Work[]): Promise<void> {
    const effects: (() => void)[] = []
    const refused = new Map<Work, unknown>()
    try {
      const saved = await this.#database.transaction(async (rows) => {
        effects.length = 0
        refused.clear()
        const ids = works.map(({ key }) => key.subscriptionId)
        const opened = await this.open(rows, ids, effects)
        for (const work of works) {
          const error = await runOne(work, opened.get(work.key.subscriptionId))
          if (error !== undefined) refused.set(work, error)
        }
        return this.save(rows, opened.values())
      })
      this.remember(saved)
    } catch (error) {
      // The others are not to suffer for a value that the server cannot take, or that nothing explains.
      if (works.length > 1 && isOfTheData(error)) for (const work of works) await this.#carryOut([work])
      else for (const work of works) work.fail(refused.get(work) ?? error)
      return
    }
    for (const effect of effects) effect()
    for (const work of works) refused.has(work) ? work.fail(refused.get(work)) : work.finish()
  }
}

/** What it was refused for. A failure of the database is thrown: it is everybody's. */
async function runOne(work: Work, turn: Turn | undefined): Promise<unknown> {
  const { topic, subscription } = work.key
  // On a server that was restored, its number may be another's.
  const isIt = turn?.subscription.topic === topic && turn.subscription.subscription === subscription
  if (!isIt) return new PosthornError('POSTHORN_SUBSCRIPTION_NOT_FOUND', { topic, subscription })
  try {
    await work.run(turn)
    return undefined
  } catch (error) {
    if (error instanceof PosthornError) return error
    throw error
  }
}

function insert(rows: Transaction, changed: readonly Changed[]): void {
  rows.send(
    sql.turns.save,
    changed.map(([id]) => id),
    changed.map(([, { version }]) => version),
    changed.map(([, { text }]) => text),
  )
}

function prune(rows: Transaction, changed: readonly Changed[]): void {
  const due = changed.filter(([, { version }]) => version % PRUNED_AT_ONCE === 0)
  if (due.length === 0) return
  rows.send(
    sql.turns.prune,
    due.map(([id]) => id),
    due.map(([, { version }]) => version - 2 * PRUNED_AT_ONCE),
    due.map(([, { version }]) => version - PRUNED_AT_ONCE),
  )
}

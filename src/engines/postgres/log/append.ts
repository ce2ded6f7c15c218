/**
 * Stores messages. What is asked for while a transaction is under way goes into the next one, all together, so that a
 * process waits for one commit at a time, and messages that were published one by one share record batches.
 *
 * A transaction locks the rows of its topics, in the order of their ids, and finds the ends of their partitions; both
 * statements, and the BEGIN before them, are sent without waiting for an answer. Then it inserts, and the COMMIT
 * follows at once. Nobody else can store anything in these topics meanwhile, so offsets have no gaps, and whoever sees a
 * batch sees all before it.
 *
 * Groups are refused before anything of them is stored. When the database fails, nothing of the transaction was stored,
 * and all calls in it reject; with POSTHORN_OUTCOME_UNKNOWN it may have been stored.
 */
import type { AppendGroup, AppendOptions, AppendOutcome } from '../../../engine.ts'
import type { Database } from '../database/database.ts'
import type { Transaction } from '../database/statement.ts'
import { type AppendCall, AppendWork, type Stored } from './append-work.ts'
import type { Topics } from './topics.ts'

interface WaitingCall extends AppendCall {
  readonly nowMs: number
  readonly characters: number
  resolve(outcomes: readonly AppendOutcome[]): void
  reject(error: unknown): void
}

export interface AppenderParts {
  readonly database: Database
  readonly topics: Topics
  /** Called once it is committed. */
  onStored(stored: Stored): void
}

/** What one transaction carries; a single call may be larger. */
const CHARACTERS_AT_ONCE = 4 * 2 ** 20

export class Appender {
  readonly #parts: AppenderParts
  #waiting: WaitingCall[] = []
  #running = false
  #keylessTurn = 0

  constructor(parts: AppenderParts) {
    this.#parts = parts
  }

  /** In a transaction of its own; resolves when that is committed. */
  append(groups: readonly AppendGroup[], options: AppendOptions, nowMs: number): Promise<readonly AppendOutcome[]> {
    return new Promise((resolve, reject) => {
      const characters = charactersIn(groups)
      this.#waiting.push({ groups, atomic: options.atomic === true, nowMs, characters, resolve, reject })
      if (!this.#running) void this.#runAll()
    })
  }

  /** In somebody's transaction. */
  async appendWithin(
    rows: Transaction,
    groups: readonly AppendGroup[],
    nowMs: number,
    options: AppendOptions = {},
  ): Promise<readonly AppendOutcome[]> {
    return (await this.storeWithin(rows, groups, nowMs, options)).outcomes
  }

  /** As `appendWithin`. `stored` is to be told to others once the transaction is committed. */
  async storeWithin(
    rows: Transaction,
    groups: readonly AppendGroup[],
    nowMs: number,
    options: AppendOptions & { readonly whateverBacklog?: boolean } = {},
  ): Promise<{ readonly outcomes: readonly AppendOutcome[]; readonly stored: Stored }> {
    const call = { ...options, groups, atomic: options.atomic === true }
    const { outcomes, stored } = await this.#workOn([call], nowMs).run(rows)
    return { outcomes: outcomes[0]!, stored }
  }

  #workOn(calls: readonly AppendCall[], nowMs: number): AppendWork {
    return new AppendWork(this.#parts.topics, calls, nowMs, () => this.#keylessTurn++)
  }

  async #runAll(): Promise<void> {
    this.#running = true
    // What is asked for in the same turn of the event loop goes together.
    await undefined
    while (this.#waiting.length > 0) await this.#carryOut(this.#take())
    this.#running = false
  }

  #take(): readonly WaitingCall[] {
    let characters = 0
    const end = this.#waiting.findIndex((call) => {
      characters += call.characters
      return characters > CHARACTERS_AT_ONCE
    })
    return this.#waiting.splice(0, end === -1 ? this.#waiting.length : Math.max(1, end))
  }

  async #carryOut(calls: readonly WaitingCall[]): Promise<void> {
    try {
      const nowMs = calls.at(-1)!.nowMs
      const { outcomes, stored } = await this.#parts.database.transaction((rows) =>
        this.#workOn(calls, nowMs).run(rows),
      )
      this.#parts.onStored(stored)
      for (const [place, call] of calls.entries()) call.resolve(outcomes[place]!)
    } catch (error) {
      for (const call of calls) call.reject(error)
    }
  }
}

function charactersIn(groups: readonly AppendGroup[]): number {
  let characters = 0
  for (const { messages } of groups) for (const { json } of messages) characters += json.length
  return characters
}

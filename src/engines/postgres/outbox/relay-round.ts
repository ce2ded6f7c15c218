/**
 * One round of the relay: brings into the log what has become visible of the outbox since the last complete round, in the
 * order in which it was published, some hundreds of groups a transaction. The last of these stores the snapshot that
 * the round began with, so that the next one need not look at what this one saw; when the round is broken off, the next
 * begins where this one did, and finds what is left.
 *
 * Each transaction holds the turn to relay, which ends with it. Between two of them somebody else may have it, who then
 * relays the same groups in the same order; that shows in the version of the snapshot, or in groups that are gone.
 *
 * A group that the log cannot take keeps no other back: when a transaction fails because of what is in it, its groups
 * are tried one by one, and the guilty ones are put aside as stranded.
 */
import type { AppendGroup, AppendOutcome } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import { isOfTheData } from '../database/failure.ts'
import type { Queryable, Transaction } from '../database/statement.ts'
import type { Stored } from '../log/append-work.ts'
import { outbox } from '../sql/outbox.ts'
import { mergeGroups, type OutboxRow } from './merged-groups.ts'

export interface RoundParts {
  readonly database: Database
  /** Stores groups within a transaction, whatever the backlog is: publishing has looked at it. */
  store(
    rows: Transaction,
    groups: readonly AppendGroup[],
  ): Promise<{ outcomes: readonly AppendOutcome[]; stored: Stored }>
  /** Who relays. */
  readonly name: string
  /** Whether to wait for the turn rather than to give up when somebody else has it. */
  readonly waits: boolean
  /** Called when a transaction is committed. */
  onCarried(carried: Carried): void
}

export interface Carried {
  readonly stored: readonly Stored[]
  readonly stranded: readonly Stranded[]
}

export interface RoundOutcome {
  /** Somebody else had the turn. */
  readonly busy: boolean
  /** There may be more. */
  readonly more: boolean
  /** Whether somebody else is the one that relays mostly. */
  readonly leading: boolean
  /** How many were found. */
  readonly groups: number
}

/** Why a group cannot be in the log. */
export interface Verdict {
  readonly code: string
  readonly problem: string
}

export type Stranded = OutboxRow & Verdict

interface Candidate {
  readonly outboxId: number
  readonly bytes: number
}

interface Looked {
  readonly version: number
  readonly snapshot: string
  readonly candidates: readonly Candidate[]
  readonly relayedBy: string | undefined
}

type CandidateRow = { readonly [Name in keyof Candidate]: Candidate[Name] | null } & {
  readonly version: number | null
  readonly relayedBy: string | null
  readonly snapshot: string
}

const NOTHING: Carried = { stored: [], stranded: [] }
const CANDIDATES_MAX = 50_000
const GROUPS_MAX = 500
const BYTES_MAX = 4_000_000
const PRUNED_AT_ONCE = 32

export class RelayRound {
  readonly #parts: RoundParts
  readonly #turnName: string
  #looked: Looked | undefined
  #taken: readonly Candidate[] = []
  #hasRelayed = false

  constructor(parts: RoundParts) {
    this.#parts = parts
    this.#turnName = `posthorn relay ${parts.database.address.schema}`
  }

  /** Whether there is anything to bring, as far as can be seen without having the turn. */
  async isNeeded(): Promise<boolean> {
    const found = await this.#parts.database.transaction(async (rows) => {
      const [, first] = await Promise.all([
        rows.rows(outbox.plan),
        rows.rows<CandidateRow>(outbox.candidates, false, 1),
      ])
      return first[0]!.outboxId
    })
    return found !== null
  }

  /** Whether earlier rounds have seen something and left it there, as far as can be seen without having the turn. */
  async hasMissed(): Promise<boolean> {
    const [, [found]] = await this.#parts.database.transaction((rows) =>
      Promise.all([rows.rows(outbox.plan), rows.rows<{ missed: boolean }>(outbox.missed)]),
    )
    return found!.missed
  }

  /** `fully`: looks at all of the outbox, whatever earlier rounds have seen. */
  async run(fully: boolean): Promise<RoundOutcome> {
    if (!(await this.#begin(fully))) return this.#outcome({ busy: true, more: false })
    const { candidates } = this.#looked!
    for (let done = this.#taken.length; done < candidates.length; done += this.#taken.length) {
      this.#taken = upTo(candidates.slice(done))
      if (!(await this.#carry(this.#taken))) return this.#outcome({ busy: true, more: true })
    }
    return this.#outcome({ busy: false, more: candidates.length === CANDIDATES_MAX })
  }

  #outcome(state: Pick<RoundOutcome, 'busy' | 'more'>): RoundOutcome {
    const before = this.#looked?.relayedBy
    const leading = !state.busy && (this.#hasRelayed || before === undefined || before === this.#parts.name)
    return { ...state, leading, groups: this.#looked?.candidates.length ?? 0 }
  }

  /** Looks, and carries out what the first transaction can take, which mostly is all. Says whether it had the turn. */
  async #begin(fully: boolean): Promise<boolean> {
    try {
      const carried = await this.#parts.database.transaction(async (rows) => {
        this.#looked = await this.#look(rows, fully)
        this.#taken = upTo(this.#looked?.candidates ?? [])
        return this.#taken.length > 0 ? this.#bring(rows, this.#taken) : NOTHING
      })
      if (this.#looked) this.#note(carried)
      return this.#looked !== undefined
    } catch (error) {
      if (!this.#looked || !isOfTheData(error)) throw error
      return this.#carryOneByOne(this.#taken, error)
    }
  }

  /** Nothing if somebody else has the turn. */
  async #look(rows: Queryable, fully: boolean): Promise<Looked | undefined> {
    // Sent together: the second looks when the first has the turn.
    const [isMine, found] = await Promise.all([
      this.#turn(rows),
      rows.rows<CandidateRow>(outbox.candidates, fully, CANDIDATES_MAX),
    ])
    if (!isMine) return undefined
    const { version, relayedBy, snapshot } = found[0]!
    const candidates = found.filter((row): row is CandidateRow & Candidate => row.outboxId !== null)
    return { version: version ?? 0, relayedBy: relayedBy ?? undefined, snapshot, candidates }
  }

  async #turn(rows: Queryable): Promise<boolean> {
    const statement = this.#parts.waits ? outbox.waitForTurn : outbox.tryTurn
    const [row] = await rows.rows<{ mine: boolean }>(statement, this.#turnName)
    return row!.mine
  }

  /** Says whether it had the turn. */
  async #carry(taken: readonly Candidate[]): Promise<boolean> {
    try {
      return this.#note(await this.#transact(taken))
    } catch (error) {
      if (!isOfTheData(error)) throw error
      return this.#carryOneByOne(taken, error)
    }
  }

  async #carryOneByOne(taken: readonly Candidate[], error: unknown): Promise<boolean> {
    const [only, ...others] = taken
    if (others.length === 0) return this.#note(await this.#transact([only!], describe(error)))
    for (const candidate of taken) if (!(await this.#carry([candidate]))) return false
    return true
  }

  #note(carried: Carried | undefined): boolean {
    if (!carried) return false
    this.#hasRelayed ||= carried.stored.length > 0
    this.#parts.onCarried(carried)
    return true
  }

  /** Nothing if somebody else has the turn, or had it meanwhile. */
  #transact(taken: readonly Candidate[], verdict?: Verdict): Promise<Carried | undefined> {
    return this.#parts.database.transaction(async (rows) => {
      const [isMine, newest] = await Promise.all([this.#turn(rows), rows.rows<{ version: number }>(outbox.newest)])
      if (!isMine || (newest[0]?.version ?? 0) !== this.#looked!.version) return undefined
      return this.#bring(rows, taken, verdict)
    })
  }

  async #bring(rows: Transaction, taken: readonly Candidate[], verdict?: Verdict): Promise<Carried> {
    const ids = taken.map(({ outboxId }) => outboxId)
    const found = await rows.rows<OutboxRow>(outbox.take, ids)
    const carried = verdict ? strandAll(found, verdict) : await this.#append(rows, found)
    const { candidates } = this.#looked!
    const isLast = ids.at(-1) === candidates.at(-1)!.outboxId
    // With more than a round can hold, nothing is known of what comes after them.
    const isComplete = isLast && candidates.length < CANDIDATES_MAX
    strand(rows, carried.stranded)
    if (isComplete) this.#save(rows)
    return carried
  }

  async #append(rows: Transaction, found: readonly OutboxRow[]): Promise<Carried> {
    const { merged, unreadable } = mergeGroups(found)
    if (merged.length === 0) return { stored: [], stranded: unreadable }
    const groups = merged.map(({ group }) => group)
    const { outcomes, stored } = await this.#parts.store(rows, groups)
    const refused = merged.flatMap(({ rows: of }, place) => {
      const outcome = outcomes[place]!
      return 'refused' in outcome ? of.map((row) => ({ ...row, ...describe(outcome.refused) })) : []
    })
    return { stored: [stored], stranded: [...unreadable, ...refused] }
  }

  #save(rows: Transaction): void {
    const version = this.#looked!.version + 1
    rows.send(outbox.save, version, this.#looked!.snapshot, this.#parts.name)
    const isDue = version % PRUNED_AT_ONCE === 0
    if (isDue) rows.send(outbox.prune, version - 2 * PRUNED_AT_ONCE, version - PRUNED_AT_ONCE)
  }
}

/** As many as one transaction is to carry: one at least. */
function upTo(candidates: readonly Candidate[]): readonly Candidate[] {
  let bytes = 0
  const end = candidates.findIndex((candidate, place) => {
    bytes += candidate.bytes
    return place > 0 && (place === GROUPS_MAX || bytes > BYTES_MAX)
  })
  return end === -1 ? candidates : candidates.slice(0, end)
}

function strand(rows: Transaction, stranded: readonly Stranded[]): void {
  if (stranded.length === 0) return
  rows.send(
    outbox.strand,
    stranded.map(({ outboxId }) => outboxId),
    stranded.map(({ topic }) => topic),
    stranded.map(({ group }) => group),
    stranded.map(({ code }) => code),
    stranded.map(({ problem }) => problem),
  )
}

function strandAll(found: readonly OutboxRow[], verdict: Verdict): Carried {
  return { stored: [], stranded: found.map((row) => ({ ...row, ...verdict })) }
}

function describe(error: unknown): Verdict {
  const { message } = error as Error
  return { code: error instanceof PosthornError ? error.code : 'POSTHORN_STORAGE_FAILED', problem: message }
}

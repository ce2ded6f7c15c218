import type { AppendGroup, AppendOutcome } from '../../../engine.ts'
import { PosthornError } from '../../../errors.ts'
import type { Queryable, Transaction } from '../database/statement.ts'
import * as sql from '../sql/log.ts'
import { topics as topicsSql } from '../sql/topics.ts'
import { backlogsOf } from './backlog.ts'
import type { WrittenBatch } from './batches.ts'
import { type Draft, draftOf, type GivenId, givenIds, isDelayed, type PackedDrafts, pack } from './drafts.ts'
import { addLanes, Heads, insertBatches, insertDelayed, type Lane, toBatches } from './storing.ts'
import type { TopicRow, Topics } from './topics.ts'

export interface AppendCall {
  readonly groups: readonly AppendGroup[]
  /** All groups or none. */
  readonly atomic: boolean
  /** The limit of the backlog was looked at before. */
  readonly whateverBacklog?: boolean
}

/** What a transaction has stored. */
export interface Stored {
  readonly batches: readonly WrittenBatch[]
  /** When the first of the messages that wait for their time is due. */
  readonly dueAtMs?: number
}

interface Carried {
  /** Of each call, one for each group. */
  readonly outcomes: AppendOutcome[][]
  readonly stored: Stored
}

/** What became of a group: a draft, or why there is none. */
type Entry = Draft | { readonly refused: PosthornError }

/** Stores the groups of some calls within one transaction. */
export class AppendWork {
  readonly #topics: Topics
  readonly #calls: readonly AppendCall[]
  readonly #nowMs: number
  readonly #nextTurn: () => number
  readonly #heads = new Heads()
  /** By number, as they are while they are locked. */
  #locked: ReadonlyMap<number, TopicRow> = new Map()

  constructor(topics: Topics, calls: readonly AppendCall[], nowMs: number, nextTurn: () => number) {
    this.#topics = topics
    this.#calls = calls
    this.#nowMs = nowMs
    this.#nextTurn = nextTurn
  }

  async run(rows: Transaction): Promise<Carried> {
    const entries = await this.#lockedEntries(rows)
    await this.#refuse(rows, entries)
    const drafts = entries.flat().filter(isAccepted)
    await this.#rememberIds(rows, drafts)
    const packed = pack(drafts, this.#nowMs)
    await this.#addLanes(rows, drafts)
    const batches = toBatches(packed.runs, this.#heads)
    insertBatches(rows, batches)
    insertDelayed(rows, packed.delayed)
    const bases = batches.map(({ baseOffset }) => baseOffset)
    return {
      outcomes: entries.map((call) => call.map((entry) => outcomeOf(entry, packed, bases))),
      stored: { batches, ...earliestOf(packed) },
    }
  }

  /**
   * Topics that are known may have been deleted since, and made anew; or a server that was restored has given their
   * numbers to others: then they are looked up once more.
   */
  async #lockedEntries(rows: Queryable): Promise<Entry[][]> {
    for (;;) {
      const names = this.#calls.flatMap(({ groups }) => groups.map(({ topic }) => topic))
      const known = await this.#topics.recall(rows, names)
      const entries = this.#draft(known)
      await this.#lock(rows, [...known.values()], entries.flat().filter(isAccepted))
      const gone = [...known.values()].filter(({ topicId, topic }) => this.#locked.get(topicId)?.topic !== topic)
      for (const { topic } of gone) this.#topics.forget(topic)
      if (gone.length === 0) return entries
    }
  }

  #draft(known: ReadonlyMap<string, TopicRow>): Entry[][] {
    return this.#calls.map(({ groups }) =>
      groups.map((group): Entry => {
        const topic = known.get(group.topic)
        if (!topic) return { refused: new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic: group.topic }) }
        return draftOf(group, topic, this.#nextTurn())
      }),
    )
  }

  /** Sent together: the second looks when the first has its locks. */
  async #lock(rows: Queryable, topics: readonly TopicRow[], drafts: readonly Draft[]): Promise<void> {
    if (topics.length === 0) return
    const places = placesOf(drafts)
    const [locked, heads] = await Promise.all([
      rows.rows<TopicRow>(
        topicsSql.lock,
        topics.map(({ topicId }) => topicId),
      ),
      rows.rows<{ topicId: number; partition: number; nextOffset: number }>(
        sql.log.heads,
        places.map(({ topicId }) => topicId),
        places.map(({ partition }) => partition),
      ),
    ])
    this.#topics.remember(locked)
    this.#heads.note(heads)
    this.#locked = new Map(locked.map((topic) => [topic.topicId, topic]))
  }

  /** What the limits of topics do not allow, as far as one group after the other has filled them. */
  async #refuse(rows: Queryable, entries: Entry[][]): Promise<void> {
    const limited = [...this.#locked.values()].filter(({ maxBacklog }) => maxBacklog !== null)
    const backlogs = new Map(
      await backlogsOf(
        rows,
        limited.map(({ topicId }) => topicId),
      ),
    )
    for (const [place, { atomic, whateverBacklog }] of this.#calls.entries()) {
      const call = entries[place]!
      const refusal = atomic ? this.#firstRefusal(call, backlogs) : undefined
      for (const [index, entry] of call.entries()) {
        const refused = refusal ?? this.#refusalOf(entry, atomic || whateverBacklog ? new Map() : backlogs)
        if (refused) call[index] = { refused }
        else if (isAccepted(entry)) this.#fill(entry, backlogs)
      }
    }
  }

  #firstRefusal(call: readonly Entry[], backlogs: ReadonlyMap<number, number>): PosthornError | undefined {
    for (const entry of call) {
      const refusal = this.#refusalOf(entry, backlogs)
      if (refusal) return refusal
    }
    return undefined
  }

  #refusalOf(entry: Entry, backlogs: ReadonlyMap<number, number>): PosthornError | undefined {
    if (!isAccepted(entry)) return entry.refused
    const { topicId, topic } = entry.topic
    const limit = this.#locked.get(topicId)!.maxBacklog
    const backlog = backlogs.get(topicId)
    if (limit === null || backlog === undefined || backlog < limit) return undefined
    return new PosthornError('POSTHORN_BACKLOG_FULL', { topic, backlog, limit })
  }

  #fill({ group, topic }: Draft, backlogs: Map<number, number>): void {
    const backlog = backlogs.get(topic.topicId)
    if (backlog === undefined) return
    const ready = group.messages.filter((message) => !isDelayed(message, this.#nowMs))
    backlogs.set(topic.topicId, backlog + ready.length)
  }

  /** Of several messages with one id the first is the one that is new. */
  async #rememberIds(rows: Queryable, drafts: readonly Draft[]): Promise<void> {
    const given = givenIds(drafts)
    const firsts = new Map<string, GivenId>()
    for (const one of given) {
      const name = nameOf(one.draft.topic.topicId, one.hash)
      if (firsts.has(name)) one.draft.duplicates.add(one.place)
      else firsts.set(name, one)
    }
    if (firsts.size === 0) return
    const added = await this.#insertIds(rows, [...firsts.values()])
    for (const [name, { draft, place }] of firsts) if (!added.has(name)) draft.duplicates.add(place)
  }

  async #insertIds(rows: Queryable, given: readonly GivenId[]): Promise<ReadonlySet<string>> {
    const topicIds = given.map(({ draft }) => draft.topic.topicId)
    const added = await rows.rows<{ topicId: number; idHash: string }>(
      sql.log.remember,
      topicIds,
      given.map(({ hash }) => hash),
      topicIds.map((topicId) => this.#nowMs + this.#locked.get(topicId)!.deduplicationWindowMs),
      this.#nowMs,
    )
    return new Set(added.map(({ topicId, idHash }) => nameOf(topicId, idHash)))
  }

  /** Messages that wait for their time have their lane already. */
  async #addLanes(rows: Queryable, drafts: readonly Draft[]): Promise<void> {
    const missing = new Map<string, Lane>()
    for (const { topicId, partition, partitions } of placesOf(drafts)) {
      const lane = { topicId, partition: partition - (partition % partitions), partitions }
      if (!this.#heads.has(topicId, partition)) missing.set(nameOf(topicId, lane.partition), lane)
    }
    await addLanes(rows, [...missing.values()])
  }
}

function isAccepted(entry: Entry): entry is Draft {
  return 'group' in entry
}

/** Each partition that has messages among them, once. */
function placesOf(drafts: readonly Draft[]): Lane[] {
  const places = new Map<string, Lane>()
  for (const { topic, partitions: ofMessages } of drafts) {
    const { topicId, partitions } = topic
    for (const partition of new Set(ofMessages))
      places.set(nameOf(topicId, partition), { topicId, partition, partitions })
  }
  return [...places.values()]
}

function nameOf(topicId: number, part: string | number): string {
  return `${topicId}/${part}`
}

function outcomeOf(entry: Entry, packed: PackedDrafts, bases: readonly number[]): AppendOutcome {
  return isAccepted(entry) ? { receipts: packed.receiptsOf(entry, bases) } : { refused: entry.refused }
}

function earliestOf({ delayed }: PackedDrafts): { dueAtMs?: number } {
  if (delayed.length === 0) return {}
  return {
    dueAtMs: delayed.reduce((least, { message }) => Math.min(least, message.deliverAtMs), Number.POSITIVE_INFINITY),
  }
}

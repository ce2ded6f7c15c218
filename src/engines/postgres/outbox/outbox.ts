/**
 * Publishing within transactions of the user's. A group is one row of the outbox, inserted through the user's own
 * connection by one statement, which can also send the notice that wakes the relay: both happen when the transaction
 * commits. Nothing else is locked while it is open, however long that is.
 *
 * The server commits transactions that notify one after the other, each with its own wait for the disk. So while many are
 * published, only some of them do, and this process's relay looks by itself for the others.
 *
 * Where it is not known that a transaction is open, a statement before marks it, in a way that ends with it, and the
 * insertion does nothing unless it finds the mark. No refusal makes a statement fail, which would end the transaction.
 *
 * Ids are looked up among those that are remembered or on their way into the log. What another transaction, still open,
 * publishes under the same id cannot be seen: both are told that theirs is new, and the relay keeps the first.
 */
import type { AppendGroup, AppendOutcome, AppendReceipt, NewMessage } from '../../../engine.ts'
import type { Clock } from '../../../environment/index.ts'
import { PosthornError } from '../../../errors.ts'
import type { Database } from '../database/database.ts'
import { describeFailure } from '../database/failure.ts'
import { channelOf } from '../database/listener.ts'
import type { Queryable } from '../database/statement.ts'
import { backlogsOf } from '../log/backlog.ts'
import { idHash } from '../log/id-hash.ts'
import type { Topics } from '../log/topics.ts'
import { outbox, publishing } from '../sql/outbox.ts'
import { OneByOne } from './one-by-one.ts'
import { connectionOf, invalidTransaction, type Parameter, type UserConnection } from './user-connection.ts'

/** The notice that wakes the relays of all processes. */
export const OUTBOX_NOTICE = 'o'

/** Between two notices of a process. */
const NOTICE_MS_LEAST = 50

export interface OutboxParts {
  readonly database: Database
  readonly clock: Clock
  readonly topics: Pick<Topics, 'find'>
  /** A transaction of this process has something for the relay, if it commits; `told`: a notice will say when. */
  onAppended(told: boolean): void
}

/** What the statement that inserts says. */
interface Answer {
  readonly inside: boolean
  readonly ours: boolean | null
  readonly topic: boolean
  readonly limited: boolean
  /** Hashes of ids. */
  readonly known: readonly string[]
  readonly stored: boolean
  /** How many notices will be sent. */
  readonly told: number
  /** Of a transaction into which nothing was inserted. */
  readonly marked: string | null
}

interface Mark {
  readonly marked: string
  readonly outbox: string | null
  readonly readOnly: boolean
}

interface Attempt {
  /** A transaction is surely open when the next statement is carried out. */
  inside: boolean
  /** Of the transaction in which it began: what comes after must find itself in the same one. */
  mark: string
  backlogChecked: boolean
  marks: number
}

const UUID_DASHES = /-/g

export class Outbox {
  readonly #parts: OutboxParts
  readonly #texts: { readonly mark: string; readonly insert: string }
  /** The store, as the insertion compares it. */
  readonly #installation: string
  /** Connections to a database with an outbox: what is inserted there is not inserted into nothing. */
  readonly #known = new WeakSet<object>()
  readonly #turns = new OneByOne()
  #toldAtMs = Number.NEGATIVE_INFINITY

  private constructor(parts: OutboxParts, installation: string) {
    this.#parts = parts
    this.#installation = installation
    const { database } = parts
    this.#texts = { mark: database.resolve(publishing.mark.text), insert: database.resolve(publishing.insert.text) }
  }

  static async open(parts: OutboxParts): Promise<Outbox> {
    const [row] = await parts.database.rows<{ installation: string }>(outbox.installation)
    return new Outbox(parts, row!.installation)
  }

  /** See `Engine.appendIn`. */
  async appendIn(transaction: unknown, group: AppendGroup): Promise<AppendOutcome> {
    const connection = connectionOf(transaction)
    // A connection carries out one statement at a time, and its library may insist on being asked for one at a time.
    return this.#turns.run(transaction as object, () => this.#append(transaction as object, connection, group))
  }

  async #append(transaction: object, connection: UserConnection, group: AppendGroup): Promise<AppendOutcome> {
    const messages = new DistinctMessages(group.messages)
    const status = connection.transactionStatus()
    // A roll-back to a savepoint may be on its way.
    if (status === 'failed' && connection.isReady()) throw invalidTransaction(FAILED_BEFORE)
    const inside = status === 'open' && connection.isReady()
    const attempt: Attempt = { inside, mark: '', backlogChecked: false, marks: 0 }
    if (!connection.lent && !this.#known.has(transaction)) {
      await this.#mark(connection, attempt)
      this.#known.add(transaction)
    }
    // What is on its way may be the end of the transaction. Both are sent now, as it may also come after them.
    const marking = status === 'open' && !inside && attempt.marks === 0 ? this.#mark(connection, attempt) : undefined
    marking?.catch(() => {})
    while (messages.hasNew) {
      const answer = await this.#insert(connection, { ...group, messages: messages.new }, messages.hashes, attempt)
      await marking
      attempt.mark ||= answer.marked ?? ''
      if (answer.stored) {
        this.#parts.onAppended(answer.told > 0)
        break
      }
      const refusal = await this.#prepareNext(connection, group.topic, answer, attempt)
      if (refusal) return { refused: refusal }
      messages.drop(answer.known)
    }
    return { receipts: messages.receipts() }
  }

  /** Why it did not insert, if nothing can be done about it; otherwise does something about it. */
  async #prepareNext(
    connection: UserConnection,
    topic: string,
    answer: Answer,
    attempt: Attempt,
  ): Promise<PosthornError | undefined> {
    if (!answer.inside) {
      if (attempt.mark !== '' && attempt.marks === 0)
        throw invalidTransaction('its transaction ended before the message was part of it')
      await this.#mark(connection, attempt)
      return undefined
    }
    if (!answer.ours) throw invalidTransaction(`${OTHER_DATABASE} ${this.#parts.database.address.label}`)
    if (!answer.topic) throw new PosthornError('POSTHORN_TOPIC_NOT_FOUND', { topic })
    if (!answer.limited) return undefined
    attempt.backlogChecked = true
    return this.#refusalOf(topic)
  }

  /** On a connection of ours: the user's may not be allowed to see that much. What is in the outbox does not count. */
  async #refusalOf(name: string): Promise<PosthornError | undefined> {
    const { topic, topicId, maxBacklog: limit } = await this.#parts.topics.find(name)
    if (limit === null) return undefined
    const backlog = (await backlogsOf(this.#parts.database, [topicId])).get(topicId) ?? 0
    return backlog < limit ? undefined : new PosthornError('POSTHORN_BACKLOG_FULL', { topic, backlog, limit })
  }

  async #mark(connection: UserConnection, attempt: Attempt): Promise<void> {
    if (attempt.marks++ > 0) throw invalidTransaction('no transaction is open on this connection')
    const { label, schema } = this.#parts.database.address
    const mark = await this.#ask<Mark>(connection, this.#texts.mark, [`"${schema}".outbox`])
    if (mark.outbox === null) throw invalidTransaction(`${OTHER_DATABASE} ${label}`)
    if (mark.readOnly) throw invalidTransaction(READS_ONLY)
    attempt.mark = mark.marked
  }

  #insert(
    connection: UserConnection,
    group: AppendGroup,
    hashes: readonly string[],
    { inside, mark, backlogChecked }: Attempt,
  ): Promise<Answer> {
    const { schema } = this.#parts.database.address
    return this.#ask<Answer>(connection, this.#texts.insert, [
      group.topic,
      JSON.stringify(group),
      JSON.stringify(hashes),
      this.#installation,
      inside,
      backlogChecked,
      String(this.#parts.clock.now()),
      this.#tells() ? channelOf(schema) : '',
      OUTBOX_NOTICE,
      mark,
    ])
  }

  #tells(): boolean {
    const { clock } = this.#parts
    if (clock.real && clock.elapsedMs() < this.#toldAtMs + NOTICE_MS_LEAST) return false
    this.#toldAtMs = clock.elapsedMs()
    return true
  }

  async #ask<Said>(connection: UserConnection, text: string, values: readonly Parameter[]): Promise<Said> {
    try {
      const [row] = await connection.query(text, values)
      return readAnswer<Said>(row)
    } catch (error) {
      throw describe(error, this.#parts.database.address.label)
    }
  }
}

/** The messages of a group, of which those are left out whose ids are known already. */
class DistinctMessages {
  readonly #messages: readonly NewMessage[]
  readonly #hashes: readonly (string | undefined)[]
  readonly #duplicates = new Set<number>()

  constructor(messages: readonly NewMessage[]) {
    this.#messages = messages
    this.#hashes = messages.map(({ id, deduplicate }) => (deduplicate ? idHash(id) : undefined))
    const seen = new Set<string>()
    for (const [place, hash] of this.#hashes.entries()) {
      if (hash === undefined) continue
      if (seen.has(hash)) this.#duplicates.add(place)
      seen.add(hash)
    }
  }

  get hasNew(): boolean {
    return this.#duplicates.size < this.#messages.length
  }

  get new(): readonly NewMessage[] {
    return this.#messages.filter((_, place) => !this.#duplicates.has(place))
  }

  get hashes(): readonly string[] {
    return this.#hashes.filter((hash, place) => hash !== undefined && !this.#duplicates.has(place)) as string[]
  }

  drop(known: readonly string[]): void {
    const gone = new Set(known.map((hash) => hash.replaceAll(UUID_DASHES, '')))
    for (const [place, hash] of this.#hashes.entries()) {
      if (hash !== undefined && gone.has(hash)) this.#duplicates.add(place)
    }
  }

  /** Where a message will be stored is not known before its transaction has ended. */
  receipts(): readonly AppendReceipt[] {
    return this.#messages.map((_, place) => ({ duplicate: this.#duplicates.has(place) }))
  }
}

const FAILED_BEFORE = 'a statement of its transaction has failed, so that it can only be rolled back'
const READS_ONLY = 'its transaction may only read'
const OTHER_DATABASE = 'its connection is to another database than the one that holds the messages,'
const FAILED_TRANSACTION = '25P02'
const NO_PRIVILEGE = '42501'
const READ_ONLY_TRANSACTION = '25006'
/** Neither one of Prisma's codes nor one of the operating system's. */
const SQLSTATE = /^(?!P[1-9]|E)[0-9A-Z]{5}$/
/** Where libraries keep the error that they wrap. */
const WRAPPED = ['cause', 'driverError', 'driverAdapterError', 'meta', 'nativeError'] as const

/** Libraries can be told to change results: what looks like JSON may be parsed, and names be written otherwise. */
function readAnswer<Said>(row: unknown): Said {
  const [answer] = Object.values(row as object) as [string | Said]
  return typeof answer === 'string' ? (JSON.parse(answer) as Said) : answer
}

function describe(error: unknown, store: string): PosthornError {
  if (error instanceof PosthornError) return error
  const code = sqlStateOf(error)
  if (code === FAILED_TRANSACTION) return invalidTransaction(FAILED_BEFORE, error)
  if (code === READ_ONLY_TRANSACTION) return invalidTransaction(READS_ONLY, error)
  if (code === NO_PRIVILEGE) return invalidTransaction(`the server says ${messageOf(error)}`, error)
  // With a severity, as the server has said it: without one it would be taken for a failure of the connection.
  const said = { code, severity: 'ERROR' }
  if (code !== undefined)
    return describeFailure(Object.assign(new Error(messageOf(error), { cause: error }), said), store)
  // What no server said is the library's: the transaction has ended, or its connection was released.
  return invalidTransaction(`its library says ${messageOf(error)}`, error)
}

function sqlStateOf(error: unknown, depth = 0): string | undefined {
  if (typeof error !== 'object' || error === null || depth > WRAPPED.length) return undefined
  const { originalCode, code } = error as { originalCode?: unknown; code?: unknown }
  for (const candidate of [originalCode, code]) {
    if (typeof candidate === 'string' && SQLSTATE.test(candidate)) return candidate
  }
  for (const name of WRAPPED) {
    const found = sqlStateOf((error as Record<string, unknown>)[name], depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Deletes what was committed for a topic and is not in its log yet. Returns how many messages. */
export async function discard(rows: Queryable, topic: string): Promise<number> {
  const gone = await rows.rows<{ group: string }>(outbox.discard, topic)
  return gone.reduce((messages, { group }) => messages + (JSON.parse(group) as AppendGroup).messages.length, 0)
}

/**
 * Brings the tables to the schema that this code knows.
 *
 * Of several processes that start together, one takes each step while the others wait for it. A step that cannot have a
 * lock on a table soon gives up and is tried again a little later, so that nobody else has to queue behind it. A process
 * that dies leaves the steps that were finished; of one that stands still in a step, the server ends it.
 *
 * A step with which running processes of older versions cannot work is announced some seconds before it is taken, by
 * what the tables say of who may use them: these processes stop, and none of them starts any more.
 *
 * A role that may not create anything can use tables that are there already: then nothing but the version is read. A
 * process of an older version works with newer tables as far as these say that they are compatible with it.
 */
import type pg from 'pg'
import { PosthornError } from '../../../errors.ts'
import * as sql from '../sql/migrations.ts'
import type { Database } from './database.ts'
import { describeFailure } from './failure.ts'
import { endClient } from './goodbye.ts'
import { channelOf } from './listener.ts'
import { SCHEMA_NOTICE } from './schema-watch.ts'

export interface MigrateOptions {
  readonly migrations?: readonly sql.Migration[]
  /** How long a step may wait for a lock on a table, and keep others waiting behind it. */
  readonly lockMsMax?: number
  readonly triesMax?: number
  /** How long this process may stand still in a step, while others wait for it, before the server ends the step. */
  readonly idleMsMax?: number
  /** How long an answer is awaited that nobody else can hold up. */
  readonly answerMsMax?: number
  /** How long before a step those are told who cannot work with what it leads to. */
  readonly noticeSeconds?: number
}

interface Version {
  readonly version: number
  readonly compatibleFrom: number
}

type Query = <Row extends pg.QueryResultRow>(
  text: string,
  values?: readonly unknown[],
  answerMsMax?: number,
) => Promise<readonly Row[]>

const LOCK_MS_MAX = 2_000
const TRIES_MAX = 60
const IDLE_MS_MAX = 5_000
/** As long as can be: others may be at a step, or this one. */
const PATIENT_MS_MAX = 2 ** 31 - 1
const PAUSE_SECONDS = 0.5
/** They are told at once, and look each second besides. */
const NOTICE_SECONDS = 5
const LOCK_NOT_AVAILABLE = '55P03'
const NOTHING: Version = { version: 0, compatibleFrom: 0 }

/**
 * Rejects with POSTHORN_SCHEMA_TOO_NEW, with nothing changed, when the tables are those of a newer Posthorn with which
 * this one cannot work.
 */
export async function migrate(database: Database, options: MigrateOptions = {}): Promise<void> {
  const client = database.newClient(options.answerMsMax)
  // A connection that fails rejects what is under way on it.
  client.on('error', () => {})
  try {
    await client.connect()
    await checkEncoding(client)
    await new Migrating(database, client, options).run()
  } catch (error) {
    throw describeFailure(error, database.address.label)
  } finally {
    await endClient(client)
  }
}

/** Whatever is published must be storable: it would fail what is stored together with it. */
async function checkEncoding(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ server_encoding: string }>('SHOW server_encoding')
  const encoding = rows[0]!.server_encoding
  if (encoding === 'UTF8' || encoding === 'SQL_ASCII') return
  const feature = `a database whose encoding is ${encoding}; it must be UTF8`
  throw new PosthornError('POSTHORN_UNSUPPORTED', { engine: 'postgres', feature })
}

class Migrating {
  readonly #database: Database
  readonly #query: Query
  readonly #migrations: readonly sql.Migration[]
  readonly #lockMsMax: number
  readonly #triesMax: number
  readonly #idleMsMax: number
  readonly #noticeSeconds: number

  constructor(database: Database, client: pg.Client, options: MigrateOptions) {
    const { migrations = sql.MIGRATIONS, lockMsMax = LOCK_MS_MAX, triesMax = TRIES_MAX } = options
    this.#noticeSeconds = options.noticeSeconds ?? NOTICE_SECONDS
    this.#database = database
    this.#migrations = migrations
    this.#lockMsMax = lockMsMax
    this.#triesMax = triesMax
    this.#idleMsMax = options.idleMsMax ?? IDLE_MS_MAX
    this.#query = async <Row extends pg.QueryResultRow>(text: string, values?: readonly unknown[], answerMsMax = 0) => {
      const config = { text: database.resolve(text), values: values as unknown[], query_timeout: answerMsMax }
      return (await client.query<Row>(config)).rows
    }
  }

  async run(): Promise<void> {
    for (let tries = 1; ; ) {
      const found = await this.#readVersion()
      if (this.#isDone(found)) return
      if (this.#turnsAway(found)) await this.#announce()
      const isTaken = await this.#tryStep()
      if (isTaken) tries = 1
      else if (tries++ >= this.#triesMax) this.#refuseBusy()
      else await this.#query(sql.PAUSE, [PAUSE_SECONDS], PATIENT_MS_MAX)
    }
  }

  /** Returns whether it could be taken; it could not be, if somebody holds a lock on a table. */
  async #tryStep(): Promise<boolean> {
    try {
      // What comes after a step of somebody else's may have to be announced.
      await this.#locked(async (found) => {
        const isAnnounced = !this.#turnsAway(found) || found.compatibleFrom > found.version
        if (isAnnounced) await this.#step(found.version)
      })
      return true
    } catch (error) {
      if ((error as { code?: string }).code === LOCK_NOT_AVAILABLE) return false
      throw error
    }
  }

  /** One process at a time, in a transaction, unless there is nothing left to do. */
  async #locked(work: (found: Version) => Promise<void>): Promise<void> {
    // Whoever waited for another's step has to see what that one did.
    await this.#query('BEGIN ISOLATION LEVEL READ COMMITTED')
    try {
      await this.#query(sql.SET_LIMITS, [`${this.#idleMsMax}ms`])
      await this.#query(sql.LOCK_MIGRATIONS, [], PATIENT_MS_MAX)
      await this.#query(sql.LIMIT_LOCK_WAIT, [`${this.#lockMsMax}ms`])
      const found = await this.#readVersion()
      if (!this.#isDone(found)) await work(found)
      await this.#query('COMMIT')
    } catch (error) {
      await this.#query('ROLLBACK').catch(() => {})
      throw error
    }
  }

  /** Whether the next step is one with which processes that use the tables now cannot work. */
  #turnsAway({ version }: Version): boolean {
    return version > 0 && this.#migrations[version]!.compatibleFrom > version
  }

  /** Tells them, and gives them time. Whoever finds it announced waits as well: it may have been just now. */
  async #announce(): Promise<void> {
    await this.#locked(async ({ version, compatibleFrom }) => {
      const least = this.#migrations[version]!.compatibleFrom
      if (this.#turnsAway({ version, compatibleFrom }) && compatibleFrom < least) await this.#write(version, least)
    })
    await this.#query(sql.PAUSE, [this.#noticeSeconds], PATIENT_MS_MAX)
  }

  async #step(version: number): Promise<void> {
    const { text, compatibleFrom } = this.#migrations[version]!
    if (version === 0) await this.#createVersion()
    await this.#query(text, undefined, PATIENT_MS_MAX)
    await this.#write(version + 1, compatibleFrom)
  }

  async #write(version: number, compatibleFrom: number): Promise<void> {
    const channel = channelOf(this.#database.address.schema)
    await this.#query(sql.WRITE_VERSION, [version, compatibleFrom, channel, SCHEMA_NOTICE])
  }

  async #createVersion(): Promise<void> {
    const { schema } = this.#database.address
    const found = await this.#query(sql.FIND_SCHEMA, [schema])
    if (found.length === 0) await this.#query(sql.CREATE_SCHEMA.replace('$schema', `"${schema}"`))
    if (!(await this.#hasVersion())) await this.#query(sql.CREATE_VERSION)
  }

  async #hasVersion(): Promise<boolean> {
    const [version] = await this.#query<{ found: boolean }>(sql.FIND_VERSION, [this.#database.address.schema])
    return version?.found === true
  }

  async #readVersion(): Promise<Version> {
    if (!(await this.#hasVersion())) return NOTHING
    const [row] = await this.#query<Version & pg.QueryResultRow>(sql.READ_VERSION)
    return row ?? NOTHING
  }

  #isDone({ version, compatibleFrom }: Version): boolean {
    const known = this.#migrations.length
    if (compatibleFrom <= known) return version >= known
    const details = { store: this.#database.address.label, found: Math.max(version, compatibleFrom), known }
    throw new PosthornError('POSTHORN_SCHEMA_TOO_NEW', details)
  }

  #refuseBusy(): never {
    const problem = 'its tables could not be brought up to date, because another transaction keeps one of them locked'
    throw new PosthornError('POSTHORN_STORAGE_FAILED', { store: this.#database.address.label, problem })
  }
}

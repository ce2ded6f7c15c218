/**
 * The connections of this process to the server, and the only place that knows the driver.
 *
 * Statements are sent as soon as they are made (`pg`'s pipelining), so that a transaction need not wait for the answer to
 * its BEGIN. Each is prepared once a connection, unless a pooler hands every transaction another one.
 *
 * A connection that fails is dropped; the next statement is given another. What was under way on it rejects with a coded
 * error: POSTHORN_OUTCOME_UNKNOWN when it was a COMMIT, which may have been carried out.
 */
import pg from 'pg'
import { PosthornError } from '../../../errors.ts'
import type { PostgresAddress } from '../address.ts'
import { Certificates } from './certificates.ts'
import { describeFailure, isConnectionFailure, isOfNoUse } from './failure.ts'
import { dropUnlessEnded } from './goodbye.ts'
import { OpenTransaction } from './open-transaction.ts'
import { ENGINE_PLANNING, pooledPhrases, sessionPhrases } from './planning.ts'
import type { Queryable, Statement, Transaction } from './statement.ts'

const CONNECT_MS_MAX = 10_000
const ANSWER_MS_MAX = 30_000
const KEPT_IDLE_MS = 30_000
/** After so long without a word it is found out whether there is still somebody at the other end. */
const KEEP_ALIVE_MS = 10_000
const INT8 = 20
/** Deadlocks and serialization failures: the transaction is rolled back, and may succeed when it is tried again. */
const TRY_AGAIN = new Set(['40001', '40P01'])
const TRIES_MAX = 3

/** Offsets, times and ids are far below the limit up to which numbers are exact. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid: number, format?: 'text' | 'binary') =>
    oid === INT8 && format !== 'binary' ? Number : pg.types.getTypeParser(oid, format),
}

export class Database implements Queryable {
  readonly address: PostgresAddress
  readonly #pool: pg.Pool
  readonly #certificates: Certificates
  readonly #opened = new Set<pg.Client>()
  /** All that have not ended, also those that are not connected yet. */
  readonly #made = new Set<pg.Client>()
  readonly #configs = new Map<Statement, pg.QueryConfig>()
  readonly #phrases: typeof sessionPhrases
  #refusal: PosthornError | undefined

  constructor(address: PostgresAddress) {
    this.address = address
    this.#phrases = address.transactionPooling ? pooledPhrases : sessionPhrases
    this.#certificates = new Certificates(address.connectionString)
    const track = (client: pg.Client) => this.#track(client)
    class TrackedClient extends pg.Client {
      constructor(config?: pg.ClientConfig) {
        super(config)
        track(this)
      }
    }
    this.#pool = new pg.Pool({
      ...clientConfig(this.#certificates),
      Client: TrackedClient,
      max: address.connectionsMax,
      idleTimeoutMillis: KEPT_IDLE_MS,
    })
    // A connection that fails while nobody uses it has left the pool already.
    this.#pool.on('error', () => {})
    this.#pool.on('connect', (client) => this.#opened.add(client))
    this.#pool.on('remove', (client) => this.#opened.delete(client))
    // Not awaited: without it everything is merely slower.
    if (!address.transactionPooling)
      this.#pool.on('connect', (client) => void client.query(ENGINE_PLANNING).catch(() => {}))
  }

  async rows<Row>(statement: Statement, ...values: readonly unknown[]): Promise<Row[]> {
    return this.#withClient((client) => this.#ofPool(client).rows<Row>(statement, ...values))
  }

  async run(statement: Statement, ...values: readonly unknown[]): Promise<number> {
    return this.#withClient((client) => this.#ofPool(client).run(statement, ...values))
  }

  /**
   * Carries `work` out in a transaction, which is committed when it resolves and rolled back when it rejects. It may be
   * called several times, for as long as the server asks for the transaction to be tried again, and no more than
   * `triesMax` times.
   */
  async transaction<Value>(
    work: (rows: Transaction, client: pg.ClientBase) => Promise<Value>,
    triesMax = TRIES_MAX,
  ): Promise<Value> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#withClient((client) => this.#transact(client, work))
      } catch (error) {
        const { code } = ((error as Error).cause ?? error) as { code?: string }
        if (tries >= triesMax || !TRY_AGAIN.has(code ?? '')) throw error
      }
    }
  }

  /** The engine's statements on a connection of the user's, on which nothing is prepared. */
  onOwn(client: Pick<pg.ClientBase, 'query'>): Queryable {
    return this.#on(client, (statement) => ({ text: this.#configOf(statement).text }))
  }

  #on(client: Pick<pg.ClientBase, 'query'>, configOf: (statement: Statement) => pg.QueryConfig): Queryable {
    const query = <Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]) =>
      client.query<Row>({ ...configOf(statement), types, values: values as unknown[] })
    return {
      rows: async <Row>(statement: Statement, ...values: readonly unknown[]) =>
        (await query(statement, values)).rows as Row[],
      run: async (statement, ...values) => (await query(statement, values)).rowCount ?? 0,
    }
  }

  /** From here on, until its transaction ends, statements of the user's are sent over the connection. */
  lend(client: Pick<pg.ClientBase, 'query'>): void {
    client.query(this.#phrases.lend).catch(() => {})
  }

  /** From here on, they are the engine's again, whatever the user has set. */
  takeBack(client: Pick<pg.ClientBase, 'query'>): void {
    client.query(this.#phrases.takeBack).catch(() => {})
  }

  /** A connection of its own, which is not part of the pool. `answerMsMax`: how long it waits for an answer; 0: for ever. */
  newClient(answerMsMax = ANSWER_MS_MAX): pg.Client {
    const config = clientConfig(this.#certificates)
    const connectMsMax = answerMsMax === 0 ? CONNECT_MS_MAX : Math.min(CONNECT_MS_MAX, answerMsMax)
    return this.#track(new pg.Client({ ...config, query_timeout: answerMsMax, connectionTimeoutMillis: connectMsMax }))
  }

  /** Nothing is sent any more: all that is asked for rejects with this error. What is on its way may still be carried out. */
  refuse(error: PosthornError): void {
    this.#refusal = error
  }

  /** SQL with the schema's name filled in. */
  resolve(text: string): string {
    return text.replaceAll('@.', `"${this.address.schema}".`)
  }

  /** Resolves when the server has answered something. */
  async answer(): Promise<void> {
    await this.#withClient((client) => client.query('SELECT'))
  }

  /** Drops all connections, and those that are being made: what waits for an answer rejects, and nothing is asked any more. */
  cutOff(error: PosthornError): void {
    this.refuse(error)
    for (const client of this.#made) client.connection.stream.destroy()
  }

  async close(): Promise<void> {
    for (const client of this.#opened) dropUnlessEnded(client)
    await this.#pool.end()
  }

  async #withClient<Value>(use: (client: pg.PoolClient) => Promise<Value>): Promise<Value> {
    if (this.#refusal) throw this.#refusal
    const client = await this.#pool.connect().catch((error: unknown) => {
      this.#certificates.readAgain()
      return this.#reject(error)
    })
    let failure: unknown
    // Without a listener the failure of a connection would end the process.
    const noteFailure = (error: Error) => {
      failure = error
    }
    client.on('error', noteFailure)
    try {
      return await use(client)
    } catch (error) {
      if (isOfNoUse(error)) failure = error
      return this.#reject(error)
    } finally {
      client.off('error', noteFailure)
      client.release(failure !== undefined)
    }
  }

  async #transact<Value>(
    client: pg.PoolClient,
    work: (rows: Transaction, client: pg.ClientBase) => Promise<Value>,
  ): Promise<Value> {
    // Not awaited: should it fail, so does what follows it, which must not be carried out without a transaction.
    const begun = client.query(this.#phrases.begin)
    begun.catch(() => client.connection.stream.destroy())
    const transaction = new OpenTransaction(this.#ofPool(client))
    try {
      const value = await work(transaction, client)
      await begun
      await this.#commit(client)
      return value
    } catch (error) {
      // Also after a COMMIT: one that is cancelled leaves the transaction open.
      await client.query(this.#phrases.rollback).catch((failure: unknown) => client.emit('error', failure))
      throw await transaction.reasonOf(error)
    }
  }

  async #commit(client: pg.PoolClient): Promise<void> {
    const result = await client.query('COMMIT').catch((error: unknown) => {
      if (!isConnectionFailure(error)) throw error
      const details = { store: this.address.label, problem: (error as Error).message }
      throw new PosthornError('POSTHORN_OUTCOME_UNKNOWN', details, { cause: error })
    })
    // The server answers so when a statement of the transaction has failed.
    if (result.command === 'COMMIT') return
    const details = { store: this.address.label, problem: 'the transaction was rolled back' }
    throw new PosthornError('POSTHORN_STORAGE_FAILED', details)
  }

  #track(client: pg.Client): pg.Client {
    this.#made.add(client)
    client.once('end', () => this.#made.delete(client))
    return client
  }

  #ofPool(client: pg.ClientBase): Queryable {
    return this.#on(client, (statement) => this.#configOf(statement))
  }

  #configOf(statement: Statement): pg.QueryConfig {
    let config = this.#configs.get(statement)
    if (!config) {
      const text = this.resolve(statement.text)
      const name = `posthorn_${statement.name}`
      config = this.address.transactionPooling ? { text } : { name, text }
      this.#configs.set(statement, config)
    }
    return config
  }

  #reject(error: unknown): never {
    throw describeFailure(error, this.address.label)
  }
}

function clientConfig({ connectionString, encryption }: Certificates): pg.ClientConfig {
  return {
    connectionString,
    // Unless the URL, or PGAPPNAME, says another one.
    fallback_application_name: 'posthorn',
    ssl: encryption,
    types,
    pipeline: true,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    connectionTimeoutMillis: CONNECT_MS_MAX,
    query_timeout: ANSWER_MS_MAX,
  } as pg.ClientConfig
}

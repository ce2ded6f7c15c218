import type pg from 'pg'
import type { Database } from './database.ts'
import { describeFailure, isOfNoUse } from './failure.ts'
import { endClient } from './goodbye.ts'
import type { Queryable, Statement } from './statement.ts'

/** One connection that is not part of the pool, opened when it is first needed, and again after it has failed. */
export class OwnConnection implements Queryable {
  readonly #database: Database
  readonly #answerMsMax: number
  #client: Promise<pg.Client> | undefined

  constructor(database: Database, answerMsMax: number) {
    this.#database = database
    this.#answerMsMax = answerMsMax
  }

  async rows<Row>(statement: Statement, ...values: readonly unknown[]): Promise<Row[]> {
    return this.#use((queryable) => queryable.rows<Row>(statement, ...values))
  }

  async run(statement: Statement, ...values: readonly unknown[]): Promise<number> {
    return this.#use((queryable) => queryable.run(statement, ...values))
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => undefined)
    if (client) await endClient(client)
  }

  async #use<Value>(work: (queryable: Queryable) => Promise<Value>): Promise<Value> {
    this.#client ??= this.#connect()
    const opened = this.#client
    try {
      return await work(this.#database.onOwn(await opened))
    } catch (error) {
      if (isOfNoUse(error)) this.#drop(opened)
      throw describeFailure(error, this.#database.address.label)
    }
  }

  #connect(): Promise<pg.Client> {
    const client = this.#database.newClient(this.#answerMsMax)
    const drop = () => this.#drop(opened)
    client.on('error', drop)
    client.on('end', drop)
    const opened = client.connect().then(() => client)
    opened.catch(() => {
      drop()
      void endClient(client)
    })
    return opened
  }

  #drop(client: Promise<pg.Client>): void {
    if (this.#client !== client) return
    this.#client = undefined
    client.then(endClient).catch(() => {})
  }
}
